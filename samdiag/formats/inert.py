"""Stand-ins for harmless classes that training scripts save next to the weights (arguments, paths, NumPy numbers).

torch's weights-only reader refuses a whole file for one such name. Each name here is answered by a function or class of
this module that only keeps or drops data: the real class is never reached, not even for `argparse.Namespace`.
"""

from __future__ import annotations

import struct
from typing import Any

NUMPY_CODES = {"f8": "<d", "f4": "<f", "f2": "<e", "i8": "<q", "i4": "<i", "i2": "<h", "i1": "<b", "b1": "<?"}


class Inert:
    """An object that was saved and is of no interest: everything said about it is dropped."""

    def __new__(cls, *_: Any) -> Inert:
        return object.__new__(cls)

    def __init__(self, *_: Any) -> None:
        return None

    def __setstate__(self, _: Any) -> None:
        return None


class NumpyType(Inert):
    """The code of a NumPy dtype, e.g. "f8"."""

    code: str = ""

    def __new__(cls, code: Any = "", *_: Any) -> NumpyType:
        made = object.__new__(cls)
        made.code = code if isinstance(code, str) else ""
        return made


def numpy_scalar(dtype: Any = None, data: Any = b"", *_: Any) -> float | int | Inert:
    """The number that a saved NumPy scalar is; an Inert for any other kind."""
    layout = NUMPY_CODES.get(dtype.code) if isinstance(dtype, NumpyType) else None
    if layout is None or not isinstance(data, bytes) or len(data) != struct.calcsize(layout):
        return Inert()
    number: float | int = struct.unpack(layout, data)[0]
    return number


def plain_dict(*_: Any) -> dict[Any, Any]:
    """An empty dictionary: what a saved defaultdict is filled into."""
    return {}


STAND_INS: dict[str, Any] = {
    **dict.fromkeys(("argparse.Namespace", "types.SimpleNamespace"), Inert),
    **dict.fromkeys((f"pathlib.{name}" for name in ("Path", "PosixPath", "WindowsPath", "PurePosixPath")), Inert),
    **dict.fromkeys(("pathlib._local.PosixPath", "pathlib._local.WindowsPath"), Inert),
    **dict.fromkeys(
        ("datetime.datetime", "datetime.date", "datetime.timedelta", "uuid.UUID", "decimal.Decimal"), Inert
    ),
    **dict.fromkeys(("builtins.int", "builtins.float", "builtins.list", "builtins.dict", "builtins.str"), Inert),
    **dict.fromkeys(("__builtin__.int", "__builtin__.float", "__builtin__.list", "__builtin__.dict"), Inert),
    "collections.defaultdict": plain_dict,
    **dict.fromkeys(("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar"), numpy_scalar),
    **dict.fromkeys(("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct"), Inert),
    "numpy.ndarray": Inert,
    "numpy.dtype": NumpyType,
}


def safe_globals() -> list[tuple[Any, str]]:
    """The stand-ins as `torch.serialization.safe_globals` takes them: what answers, and to which name."""
    return [(stand_in, name) for name, stand_in in STAND_INS.items()]
