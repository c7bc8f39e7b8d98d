"""samdiag tells whether a checkpoint trained with Sharpness-Aware Minimization is stuck, why, and what to change.

    import samdiag

    problem = samdiag.Problem(model=model, loss=loss, batches=batches)   # loss(model, batch) → mean loss of the batch
    diagnosis = samdiag.diagnose(problem, rho=0.1, lr=0.05)
    print(diagnosis.verdict)

Names are loaded when they are used, so that `import samdiag` does not import torch.
"""

from __future__ import annotations

import sys

if sys.argv[:1] == ["-m"] and sys.path:
    # `python -m samdiag` puts the working directory first on sys.path, and with it a torch.py that lies beside a
    # downloaded checkpoint. Nothing that lies there is to be imported (the `samdiag` script never does).
    del sys.path[0]

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from samdiag.pipeline import diagnose
    from samdiag.probes import Verify
    from samdiag.spec.stamp import stamp
    from samdiag.types import Diagnosis, Problem

__version__ = "0.1.0"
__all__ = ["Diagnosis", "Problem", "Verify", "__version__", "diagnose", "stamp"]

_HOME = {
    "Diagnosis": "samdiag.types",
    "Problem": "samdiag.types",
    "Verify": "samdiag.probes",
    "diagnose": "samdiag.pipeline",
    "stamp": "samdiag.spec.stamp",
}


def __getattr__(name: str) -> Any:
    import importlib

    if name == "gallery":
        return importlib.import_module("samdiag.gallery")
    if name not in _HOME:
        raise AttributeError(f"module 'samdiag' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
