"""The catalogs' libraries, imported only where a spec names one: offline, and with a clear word where that fails."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import warnings
from types import ModuleType

from samdiag.errors import UsageError
from samdiag.user_errors import summary

OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DISABLE_TELEMETRY": "1",
    "HF_UPDATE_DOWNLOAD_COUNTS": "0",
    "NO_ALBUMENTATIONS_UPDATE": "1",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
}
DISTRIBUTIONS = {"PIL": "pillow"}  # where it is not the module's own name


def library(module: str, *, key: str, extra: str) -> ModuleType:
    """The imported module.

    Args:
        module: its name, e.g. "timm" or "datasets".
        key: the setting that needs it, for messages: "model.timm".
        extra: of samdiag's own, that installs it.

    Raises:
        UsageError: it is not installed, or fails to import.
    """
    go_offline()
    name = module.partition(".")[0]
    known = DISTRIBUTIONS.get(name, name)
    install = f"pip install 'samdiag[{extra}]'"
    try:
        with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a library's own deprecations are not the reader's
            return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.partition(".")[0] == name:
            raise UsageError(f"{key} needs {known}, which is not installed", install) from None
        raise _broken(key, known, error, install) from error
    except (Exception, SystemExit) as error:  # compiled parts fail in many ways: OSError, RuntimeError, ImportError
        raise _broken(key, known, error, install) from error


def go_offline() -> None:
    """Nothing is fetched by the Hugging Face libraries from here on; where they are loaded already, too."""
    os.environ.update(OFFLINE)
    for module, names in {
        "huggingface_hub.constants": ("HF_HUB_OFFLINE",),
        "datasets.config": ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"),
    }.items():
        loaded = sys.modules.get(module)
        for name in names:
            if loaded is not None and hasattr(loaded, name):
                setattr(loaded, name, True)


def _broken(key: str, known: str, error: BaseException, install: str) -> UsageError:
    """The refusal with the reason at the bottom of the chain: libraries wrap it."""
    cause = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    what = f"{key} needs {known}, which is installed and does not import: {summary(cause)}"
    return UsageError(what, f"make `python -c 'import {known}'` work first; {install} installs what fits together")
