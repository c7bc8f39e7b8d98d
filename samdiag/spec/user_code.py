"""The only place where code of the user's own is imported and called. What a checkpoint says never arrives here."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from samdiag.errors import UsageError
from samdiag.quoting import quoted, shown
from samdiag.spec.merging import Place
from samdiag.suggesting import did_you_mean
from samdiag.user_errors import summary, user_code


def extend_path(folders: Iterable[Path]) -> None:
    """`folders` come first on `sys.path`, in their order, and stay there: user code imports lazily too."""
    for folder in reversed([str(folder) for folder in folders]):
        if folder not in sys.path:
            sys.path.insert(0, folder)


def import_object(reference: str, *, key: str, place: Place, checkpoint_folder: Path | None) -> Any:
    """What `module:name` or `file.py:name` stands for.

    `file.py` is relative to the folder of whoever named it and its folder joins `sys.path`, as with `python file.py`.
    `module` is looked for on `sys.path` (with the project's `pythonpath`); for a name given on the command line also in
    the working directory, as with `python -m`, unless the checkpoint lies there.

    Args:
        reference: as the user wrote it.
        key: the setting, for messages.
        place: where the origin looks names up.
        checkpoint_folder: never put on `sys.path` unless the user names a file in it.

    Raises:
        UsageError: there is no such module, file or attribute, or importing it fails.
    """
    module_name, _, attribute = reference.rpartition(":")
    if not module_name or not attribute:
        raise UsageError(f"{key} = {quoted(reference)} is no reference", f'write {key} = "module:function"')
    if module_name.endswith(".py"):
        module = _import_file(module_name, key=key, place=place)
    else:
        module = _import_module(module_name, key=key, place=place, checkpoint_folder=checkpoint_folder)
    return _attribute(module, module_name, attribute, key)


def call(function: Callable[..., Any], described: str, **arguments: Any) -> Any:
    """What `function(**arguments)` returns; whatever it raises becomes a UsageError that names the user's own line."""
    with user_code(described, "correct it there; it is run as written"), contextlib.redirect_stdout(sys.stderr):
        return function(**arguments)


def _import_file(name: str, *, key: str, place: Place) -> ModuleType:
    path = (place.folder / Path(name).expanduser()).resolve()
    if not path.is_file():
        raise UsageError(f"{key} names {quoted(name)}: there is no such file", f"looked in {shown(place.folder)}")
    private = f"_samdiag_user_{hashlib.sha256(str(path).encode()).hexdigest()[:16]}"
    if private in sys.modules:  # model, data and loss from one file share its state
        return sys.modules[private]
    specification = importlib.util.spec_from_file_location(private, path)
    assert specification is not None  # a .py file always has a loader
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    extend_path([path.parent])
    sys.modules[private] = module  # before running it: dataclasses and pickle look a class's module up
    try:
        with contextlib.redirect_stdout(sys.stderr):
            specification.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[private]
        raise _import_failed(name, error) from error
    return module


def _import_module(name: str, *, key: str, place: Place, checkpoint_folder: Path | None) -> ModuleType:
    beside_checkpoint = checkpoint_folder is not None and place.folder.resolve() == checkpoint_folder.resolve()
    if place.importable and not beside_checkpoint:
        extend_path([place.folder])
    importlib.invalidate_caches()
    try:
        with contextlib.redirect_stdout(sys.stderr):
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise _import_failed(name, error) from error
        raise _module_missing(name, key, place, beside_checkpoint) from None
    except (Exception, SystemExit) as error:
        raise _import_failed(name, error) from error


def _module_missing(name: str, key: str, place: Place, beside_checkpoint: bool) -> UsageError:
    what = f"{key} names the module {quoted(name)}, which is not found"
    file = Path(*name.split(".")).with_suffix(".py")
    if not (place.folder / file).is_file():
        return UsageError(
            what, f'check its name, or add its folder to your samdiag.toml: pythonpath = ["src"]; {key} = …'
        )
    if place.importable and beside_checkpoint:
        what += ": the folder of a checkpoint is never searched for modules"
        return UsageError(what, f"name the file itself: --{key} {file.as_posix()}:name")
    return UsageError(what, f'add pythonpath = ["."] beside {key}, or name the file itself: {file.as_posix()}:name')


def _attribute(module: ModuleType, module_name: str, attribute: str, key: str) -> Any:
    found: Any = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            near = did_you_mean(part, dir(found))
            what = f"{key}: {shown(module_name)} has no {quoted(part)}{near}"
            raise UsageError(what, f"define it in {shown(module_name)}, or correct {key}")
        found = getattr(found, part)
    return found


def _import_failed(name: str, error: BaseException) -> UsageError:
    missing = isinstance(error, ModuleNotFoundError)
    todo = "install it, or add its folder to pythonpath in your samdiag.toml" if missing else "correct it there"
    return UsageError(f"importing {shown(name)} raised {summary(error)}", todo)
