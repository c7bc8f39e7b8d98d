"""Stand-ins for harmless classes that training scripts save next to the weights (arguments, paths, NumPy numbers).

torch's weights-only reader refuses a whole file for one such name. Each name here is answered by a function or class of
this module that only keeps or drops data: the real class is never reached, not even for `argparse.Namespace`.
"""

from __future__ import annotations

import collections
import struct
from typing import Any

NUMPY_CODES = {"f8": "<d", "f4": "<f", "f2": "<e", "i8": "<q", "i4": "<i", "i2": "<h", "i1": "<b", "b1": "<?"}


class Inert:
    """An object that was saved and is of no interest: everything said about it is dropped."""

    __slots__ = ()

    def __new__(cls, *_: Any) -> Inert:
        return object.__new__(cls)

    def __init__(self, *_: Any) -> None:
        return None

    def __setstate__(self, _: Any) -> None:
        return None


class Record(Inert):
    """An object whose attributes are kept as a dictionary (`fields`), and never as attributes of its own."""

    __slots__ = ("fields",)

    fields: dict[Any, Any]

    def __new__(cls, *_: Any) -> Record:
        made = object.__new__(cls)
        made.fields = {}
        return made

    def __setstate__(self, state: Any) -> None:
        parts = state if isinstance(state, tuple) else (state,)  # (attributes, slots), or attributes alone
        for part in parts:
            if type(part) is dict:
                self.fields.update(part)


class NumpyType(Inert):
    """The code of a NumPy dtype, e.g. "f8"."""

    __slots__ = ("code",)

    code: str

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


class KeptDict:
    """A saved subclass of dict; what is made is an OrderedDict, the only kind that may be filled and have a state."""

    def __new__(cls, *_: Any) -> collections.OrderedDict[Any, Any]:  # type: ignore[misc]
        return collections.OrderedDict()


LIGHTNING = ("lightning.pytorch.utilities.parsing", "pytorch_lightning.utilities.parsing")
LIGHTNING_FABRIC = ("lightning.fabric.utilities.data", "lightning_fabric.utilities.data")
OMEGACONF_NODES = ("Any", "Boolean", "Bytes", "Enum", "Float", "Integer", "InterpolationResult", "Path", "String")
RECORDS = (
    *("argparse.Namespace", "types.SimpleNamespace"),
    *("omegaconf.dictconfig.DictConfig", "omegaconf.listconfig.ListConfig"),
    *(f"omegaconf.nodes.{kind}Node" for kind in (*OMEGACONF_NODES, "Union", "Value")),
)
DROPPED = (
    *(f"pathlib.{name}" for name in ("Path", "PosixPath", "WindowsPath", "PurePosixPath")),
    *("pathlib._local.PosixPath", "pathlib._local.WindowsPath"),
    *("datetime.datetime", "datetime.date", "datetime.timedelta", "uuid.UUID", "decimal.Decimal"),
    *(f"builtins.{name}" for name in ("int", "float", "list", "dict", "str", "bool", "tuple", "bytes")),
    *(f"__builtin__.{name}" for name in ("int", "float", "list", "dict")),
    *("omegaconf.base.ContainerMetadata", "omegaconf.base.Metadata", "typing.Any"),
    *("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct", "numpy.ndarray"),
)
STAND_INS: dict[str, Any] = {
    **dict.fromkeys(DROPPED, Inert),
    **dict.fromkeys(RECORDS, Record),
    **dict.fromkeys((f"{module}.AttributeDict" for module in (*LIGHTNING, *LIGHTNING_FABRIC)), KeptDict),
    "collections.defaultdict": plain_dict,
    **dict.fromkeys(("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar"), numpy_scalar),
    "numpy.dtype": NumpyType,
}


def safe_globals() -> list[tuple[Any, str]]:
    """The stand-ins as `torch.serialization.safe_globals` takes them: what answers, and to which name."""
    return [(stand_in, name) for name, stand_in in STAND_INS.items()]
