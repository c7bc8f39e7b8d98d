"""The real torchvision beside a CPU build of torch: its compiled operators do not load there, and none is needed here.

Its Python part (models, data sets, transforms) works once the operators are at least declared. Only tests do this; the
product says that torchvision does not import. `python -m tests.torchvision_ops inspect …` is `samdiag inspect …` with
them.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

DECLARED = re.compile(r'register_meta\("(\w+)"|register_fake\("torchvision::(\w+)"')
_kept: list[Any] = []  # a torch.library.Library lives as long as something refers to it


def declare() -> None:
    """Makes `import torchvision` work; does nothing where it does already."""
    found = importlib.util.find_spec("torchvision")
    if "torchvision" in sys.modules or found is None or found.origin is None or _kept:
        return
    import torch

    text = (Path(found.origin).parent / "_meta_registrations.py").read_text(encoding="utf-8")
    names = {first or second for first, second in DECLARED.findall(text)}
    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError):
        for name in [module for module in sys.modules if module.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in sorted(names):
            if not hasattr(torch.ops.torchvision, name):
                library.define(f"{name}(Tensor x) -> Tensor")
        _kept.append(library)


if __name__ == "__main__":
    declare()
    from samdiag.cli.app import main

    main()
