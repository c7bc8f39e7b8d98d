"""Data files from elsewhere, which the user names: arrays, images, shards, tables and tokenizers."""

from __future__ import annotations

import io
import json
import os
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.hostile.attack import CKPT, EXAMINED, UNDECIDED, USAGE, Attack, Ground, write
from tests.hostile.containers import array_header, object_array, state, torch_bytes
from tests.hostile.opcodes import alone
from tests.hostile.payloads import PAYLOADS

OWN_MODEL = ("--model", "problems.py:model", "--loss", "cross_entropy")


def command(spec: str) -> tuple[str, ...]:
    return ("inspect", CKPT, "--rho", "0.1", *OWN_MODEL, "--config", f"data = {spec}")


def checkpoint(ground: Ground) -> Path:
    return write(ground.work / "runs" / "model.pt", torch_bytes(state()))


def with_file(name: str, content: Callable[[Ground], bytes]) -> Callable[[Ground], Path]:
    """An honest checkpoint, and a hostile file among the data."""

    def make(ground: Ground) -> Path:
        write(ground.download / name, content(ground))
        return checkpoint(ground)

    return make


# ---------------------------------------------------------------- arrays


def archive(compression: int = zipfile.ZIP_STORED, **members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as opened:
        for name, content in members.items():
            opened.writestr(f"{name}.npy", content)
    return file.getvalue()


def npy(array: np.ndarray) -> bytes:  # type: ignore[type-arg]
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


TARGETS = npy(np.zeros(4, np.int64))
INPUTS = npy(np.zeros((4, 2), np.float32))
ARRAYS: dict[str, Callable[[Ground], bytes]] = {
    **{
        f"an object array with {payload}": lambda ground, payload=payload: archive(
            inputs=object_array(PAYLOADS[payload](ground.marker)), targets=TARGETS
        )
        for payload in ("os.system", "eval", "STACK_GLOBAL", "subprocess.Popen", "pickle.loads")
    },
    "object targets": lambda ground: archive(inputs=INPUTS, targets=object_array(PAYLOADS["os.system"](ground.marker))),
    "a record with an object": lambda ground: archive(
        inputs=array_header("[('a', '|O')]", (1,)) + alone(PAYLOADS["eval"](ground.marker)), targets=TARGETS
    ),
    "a pickle called an array": lambda ground: archive(inputs=alone(PAYLOADS["os.system"](ground.marker))),
    "a header that is code": lambda ground: archive(
        inputs=b"\x93NUMPY\x01\x00" + struct.pack("<H", 118) + b"__import__('os').system('id')".ljust(117) + b"\n"
    ),
    "a header ten thousand levels deep": lambda _: archive(
        inputs=b"\x93NUMPY\x02\x00" + struct.pack("<I", 20_000) + b"(" * 10_000 + b")" * 10_000
    ),
    "a header of four gigabytes": lambda _: archive(inputs=b"\x93NUMPY\x02\x00\xff\xff\xff\xff{}"),
    "a shape of 2^62": lambda _: archive(inputs=array_header("<f4", (2**62, 2**62)), targets=TARGETS),
    "a negative shape": lambda _: archive(inputs=array_header("<f4", (-4, -2)) + bytes(32), targets=TARGETS),
    "a shape larger than its bytes": lambda _: archive(inputs=array_header("<f4", (10**10,)), targets=TARGETS),
    "texts": lambda _: archive(inputs=npy(np.array(["a"] * 4)), targets=TARGETS),
    "dates": lambda _: archive(inputs=npy(np.zeros(4, "M8[s]")), targets=TARGETS),
    "ten gigabytes of zeros": lambda _: archive(
        zipfile.ZIP_DEFLATED, inputs=array_header("<f4", (4, 10**8)) + bytes(10**7), targets=TARGETS
    ),
    "no arrays": lambda _: archive(),
    "names with ..": lambda _: archive(**{"../../inputs": INPUTS, "/targets": TARGETS}),
    "different lengths": lambda _: archive(inputs=INPUTS, targets=npy(np.zeros(5, np.int64))),
}


# ---------------------------------------------------------------- images


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, rows: bytes, *before: bytes) -> bytes:
    """A grey PNG by hand."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(before) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


IMAGES: dict[str, Callable[[Ground], bytes]] = {
    "a PNG of 10^10 pixels": lambda _: png(100_000, 100_000, bytes(10_000_000)),
    "a PNG of 2^62 pixels": lambda _: png(2**31 - 1, 2**31 - 1, b""),
    "a PNG that inflates without end": lambda _: png(2, 2, bytes(300_000_000)),
    "a PNG with a text of a gigabyte": lambda _: png(
        2, 2, bytes(6), chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(200_000_000), 9))
    ),
    "a PNG of no pixels": lambda _: png(0, 0, b""),
    "a PNG cut short": lambda _: png(64, 64, bytes(64 * 65))[:60],
    "PostScript": lambda ground: (
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(" + str(ground.marker).encode() + b") (w) file\n"
    ),
    "SVG": lambda _: b'<svg xmlns="http://www.w3.org/2000/svg"><image href="https://example.invalid/x"/></svg>',
    "a pickle": lambda ground: alone(PAYLOADS["os.system"](ground.marker)),
    "MPO and friends": lambda _: b"\x00\x00\x00\x0cjP  \r\n\x87\n" + bytes(100),
}


def _image(content: Callable[[Ground], bytes]) -> Callable[[Ground], Path]:
    def make(ground: Ground) -> Path:
        write(ground.download / "images" / "a" / "x.png", content(ground))
        write(ground.download / "images" / "b" / "y.png", png(2, 2, bytes(6)))
        return checkpoint(ground)

    return make


# ---------------------------------------------------------------- shards


def tar(*members: tuple[str, bytes, str]) -> bytes:
    """A tar file; a member's third part is what it links to, "" for a file."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as opened:
        for name, content, link in members:
            info = tarfile.TarInfo(name)
            if link:
                info.type, info.linkname = tarfile.SYMTYPE, link
            else:
                info.size = len(content)
            opened.addfile(info, io.BytesIO(content))
    return file.getvalue()


PIXELS = png(2, 2, bytes(6))
SHARDS: dict[str, tuple[Callable[[Ground], bytes], str]] = {
    "a pickled class": (
        lambda ground: tar(("0.png", PIXELS, ""), ("0.pyd", alone(PAYLOADS["os.system"](ground.marker)), "")),
        "{ webdataset = 'download/x.tar', args = { target = 'pyd' } }",
    ),
    "a pickled image": (
        lambda ground: tar(("0.pth", alone(PAYLOADS["os.system"](ground.marker)), ""), ("0.cls", b"0", "")),
        "{ webdataset = 'download/x.tar', args = { image = 'pth' } }",
    ),
    "a link out": (lambda ground: tar(("0.png", b"", str(ground.secret)), ("0.cls", b"0", "")), ""),
    "a link to a device": (lambda _: tar(("0.png", b"", "/dev/zero"), ("0.cls", b"0", "")), ""),
    "a class that is code": (
        lambda _: tar(("0.png", PIXELS, ""), ("0.cls", b"__import__('os').system('id')", "")),
        "",
    ),
    "a class of a megabyte": (lambda _: tar(("0.png", PIXELS, ""), ("0.cls", b"9" * 1_000_000, "")), ""),
    "JSON a hundred thousand levels deep": (
        lambda _: tar(("0.png", PIXELS, ""), ("0.json", b"[" * 100_000, "")),
        "{ webdataset = 'download/x.tar', args = { target = 'json.label' } }",
    ),
    "an image bomb": (lambda _: tar(("0.png", png(100_000, 100_000, b""), ""), ("0.cls", b"0", "")), ""),
    "cut short": (lambda _: tar(("0.png", PIXELS, ""), ("0.cls", b"0", ""))[:700], ""),
    "a header that claims an exabyte": (
        lambda _: tar(("0.png", PIXELS, "")).replace(b"%011o" % len(PIXELS), b"77777777777", 1),
        "",
    ),
    "gzip without end": (lambda _: __import__("gzip").compress(bytes(300_000_000), 9), ""),
    "escape sequences in a name": (lambda _: tar(("\x1b[2J\x1b]0;x\x07.png", b"x", "")), ""),
}
PLACES = {
    "a pipe": "pipe:touch marker",
    "an address": "https://example.invalid/x.tar",
    "a bucket": "s3://bucket/x.tar",
    "a chain": "zip://a::https://example.invalid/x.zip",
    "a device": "/dev/zero",
    "a million shards": "{000000..999999}.tar",
}


# ---------------------------------------------------------------- tables and tokenizers


def _saved_table(change: Callable[[Path, Ground], None]) -> Callable[[Ground], Path]:
    """A folder of datasets' save_to_disk, changed."""

    def make(ground: Ground) -> Path:
        import datasets

        folder = ground.download / "table"
        table = datasets.Dataset.from_dict({"x": [[0.0, 1.0]] * 4, "y": [0, 1, 0, 1]})
        table.save_to_disk(str(folder))
        change(folder, ground)
        return checkpoint(ground)

    return make


def _edited(file: str, edit: Callable[[dict[str, object]], object]) -> Callable[[Path, Ground], None]:
    def change(folder: Path, _: Ground) -> None:
        path = folder / file
        path.write_text(json.dumps(edit(json.loads(path.read_text()))))

    return change


def _data_files(name: str) -> Callable[[dict[str, object]], object]:
    return lambda state: {**state, "_data_files": [{"filename": name}]}


def _pickled_type(folder: Path, ground: Ground) -> None:
    """An Arrow file whose column is of a type that is a pickle (CVE-2023-47248)."""
    import pyarrow

    field = pyarrow.field(
        "x",
        pyarrow.list_(pyarrow.float64()),
        metadata={
            b"ARROW:extension:name": b"arrow.py_extension_type",
            b"ARROW:extension:metadata": alone(PAYLOADS["os.system"](ground.marker)),
        },
    )
    schema = pyarrow.schema([field, pyarrow.field("y", pyarrow.int64())])
    table = pyarrow.table([[[0.0, 1.0]] * 4, [0, 1, 0, 1]], schema=schema)
    target = next(folder.glob("*.arrow"))
    with pyarrow.OSFile(str(target), "wb") as sink, pyarrow.ipc.new_stream(sink, schema) as writer:
        writer.write_table(table)


TABLE = "{ datasets = 'download/table', args = { inputs = ['x'], targets = 'y' } }"
TABLES: dict[str, Callable[[Path, Ground], None]] = {
    "its data in ../": _edited("state.json", _data_files("../../../outside/secret.safetensors")),
    "its data at an absolute path": _edited("state.json", _data_files("/etc/passwd")),
    "a format that is code": _edited("state.json", lambda s: {**s, "_format_type": "os.system"}),
    "a feature of no such kind": _edited(
        "dataset_info.json", lambda s: {**s, "features": {"x": {"_type": "os.system"}}}
    ),
    "a feature of a dunder": _edited("dataset_info.json", lambda s: {**s, "features": {"x": {"_type": "__class__"}}}),
    "a state of a list": _edited("state.json", lambda _: []),
    "a pickled state": lambda folder, ground: (
        folder.joinpath("state.json").write_bytes(alone(PAYLOADS["os.system"](ground.marker))) and None
    ),
}


def _script(ground: Ground) -> Path:
    """A folder with a loading script of the library's old kind."""
    source = f"open({str(ground.marker)!r}, 'w').close()\n"
    write(ground.download / "table" / "table.py", source)
    write(ground.download / "table" / "dataset_infos.json", "{}")
    return checkpoint(ground)


def _tokenizer(**files: object) -> Callable[[Ground], Path]:
    def make(ground: Ground) -> Path:
        folder = ground.work / "runs"
        source = f"open({str(ground.marker)!r}, 'w').close()\n"
        write(folder / "evil.py", source)
        for name, content in files.items():
            said = content(ground) if callable(content) else json.dumps(content).encode()
            write(folder / name, said)
        write(ground.download / "text.txt", "hello world\n" * 8)
        return checkpoint(ground)

    return make


TEXT = (
    "{ datasets = 'text', data_files = 'download/text.txt', tokenizer = 'checkpoint', args = { task = 'causal_lm' } }"
)
CODE_MAP = {"auto_map": {"AutoTokenizer": ["evil.Tokenizer", None]}, "tokenizer_class": "Tokenizer"}
TOKENIZERS: dict[str, Callable[[Ground], Path]] = {
    "code by auto_map": _tokenizer(**{"tokenizer_config.json": CODE_MAP}),
    "code by auto_map of the model": _tokenizer(
        **{"config.json": {"model_type": "bert", "auto_map": {"AutoTokenizer": "evil.Tokenizer"}}}
    ),
    "code by a repository": _tokenizer(
        **{"tokenizer_config.json": {"auto_map": {"AutoTokenizer": ["evil/repo--evil.Tokenizer", None]}}}
    ),
    "a class that is a function": _tokenizer(**{"tokenizer_config.json": {"tokenizer_class": "os.system"}}),
    "a class with a pickled vocabulary": _tokenizer(
        **{
            "tokenizer_config.json": {"tokenizer_class": "TransfoXLTokenizer"},
            "vocab.pkl": lambda ground: alone(PAYLOADS["os.system"](ground.marker)),
            "vocab.bin": lambda ground: alone(PAYLOADS["os.system"](ground.marker)),
        }
    ),
    "a name on the hub": _tokenizer(
        **{"tokenizer_config.json": {"name_or_path": "evil/repo", "tokenizer_class": "PreTrainedTokenizerFast"}}
    ),
    "JSON a hundred thousand levels deep": _tokenizer(**{"tokenizer_config.json": lambda _: b'{"a":' * 100_000}),
    "a broken tokenizer.json": _tokenizer(
        **{"tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast"}, "tokenizer.json": {"version": "9"}}
    ),
    "a chat template": _tokenizer(
        **{
            "tokenizer_config.json": {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "chat_template": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
            }
        }
    ),
    "a link out": lambda ground: (
        (ground.work / "runs").mkdir(),
        os.symlink(ground.secret, ground.work / "runs" / "tokenizer.json"),
        _tokenizer()(ground),
    )[2],
}

TENSORS = command("{ tensors = 'download/train.npz' }")
FOLDER = command("{ folder = 'download/images', args = { size = 2 } }")
ATTACKS = [
    *(
        Attack(
            name=f"data: {key}",
            make=with_file("train.npz", content),
            says="",
            command=TENSORS,
            code=USAGE if key in {"no arrays", "different lengths", "names with .."} else UNDECIDED,
        )
        for key, content in ARRAYS.items()
    ),
    *(
        Attack(name=f"data: {key} as an image", make=_image(content), says="cannot be read", command=FOLDER)
        for key, content in IMAGES.items()
        if key not in {"a PNG that inflates without end", "a PNG with a text of a gigabyte"}
    ),
    *(
        Attack(
            name=f"data: {key} in a shard",
            make=with_file("x.tar", content),
            says="",
            command=command(spec or "{ webdataset = 'download/x.tar' }"),
            code=None,
        )
        for key, (content, spec) in SHARDS.items()
    ),
    *(
        Attack(
            name=f"data: a shard that is {key}",
            make=checkpoint,
            says="",
            command=command(f"{{ webdataset = '{place}' }}"),
            code=None,
        )
        for key, place in PLACES.items()
    ),
    *(
        Attack(name=f"data: a table with {key}", make=_saved_table(change), says="", command=command(TABLE), code=None)
        for key, change in TABLES.items()
    ),
    Attack(  # the column is read as the numbers that it holds, the type that it claims is not asked for
        name="data: a table with a pickled column type",
        make=_saved_table(_pickled_type),
        says="",
        command=command(TABLE),
        code=EXAMINED,
    ),
    Attack(name="data: a table with a loading script", make=_script, says="", command=command(TABLE), code=USAGE),
    *(
        Attack(name=f"data: a tokenizer with {key}", make=make, says="", command=command(TEXT), code=None)
        for key, make in TOKENIZERS.items()
    ),
]
