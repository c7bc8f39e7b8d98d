"""The closed catalog: what may be named without naming an import, and so by a checkpoint too."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from samdiag import registry
from samdiag.errors import UsageError
from samdiag.quoting import quoted
from samdiag.spec.parsing import did_you_mean


def find_factory(kind: Literal["model", "data"], library: str, name: str) -> Callable[..., Any]:
    """The catalog's factory for `name`.

    Args:
        kind: what it makes.
        library: "gallery", or one that is recognised and not available.
        name: the entry.

    Raises:
        UsageError: the library is not available in this version, or has no such entry.
    """
    tables: Mapping[str, Mapping[str, str]] = registry.CATALOG_MODELS if kind == "model" else registry.CATALOG_DATA
    entries = tables.get(library)
    if entries is None:
        todo = f'name a function of your own instead: {kind} = "module:factory" (in your samdiag.toml, or --{kind})'
        raise UsageError(f"{kind}.{library} is not available in this version", todo)
    if name not in entries:
        known = ", ".join(sorted(entries))
        todo = f'choose one of: {known}; or name a function of your own: {kind} = "module:factory"'
        raise UsageError(f"the {library} has no {kind} named {quoted(name)}{did_you_mean(name, entries)}", todo)
    factory: Callable[..., Any] = registry.load(entries[name])
    return factory
