"""Pickle payloads: each leaves one object on the stack and, where it is run, creates the marker."""

from __future__ import annotations

from pathlib import Path

from tests.hostile.opcodes import (
    Payload,
    alone,
    arguments,
    build,
    call,
    data,
    getattr_of,
    inst,
    integer,
    name,
    newobj,
    newobj_ex,
    obj,
    python,
    stack_name,
    table,
    text,
    touch,
)


def _shell(module: str, attribute: str) -> Payload:
    return lambda marker: call(name(module, attribute), touch(marker))


def _shell_on_stack(module: str, attribute: str) -> Payload:
    return lambda marker: call(stack_name(module, attribute), touch(marker))


def _code(module: str, attribute: str) -> Payload:
    return lambda marker: call(name(module, attribute), python(marker))


def _popen(module: str, attribute: str) -> Payload:
    return lambda marker: call(name(module, attribute), b"](" + text("touch") + text(str(marker)) + b"e")


def _write(module: str, attribute: str) -> Payload:
    return lambda marker: call(name(module, attribute), text(str(marker)), text("w"))


def _imported(marker: Path) -> bytes:
    module = call(name("importlib", "import_module"), text("os"))
    return call(getattr_of(module, "system"), touch(marker))


def _dunder_import(marker: Path) -> bytes:
    return call(getattr_of(call(name("builtins", "__import__"), text("os")), "system"), touch(marker))


def _partial(marker: Path) -> bytes:
    return call(call(name("functools", "partial"), name("os", "system"), touch(marker)))


def _partial_chain(marker: Path) -> bytes:
    inner = call(name("functools", "partial"), name("builtins", "getattr"), name("os", "path"))
    return call(getattr_of(call(inner, text("os")), "system"), touch(marker))


def _method_caller(marker: Path) -> bytes:
    return call(call(name("operator", "methodcaller"), text("system"), touch(marker)), name("posix", "__dict__"))


def _attribute_getter(marker: Path) -> bytes:
    getter = call(name("operator", "attrgetter"), text("path.os.system"))
    return call(call(getter, call(name("builtins", "__import__"), text("os"))), touch(marker))


def _map(marker: Path) -> bytes:
    lazy = call(name("builtins", "map"), name("os", "system"), b"](" + touch(marker) + b"e")
    return call(name("builtins", "list"), lazy)


def _nested(module: str, attribute: str) -> Payload:
    return lambda marker: call(name(module, attribute), data(alone(_shell("os", "system")(marker))))


def _torch_bytes(marker: Path) -> bytes:
    """`torch.storage._load_from_bytes` is torch.load without weights_only, on bytes that the pickle brings along."""
    legacy = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19." + b"\x80\x02M\xe9\x03." + b"\x80\x02}."
    return call(name("torch.storage", "_load_from_bytes"), data(legacy + alone(_shell("os", "system")(marker), 2)))


def _function(marker: Path) -> bytes:
    code = call(name("builtins", "compile"), python(marker), text("x"), text("exec"))
    return call(call(name("types", "FunctionType"), code, b"}"))


def _build_class(marker: Path) -> bytes:
    """BUILD with __setstate__ replaced on a class through its own state."""
    return build(
        build(newobj(name("types", "SimpleNamespace")), table(__setstate__=name("os", "system"))), touch(marker)
    )


def _build_ordered(marker: Path) -> bytes:
    """An OrderedDict whose `items` is a callable of the attacker's choice."""
    return build(call(name("collections", "OrderedDict")), table(items=call(name("os", "system"), touch(marker))))


def _dict_of_class(marker: Path) -> bytes:
    return build(call(name("argparse", "Namespace")), table(a=call(name("posix", "system"), touch(marker))))


def _reduce_twice(marker: Path) -> bytes:
    """The function as the value of a first, harmless-looking call."""
    inner = call(name("builtins", "getattr"), name("os", "path"), text("os"))
    return call(call(name("builtins", "getattr"), inner, text("system")), touch(marker))


def _extension(code: bytes) -> Payload:
    return lambda marker: code + arguments(touch(marker)) + b"R"


def _persistent(marker: Path) -> bytes:
    return b"P" + f"os.system touch {marker}\n".encode()


def _persistent_tuple(marker: Path) -> bytes:
    storage = name("os", "system")
    return arguments(text("storage"), storage, touch(marker), text("cpu"), integer(1)) + b"Q"


def _rebuilt_from_type(marker: Path) -> bytes:
    """An allowed function of torch that calls the function it is given."""
    return call(
        name("torch._tensor", "_rebuild_from_type_v2"),
        name("os", "system"),
        name("torch", "Tensor"),
        arguments(touch(marker)),
        b"}",
    )


def _hub(marker: Path) -> bytes:
    return call(name("torch.hub", "load"), text(str(marker.parent / "hub")), text("model"), text("local"))


def _ordered_globals(marker: Path) -> bytes:
    """From an allowed class to the builtins of its module, by dots alone."""
    path = "OrderedDict.__init__.__globals__"
    return call(getattr_of(stack_name("collections", path), "get"), touch(marker))


# name → payload, and whether the stock unpickler would create the marker on this system
WORKING: dict[str, Payload] = {
    "os.system": _shell("os", "system"),
    "posix.system": _shell("posix", "system"),
    "eval": _code("builtins", "eval"),
    "exec": _code("builtins", "exec"),
    "open": _write("builtins", "open"),
    "io.open": _write("io", "open"),
    "_io.open": _write("_io", "open"),
    "codecs.open": _write("codecs", "open"),
    "eval under its old name": lambda marker: b"\x80\x02" + _code("__builtin__", "eval")(marker),
    "subprocess.Popen": _popen("subprocess", "Popen"),
    "subprocess.run": _popen("subprocess", "run"),
    "subprocess.check_output": _popen("subprocess", "check_output"),
    "subprocess.getoutput": _shell("subprocess", "getoutput"),
    "os.popen": _shell("os", "popen"),
    "pathlib.Path.touch": lambda marker: call(
        stack_name("pathlib", "Path.touch"), call(name("pathlib", "Path"), text(str(marker)))
    ),
    "timeit.timeit": lambda marker: call(name("timeit", "timeit"), python(marker), text("pass")),
    "cProfile.run": _code("cProfile", "run"),
    "pdb.run": lambda marker: call(name("bdb", "Bdb")) + b"0" + _code("builtins", "eval")(marker),
    "importlib": _imported,
    "__import__ and getattr": _dunder_import,
    "functools.partial": _partial,
    "partial chain": _partial_chain,
    "operator.attrgetter": _attribute_getter,
    "map and list": _map,
    "types.FunctionType": _function,
    "getattr twice": _reduce_twice,
    "pickle.loads": _nested("pickle", "loads"),
    "_pickle.loads": _nested("_pickle", "loads"),
    "torch _load_from_bytes": _torch_bytes,
    "STACK_GLOBAL": _shell_on_stack("os", "system"),
    "dotted torch.serialization.os": _shell_on_stack("torch", "serialization.os.system"),
    "dotted metadata module": _shell_on_stack("torch.distributed.checkpoint.metadata", "os.system"),
    "dotted zipfile": _shell_on_stack("zipfile", "shutil.os.system"),
    "INST": lambda marker: inst("os", "system", touch(marker)),
    "OBJ": lambda marker: obj(name("subprocess", "Popen"), b"](" + text("touch") + text(str(marker)) + b"e"),
    "NEWOBJ": lambda marker: newobj(name("_io", "FileIO")) + b"0" + _shell("os", "system")(marker),
    "NEWOBJ_EX": lambda marker: newobj_ex(name("builtins", "object")) + b"0" + _shell("os", "system")(marker),
    "BUILD of a namespace": _dict_of_class,
    "BUILD of an OrderedDict": _build_ordered,
    "_rebuild_from_type_v2": _rebuilt_from_type,
}
NOT_HERE: dict[str, Payload] = {
    "nt.system": _shell("nt", "system"),
    "torch.hub.load": _hub,
    "torch.jit.load": lambda marker: call(name("torch.jit", "load"), text(str(marker))),
    "numpy runstring": lambda marker: call(
        name("numpy.testing._private.utils", "runstring"), python(marker), table(x=integer(1))
    ),
    "BUILD with __setstate__": _build_class,
    "methodcaller": _method_caller,
    "EXT1": _extension(b"\x82\x01"),
    "EXT2": _extension(b"\x83\x01\x01"),
    "EXT4": _extension(b"\x84\x01\x01\x01\x01"),
    "PERSID": _persistent,
    "BINPERSID": _persistent_tuple,
    "dotted OrderedDict globals": _ordered_globals,
    "dotted OrderedDict builtins": lambda marker: call(
        stack_name("collections", "OrderedDict.__reduce__.__globals__.eval"), python(marker)
    ),
    "dotted dunder": _shell_on_stack("torch._utils", "_rebuild_tensor_v2.__globals__"),
    "surrogates": _shell_on_stack("os\udcff", "system"),
    "empty names": _shell_on_stack("", ""),
    "relative module": _shell_on_stack("..os", "system"),
    "module with a path": _shell_on_stack("/tmp/evil", "system"),
    "an allowed module's other name": _shell_on_stack("collections", "abc.sys.modules"),
    "ctypes": lambda marker: call(name("ctypes", "CDLL"), text(str(marker))),
    "webbrowser": lambda marker: call(name("webbrowser", "open"), text("https://example.invalid/")),
    "urllib": lambda marker: call(name("urllib.request", "urlopen"), text("https://example.invalid/")),
    "socket": lambda marker: call(name("socket", "create_connection"), arguments(text("example.invalid"), integer(80))),
    "hugging face download": lambda marker: call(
        name("huggingface_hub", "hf_hub_download"), text("a/b"), text("config.json")
    ),
}
PAYLOADS: dict[str, Payload] = {**WORKING, **NOT_HERE}
ESSENTIAL = (
    "os.system",
    "eval",
    "subprocess.Popen",
    "STACK_GLOBAL",
    "dotted metadata module",
    "INST",
    "OBJ",
    "BINPERSID",
)
