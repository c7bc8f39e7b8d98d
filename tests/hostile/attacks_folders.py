"""Folders: Hugging Face's, torch.distributed.checkpoint's and PEFT's, with payloads and lies in their files."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import save

from tests.hostile.attack import ALONE, EXAMINED, UNDECIDED, USAGE, Attack, Ground, write
from tests.hostile.attacks_memory import chain, endless
from tests.hostile.containers import injected, state, torch_bytes
from tests.hostile.documents import hugging_face
from tests.hostile.opcodes import alone, before, call, name, stack_name, text
from tests.hostile.payloads import ESSENTIAL, PAYLOADS

METADATA_MODULE = "torch.distributed.checkpoint.metadata"
CONFIG = {"architectures": ["BertModel"], "model_type": "bert"}


# ---------------------------------------------------------------- Hugging Face


def _beside(filename: str, payload: str, *, plain: bool = False) -> Callable[[Ground], Path]:
    """Honest safetensors weights with a pickle of the trainer's beside them."""

    def make(ground: Ground) -> Path:
        expression = PAYLOADS[payload](ground.marker)
        optimizer = {"state": {}, "param_groups": [{"params": [0, 1, 2, 3], "lr": 0.1, "rho": 0.05}]}
        content = alone(expression) if plain else injected(torch_bytes(optimizer), expression)
        return hugging_face(lambda _: CONFIG, **{filename: content})(ground)

    return make


def _weights(filename: str, payload: str) -> Callable[[Ground], Path]:
    """A folder whose weights are the pickle."""

    def make(ground: Ground) -> Path:
        folder = ground.download / "run"
        write(folder / filename, injected(torch_bytes(state()), PAYLOADS[payload](ground.marker)))
        write(folder / "config.json", json.dumps(CONFIG))
        return folder

    return make


def _config(document: Any) -> Callable[[Ground], Path]:
    """Any config.json, as data or as bytes."""

    def make(ground: Ground) -> Path:
        folder = hugging_face(lambda _: CONFIG)(ground)
        content = document if isinstance(document, bytes) else json.dumps(document).encode()
        return write(folder / "config.json", content).parent

    return make


def _linked(filename: str, target: Callable[[Ground], str]) -> Callable[[Ground], Path]:
    def make(ground: Ground) -> Path:
        folder = hugging_face(lambda _: CONFIG)(ground)
        (folder / filename).unlink(missing_ok=True)
        os.symlink(target(ground), folder / filename)
        return folder

    return make


def _piped(filename: str) -> Callable[[Ground], Path]:
    def make(ground: Ground) -> Path:
        folder = hugging_face(lambda _: CONFIG)(ground)
        (folder / filename).unlink(missing_ok=True)
        os.mkfifo(folder / filename)
        return folder

    return make


def _code_in_folder(ground: Ground) -> Path:
    source = f"open({str(ground.marker)!r}, 'w').close()\n"
    files = {"modeling_evil.py": source, "configuration_evil.py": source, "__init__.py": source, "tokenizer.py": source}
    auto = {"AutoConfig": "configuration_evil.Config", "AutoModel": "modeling_evil.Model"}
    document = {"architectures": ["Evil"], "model_type": "evil", "auto_map": auto, "trust_remote_code": True}
    return hugging_face(lambda _: document, **{key: value.encode() for key, value in files.items()})(ground)


def _nested_transformers(ground: Ground) -> Path:
    """Folders within folders, as sentence-transformers has one."""
    folder = ground.download / "run"
    inner = folder
    for _ in range(60):
        write(inner / "modules.json", "[]")
        inner = inner / "0_Transformer"
    inner.mkdir()
    return folder


def _endless_transformers(ground: Ground) -> Path:
    folder = ground.download / "run"
    write(folder / "modules.json", "[]")
    os.symlink(".", folder / "0_Transformer")
    return folder


AUTO = "--model", "{transformers='auto'}"
HUGGING_FACE = [
    *(
        Attack(name=f"pickle: {payload} in {filename}", make=_beside(filename, payload), says="", code=EXAMINED)
        for filename in (
            "optimizer.pt",
            "optimizer.bin",
            "scheduler.pt",
            "training_args.bin",
            "rng_state.pth",
            "scaler.pt",
        )
        for payload in ("os.system", "STACK_GLOBAL", "eval")
    ),
    *(
        Attack(
            name=f"pickle: {payload} as a plain {filename}",
            make=_beside(filename, payload, plain=True),
            says="",
            code=EXAMINED,
        )
        for filename in ("optimizer.pt", "scheduler.pt", "training_args.bin")
        for payload in ("os.system", "eval")
    ),
    *(
        Attack(name=f"pickle: {payload} in a folder's {filename}", make=_weights(filename, payload), says="pickle")
        for filename in ("pytorch_model.bin", "diffusion_pytorch_model.bin")
        for payload in ESSENTIAL
    ),
    Attack(
        name="folder: code beside the weights",
        make=_code_in_folder,
        says="nothing says data",
        code=USAGE,
        command=ALONE,
    ),
    Attack(name="folder: code beside the weights, own problem", make=_code_in_folder, says="auto_map", code=EXAMINED),
    Attack(name="folder: sixty folders deep", make=_nested_transformers, says=""),
    Attack(name="folder: a folder that contains itself", make=_endless_transformers, says="", code=UNDECIDED),
    *(
        Attack(name=f"folder: config.json that is {key}", make=_config(document), says="config.json", code=EXAMINED)
        for key, document in {
            "a hundred thousand levels deep": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
            "a list": [],
            "a text": "x",
            "NaN": b'{"hidden_size": NaN}',
            "the same key twice": b'{"a": 1, "a": 2}',
            "UTF-16": json.dumps(CONFIG).encode("utf-16"),
            "cut short": b'{"architectures": ["Be',
            "twenty megabytes": b'{"a": "' + b"x" * 20_000_000 + b'"}',
            "empty": b"",
            "binary": bytes(range(256)),
        }.items()
    ),
    *(
        Attack(
            name=f"folder: {filename} is a link out",
            make=_linked(filename, lambda g: str(g.secret)),
            says=says,
            code=code,
        )
        for filename, says, code in (
            ("config.json", "link", EXAMINED),
            ("model.safetensors", "link", UNDECIDED),
            ("optimizer.pt", "link", EXAMINED),
            ("trainer_state.json", "link", EXAMINED),
        )
    ),
    *(
        Attack(
            name=f"folder: {filename} is a device", make=_linked(filename, lambda _: "/dev/zero"), says="", code=code
        )
        for filename, code in (("config.json", EXAMINED), ("model.safetensors", UNDECIDED), ("optimizer.pt", EXAMINED))
    ),
    *(
        Attack(name=f"folder: {filename} is a pipe", make=_piped(filename), says="", code=code)
        for filename, code in (("config.json", EXAMINED), ("model.safetensors", None), ("trainer_state.json", EXAMINED))
        if code is not None
    ),
]


# ---------------------------------------------------------------- torch.distributed.checkpoint


def distributed(ground: Ground) -> Path:
    folder = ground.download / "dcp"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.save({"model": state()}, checkpoint_id=str(folder), no_dist=True)
    return folder


def _metadata(change: Callable[[Ground, bytes], bytes]) -> Callable[[Ground], Path]:
    """An honest folder with another pickle for its `.metadata`."""

    def make(ground: Ground) -> Path:
        folder = distributed(ground)
        path = folder / ".metadata"
        path.write_bytes(change(ground, path.read_bytes()))
        return folder

    return make


def _edited(edit: Callable[[Any], Any]) -> Callable[[Ground], Path]:
    """An honest folder whose metadata object is edited and pickled again, as torch's own writer does."""
    return _metadata(lambda _, raw: pickle.dumps(edit(pickle.loads(raw))))


def _stored_elsewhere(filename: str) -> Callable[[Any], Any]:
    def edit(metadata: Any) -> Any:
        for info in metadata.storage_data.values():
            info.relative_path = filename
        return metadata

    return edit


def _with_info(**changes: Any) -> Callable[[Any], Any]:
    def edit(metadata: Any) -> Any:
        for info in metadata.storage_data.values():
            for key, value in changes.items():
                setattr(info, key, value)
        return metadata

    return edit


def _with_entry(change: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def edit(metadata: Any) -> Any:
        key = next(iter(metadata.state_dict_metadata))
        metadata.state_dict_metadata[key] = change(metadata.state_dict_metadata[key])
        return metadata

    return edit


def _sized(size: tuple[int, ...]) -> Callable[[Any], Any]:
    return _with_entry(lambda entry: dataclasses.replace(entry, size=torch.Size(size)))


def _chunked(change: Callable[[Any], list[Any]]) -> Callable[[Any], Any]:
    return _with_entry(lambda entry: dataclasses.replace(entry, chunks=change(entry.chunks[0])))


def _blob(payload: str) -> Callable[[Ground], Path]:
    """The first stream of the data file is a hostile one of the same length or longer, its place corrected."""

    def make(ground: Ground) -> Path:
        folder = distributed(ground)
        metadata = pickle.loads((folder / ".metadata").read_bytes())
        data = next(folder.glob("*.distcp"))
        first = min(metadata.storage_data.values(), key=lambda info: info.offset)
        whole = data.read_bytes()
        stream = injected(whole[first.offset : first.offset + first.length], PAYLOADS[payload](ground.marker))
        end = len(whole)
        data.write_bytes(whole + stream)
        first.offset, first.length = end, len(stream)
        (folder / ".metadata").write_bytes(pickle.dumps(metadata))
        return folder

    return make


def _file_replaced(replace: Callable[[Path, Ground], None]) -> Callable[[Ground], Path]:
    def make(ground: Ground) -> Path:
        folder = distributed(ground)
        data = next(folder.glob("*.distcp"))
        data.unlink()
        replace(data, ground)
        return folder

    return make


DOTTED = {
    "metadata os.system": (METADATA_MODULE, "os.system"),
    "metadata dataclass field": (METADATA_MODULE, "Metadata.__init__.__globals__"),
    "metadata dunder": (METADATA_MODULE, "Metadata.__reduce_ex__"),
    "metadata pickle.loads": (METADATA_MODULE, "pickle.loads"),
    "Size dunder": ("torch", "Size.__class__"),
    "torch.load": ("torch", "load"),
    "torch.hub": ("torch", "hub.load"),
    "OrderedDict globals": ("collections", "OrderedDict.__init__.__globals__"),
    "pathlib os": ("pathlib", "os.system"),
    "_StorageInfo module": ("torch.distributed.checkpoint.filesystem", "os.system"),
    "another module's Metadata": ("evil.torch.distributed.checkpoint.metadata", "Metadata"),
    "a longer module": (METADATA_MODULE + ".evil", "Metadata"),
    "case": ("Torch.distributed.checkpoint.metadata", "Metadata"),
    "spaces": (METADATA_MODULE, "Metadata "),
    "look-alike letters": (METADATA_MODULE, "Metadatа"),
    "null": (METADATA_MODULE, "Metadata\0"),
}
DISTRIBUTED = [
    *(
        Attack(
            name=f"pickle: {payload} in .metadata",
            make=_metadata(lambda ground, raw, payload=payload: before(PAYLOADS[payload](ground.marker), raw)),
            says=".metadata",
        )
        for payload in PAYLOADS
    ),
    *(
        Attack(
            name=f"pickle: {key} by a dotted name in .metadata",
            make=_metadata(
                lambda ground, raw, pair=pair: before(call(stack_name(*pair), text(f"touch {ground.marker}")), raw)
            ),
            says=".metadata",
        )
        for key, pair in DOTTED.items()
    ),
    *(
        Attack(
            name=f"pickle: {key} by an old name in .metadata",
            make=_metadata(
                lambda ground, raw, pair=pair: before(call(name(*pair), text(f"touch {ground.marker}")), raw)
            ),
            says=".metadata",
        )
        for key, pair in DOTTED.items()
    ),
    *(Attack(name=f"pickle: {payload} in a .distcp stream", make=_blob(payload), says="") for payload in ESSENTIAL),
    *(
        Attack(name=f"distributed: {key}", make=_edited(edit), says=says)
        for key, (edit, says) in {
            "data in ../": (_stored_elsewhere("../secret.distcp"), "no bare file name"),
            "data at an absolute path": (_stored_elsewhere("/etc/passwd"), "no bare file name"),
            "data in the metadata": (_stored_elsewhere(".metadata"), ""),
            "data in a name with NUL": (_stored_elsewhere("__0_0.distcp\0"), "no bare file name"),
            "data in nothing": (_stored_elsewhere(""), "no bare file name"),
            "an offset of 2^62": (_with_info(offset=2**62), ""),
            "a negative offset": (_with_info(offset=-1), "no place"),
            "a length of 2^62": (_with_info(length=2**62), ""),
            "a length of zero": (_with_info(length=0), "no place"),
            "an offset of a float": (_with_info(offset=0.0), ""),
            "everything in one place": (_with_info(offset=0), ""),
            "a size of 2^62": (_sized((2**62, 2**62)), ""),
            "a size of ten thousand dimensions": (_sized((1,) * 10_000), ""),
            "no pieces": (_chunked(lambda chunk: []), ""),
            "a piece a million times": (_chunked(lambda chunk: [chunk] * 2 + [dataclasses.replace(chunk)]), "samdiag"),
            "a piece outside": (
                _chunked(lambda c: [dataclasses.replace(c, offsets=torch.Size([5] * len(c.offsets)))]),
                "outside its shape",
            ),
            "an extension": (_with_info(transform_descriptors=["zstd"]), "extension"),
        }.items()
        if key != "a piece a million times"
    ),
    Attack(
        name="distributed: a key that takes for ever to hash",
        make=_metadata(lambda _, raw: alone(b"}" + chain() + b"K\x01s", 2)),
        says=".metadata",
    ),
    Attack(
        name="distributed: a name that takes for ever to write",
        make=_metadata(lambda _, raw: before(b")q\xff" + endless() + text("x") + b"\x93", raw)),
        says=".metadata",
    ),
    Attack(name="distributed: metadata of no bytes", make=_metadata(lambda *_: b""), says="empty"),
    Attack(name="distributed: metadata of text", make=_metadata(lambda *_: b"hello"), says=".metadata"),
    Attack(name="distributed: marks without end", make=_metadata(lambda *_: b"\x80\x02" + b"(" * 10**5), says=""),
    Attack(
        name="distributed: data that is a link out",
        make=_file_replaced(lambda path, ground: os.symlink(ground.secret, path)),
        says="link",
    ),
    Attack(
        name="distributed: data that is a pipe",
        make=_file_replaced(lambda path, _: os.mkfifo(path)),
        says="",
        code=USAGE,
    ),
    Attack(
        name="distributed: data that is a device",
        make=_file_replaced(lambda path, _: os.symlink("/dev/zero", path)),
        says="link",
    ),
    Attack(name="distributed: data that is missing", make=_file_replaced(lambda *_: None), says=""),
]


# ---------------------------------------------------------------- PEFT


def adapter(
    document: Any = None, *, weights: bytes | None = None, file: str = "adapter_model.safetensors"
) -> Callable[[Ground], Path]:
    """An adapter folder with any configuration."""

    def make(ground: Ground) -> Path:
        folder = ground.download / "adapter"
        prefix = "base_model.model.0.lora_"
        tensors = {f"{prefix}A.weight": torch.full((2, 2), 0.3), f"{prefix}B.weight": torch.full((3, 2), 0.2)}
        honest = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["0"], "bias": "none"}
        said = {**honest, **document} if isinstance(document, dict) else document if document is not None else honest
        write(folder / "adapter_config.json", said if isinstance(said, bytes) else json.dumps(said))
        write(folder / file, weights if weights is not None else save(tensors))
        return folder

    return make


def _pickled_adapter(payload: str) -> Callable[[Ground], Path]:
    def make(ground: Ground) -> Path:
        weights = injected(torch_bytes(state()), PAYLOADS[payload](ground.marker))
        return adapter(weights=weights, file="adapter_model.bin")(ground)

    return make


BASE = (
    *ALONE,
    "--config",
    "model = { python = 'problems.py:model' }",
    "--data",
    "problems.py:data",
    "--loss",
    "cross_entropy",
)
ADAPTERS = [
    *(
        Attack(name=f"pickle: {payload} in adapter_model.bin", make=_pickled_adapter(payload), says="pickle")
        for payload in ESSENTIAL
    ),
    *(
        Attack(name=f"adapter: {key}", make=adapter(document), says=says, code=code, command=BASE)
        for key, (document, says, code) in {
            "auto_mapping names code": (
                {"auto_mapping": {"base_model_class": "Evil", "parent_library": "os"}},
                "",
                EXAMINED,
            ),
            "a base on the network": ({"base_model_name_or_path": "https://example.invalid/model"}, "", EXAMINED),
            "a base on disk": ({"base_model_name_or_path": "/etc"}, "", EXAMINED),
            "a pattern that never ends": ({"target_modules": "(a+)+$"}, "refused", USAGE),
            "a pattern of alternatives": ({"target_modules": "(a|a)*b"}, "refused", USAGE),
            "a pattern that is none": ({"target_modules": "(["}, "refused", USAGE),
            "a pattern of a megabyte": ({"target_modules": "a" * 900_000}, "refused", USAGE),
            "rank_pattern that never ends": ({"rank_pattern": {"(x+x+)+y": 4}}, "refused", USAGE),
            "alpha_pattern that never ends": ({"alpha_pattern": {"(.*)*$": 4}}, "refused", USAGE),
            "a rank of a terabyte": ({"r": 10**12}, "far larger than", USAGE),
            "a rank of ten gigabytes": ({"r": 5 * 10**8}, "far larger than", USAGE),
            "a negative rank": ({"r": -1}, "", USAGE),
            "runtime_config": ({"runtime_config": {"ephemeral_gpu_offload": True}}, "", EXAMINED),
            "megatron_config": ({"megatron_config": {"a": 1}, "megatron_core": "os"}, "not supported", USAGE),
            "loftq_config": ({"loftq_config": {"loftq_bits": 4}, "init_lora_weights": "loftq"}, "", USAGE),
            "corda": ({"init_lora_weights": "corda", "corda_config": {"cache_file": "/tmp/evil.pkl"}}, "", USAGE),
            "eva": ({"eva_config": {"rho": 2.0}}, "not supported", USAGE),
            "trainable tokens": ({"trainable_token_indices": [1, 2]}, "not supported", USAGE),
            "a key of code": ({"trust_remote_code": True, "auto_map": {"x": "y"}}, "not supported", USAGE),
            "modules_to_save of everything": ({"modules_to_save": ["0", "2", "__class__"]}, "", USAGE),
            "another kind": ({"peft_type": "PROMPT_TUNING", "tokenizer_name_or_path": "evil/x"}, "", USAGE),
            "a kind of no name": ({"peft_type": ["LORA"]}, "no peft_type", UNDECIDED),
        }.items()
    ),
    *(
        Attack(name=f"adapter: a configuration that is {key}", make=adapter(document), says="")
        for key, document in {
            "deep": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
            "a list": b"[]",
            "cut short": b'{"peft_type": "LO',
            "binary": bytes(range(256)),
        }.items()
    ),
]

ATTACKS = [*HUGGING_FACE, *DISTRIBUTED, *ADAPTERS]
