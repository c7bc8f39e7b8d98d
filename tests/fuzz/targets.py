"""What is fuzzed: every reader of something that came with a checkpoint."""

from __future__ import annotations

import functools
import io
import json
import pickle
import tomllib
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save

from samdiag.errors import SamdiagError
from samdiag.formats import Checkpoint, open_checkpoint
from samdiag.quoting import listed, quoted, shown
from samdiag.spec.artifact import read_artifact, read_configuration
from samdiag.spec.discover import look_up
from samdiag.spec.parsing import flatten, nest, parse, parse_toml
from tests.fuzz.checking import Target, Violation, put, scratch

MAX_PICKLE = 4096  # bytes; what is slow or large in torch's own reader is bounded by the size of its input
JSON_WORDS = (b'":', b'","', b"null", b"true", b"1e999", b"[[", b"{}", b"\\u0000", b"\\ud800", b"-1", b"0.1", b"1" * 20)


def network() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 1))


def state() -> dict[str, torch.Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return network().state_dict()


def stamp() -> dict[str, Any]:
    return {
        "model": {"gallery": "digits-mlp", "args": {"hidden": 4}},
        "data": {"gallery": "digits", "split": "train", "num_samples": 4},
        "loss": {"name": "cross_entropy"},
        "sam": {"rho": 0.1, "variant": "asam", "lr": 0.1, "momentum": 0.9, "nesterov": True},
        "measure": {"seed": 3, "tol": 0.1, "device": "cuda:0"},
        "gate": {"fail_on": ["never"]},
        "weights": "ema",
    }


def use(checkpoint: Checkpoint) -> None:
    """What a command does with an opened checkpoint before any model is built."""
    with _quiet():
        for which in ("raw", "ema"):
            try:
                checkpoint.weights(which)
            except SamdiagError:
                if which == "raw":
                    raise
        checkpoint.velocity()
    for note in checkpoint.notes:
        _one_line(note)
    resolution, _ = look_up(overrides={}, config=None, checkpoint=checkpoint, cwd=_nowhere())
    for warning in (*resolution.warnings, *resolution.unused):
        _one_line(warning)


def _one_line(text: str) -> None:
    if not text.isprintable() or len(text) > 20_000:
        raise Violation(f"a note is not printable: {text[:300]!r}")


@functools.cache
def _nowhere() -> Path:
    """A working folder without a project file."""
    folder = scratch() / "nowhere"
    (folder / ".git").mkdir(parents=True, exist_ok=True)
    return folder


def _quiet() -> warnings.catch_warnings[None]:
    return warnings.catch_warnings(action="ignore")


# ---------------------------------------------------------------- safetensors


def run_safetensors(data: bytes) -> None:
    use(open_checkpoint(put("safetensors/a.safetensors", data)))


def safetensors_seeds() -> list[bytes]:
    tied = torch.zeros(2)
    return [
        save(state(), metadata={"samdiag": json.dumps(stamp())}),
        save({"module.a": torch.zeros(2, 3), "module.b": torch.zeros(0)}, metadata={"format": "pt"}),
        save({"a": tied, "b": tied.clone(), "c": torch.tensor(1, dtype=torch.int64)}),
        save({"w": torch.zeros(3, dtype=torch.bfloat16), "v": torch.zeros(2, dtype=torch.float8_e4m3fn)}),
    ]


def run_header(data: bytes) -> None:
    """The JSON alone, with a length that fits, so that few inputs fail at the first eight bytes."""
    head, _, body = data.partition(b"\0")
    run_safetensors(len(head).to_bytes(8, "little") + head + body)


def header_seeds() -> list[bytes]:
    found = []
    for content in safetensors_seeds():
        length = int.from_bytes(content[:8], "little")
        found.append(content[8 : 8 + length] + b"\0" + content[8 + length :])
    return found


# ---------------------------------------------------------------- specs


def _heard(document: Any) -> None:
    """A document as a stamp, as a sidecar and as a configuration, with and without a user's own spec."""
    if not isinstance(document, Mapping):
        return
    error: SamdiagError | None = None
    for user_spec in (True, False):
        try:
            spec, notes = read_artifact(lambda: document, "stamp", user_spec=user_spec)
            nest(flatten(spec), "stamp")
        except SamdiagError as found:
            if user_spec:
                raise Violation("a stamp stops a user who has a spec") from found
            error = found
        else:
            for note in notes:
                _one_line(note)
    spec, notes = read_configuration(document, "config.json")
    for note in notes:
        _one_line(note)
    if error is not None:
        raise error


def run_stamp(data: bytes) -> None:
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return
    _heard(document)


def stamp_seeds() -> list[bytes]:
    documents: list[dict[str, Any]] = [
        stamp(),
        {"problem": "train:problem", "pythonpath": ["."]},
        {"model": "os:system", "data": {"folder": "/etc"}, "loss": "a.py:loss"},
        {"model": {"timm": "resnet18", "args": {"num_classes": 10}}, "data": {"torchvision": "CIFAR10"}, "loss": "mse"},
        {"model": {"transformers": "auto"}, "data": {"datasets": "text", "tokenizer": "x"}, "loss": "causal_lm"},
        {"download": True, "loss": {"name": "cross_entropy", "args": {"label_smoothing": 0.1}}},
    ]
    return [json.dumps(document).encode() for document in documents]


def run_toml(data: bytes) -> None:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return
    document = parse_toml(text, "samdiag.toml")
    nest(flatten(parse(document, "samdiag.toml")), "samdiag.toml")


def toml_seeds() -> list[bytes]:
    import tomli_w

    written = [tomli_w.dumps(json.loads(seed)).encode() for seed in stamp_seeds()]
    return [*written, b'sam.rho = 0.1\nmeasure.memory = "4GB"\nmodel = "digits-mlp"\n']


def run_sidecar(data: bytes) -> None:
    """A TOML sidecar as an artifact's document."""
    try:
        document = tomllib.loads(data.decode())
    except (ValueError, RecursionError):
        return
    _heard(document)


# ---------------------------------------------------------------- folders


def _folder(name: str, **files: bytes) -> Path:
    for file, content in files.items():
        put(f"{name}/{file.replace('__', '.')}", content)
    return scratch() / name


@functools.cache
def _shards() -> dict[str, bytes]:
    tensors = state()
    first = {key: value for key, value in tensors.items() if key.startswith("0")}
    second = {key: value for key, value in tensors.items() if key not in first}
    return {"model-00001-of-00002.safetensors": save(first), "model-00002-of-00002.safetensors": save(second)}


@functools.cache
def _honest_shards() -> Path:
    for name, content in _shards().items():
        put(f"sharded/{name}", content)
    return scratch() / "sharded"


def run_index(data: bytes) -> None:
    _honest_shards()
    use(open_checkpoint(put("sharded/model.safetensors.index.json", data)))


def index_seeds() -> list[bytes]:
    names = list(_shards())
    weight_map = {key: names[0 if key.startswith("0") else 1] for key in state()}
    honest = {"metadata": {"total_size": 36}, "weight_map": weight_map}
    return [
        json.dumps(document).encode()
        for document in (
            honest,
            {"weight_map": {**weight_map, "0.weight": "../../etc/passwd"}},
            {"weight_map": {"a": "model.safetensors.index.json"}},
        )
    ]


def hugging_face(file: str) -> Callable[[bytes], None]:
    """A reader of a Hugging Face folder whose weights are honest."""

    def run(data: bytes) -> None:
        folder = scratch() / f"hugging-{file}"
        if not folder.is_dir():
            put(f"hugging-{file}/model.safetensors", save(state()))
            if file != "config.json":
                put(f"hugging-{file}/config.json", config_seeds()[0])
        put(f"hugging-{file}/{file}", data)
        use(open_checkpoint(folder))

    return run


def config_seeds() -> list[bytes]:
    documents: list[dict[str, Any]] = [
        {"architectures": ["BertForSequenceClassification"], "model_type": "bert", "hidden_size": 8, "vocab_size": 9},
        {"auto_map": {"AutoModel": "modeling.Evil"}, "architectures": ["Evil"], "model_type": "evil"},
        {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "id2label": {"0": "a"}, "n_layer": 1},
        {"architecture": "resnet18", "num_classes": 10, "pretrained_cfg": {"url": "https://example.invalid"}},
    ]
    return [json.dumps(document).encode() for document in documents]


def trainer_seeds() -> list[bytes]:
    history = [{"epoch": 1.0, "learning_rate": 1e-4, "loss": 2.5, "step": 5}]
    document = {
        "epoch": 1.0,
        "global_step": 5,
        "log_history": history,
        "train_batch_size": 8,
        "best_metric": None,
        "stateful_callbacks": {"TrainerControl": {"args": {"should_save": True}}},
    }
    return [json.dumps(document).encode()]


def adapter(data: bytes) -> None:
    folder = scratch() / "adapter"
    if not folder.is_dir():
        prefix = "base_model.model.0.lora_"
        tensors = {f"{prefix}A.weight": torch.zeros(2, 2), f"{prefix}B.weight": torch.zeros(2, 2)}
        put("adapter/adapter_model.safetensors", save(tensors))
    put("adapter/adapter_config.json", data)
    use(open_checkpoint(folder))


def adapter_seeds() -> list[bytes]:
    documents: list[dict[str, Any]] = [
        {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["0"], "task_type": None},
        {"peft_type": "LORA", "base_model_name_or_path": "https://x", "auto_mapping": {"base_model_class": "os"}},
        {"peft_type": "IA3", "target_modules": "(a+)+$", "runtime_config": {"ephemeral_gpu_offload": True}},
    ]
    return [json.dumps(document).encode() for document in documents]


@functools.cache
def _distributed() -> tuple[Path, bytes]:
    """A folder of torch.distributed.checkpoint, and its honest metadata."""
    import torch.distributed.checkpoint as dcp

    folder = scratch() / "distributed"
    with _quiet():
        dcp.save({"model": state(), "lr": 0.1}, checkpoint_id=str(folder), no_dist=True)
    return folder, (folder / ".metadata").read_bytes()


def run_distributed(data: bytes) -> None:
    folder, _ = _distributed()
    (folder / ".metadata").write_bytes(data)
    use(open_checkpoint(folder))


def distributed_seeds() -> list[bytes]:
    return [_distributed()[1], b"\x80\x04\x95" + bytes(8) + b"\x8c\x02os\x8c\x06system\x93."]


# ---------------------------------------------------------------- torch files


def torch_file(saved: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    torch.save(saved, file, **options)
    return file.getvalue()


def saved_run() -> dict[str, Any]:
    """What a training script saves: weights, optimizer, arguments."""
    module = network()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    module(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    return {"epoch": 3, "model": module.state_dict(), "optimizer": optimizer.state_dict(), "arch": "resnet18"}


def run_zip(data: bytes) -> None:
    """The archive: its directory is checked before torch sees the file."""
    use(open_checkpoint(put("zip/a.pt", data)))


def zip_seeds() -> list[bytes]:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"a": 1}, 2))
        archive.writestr("archive/data/0", bytes(100))
    return [torch_file(state()), torch_file(saved_run()), file.getvalue()]


def run_pickle(data: bytes) -> None:
    """The bytes as the pickle of an otherwise honest archive."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(_honest_archive())) as old, zipfile.ZipFile(file, "w") as archive:
        for entry in old.infolist():
            is_pickle = entry.filename.endswith("data.pkl")
            archive.writestr(entry.filename, data[:MAX_PICKLE] if is_pickle else old.read(entry))
    use(open_checkpoint(put("pickle/a.pt", file.getvalue())))


@functools.cache
def _honest_archive() -> bytes:
    return torch_file(saved_run())


def pickle_seeds() -> list[bytes]:
    with zipfile.ZipFile(io.BytesIO(_honest_archive())) as archive:
        first = archive.read("archive/data.pkl")
    return [first, pickle.dumps({"a": [1, 2.0, None, (True, "x")]}, 2)]


def run_legacy(data: bytes) -> None:
    use(open_checkpoint(put("legacy/a.pt", data[: 4 * MAX_PICKLE])))


def legacy_seeds() -> list[bytes]:
    return [torch_file(saved, _use_new_zipfile_serialization=False) for saved in (state(), saved_run())]


def _planted(value: Any) -> Any:
    """JSON with tensors in it: {"T": [shape]} is one of zeros."""
    if isinstance(value, dict):
        shape = value.get("T")
        if isinstance(shape, list) and len(shape) < 5 and all(type(n) is int and 0 <= n < 5 for n in shape):
            return torch.zeros(shape)
        return {int(key) if key.isdecimal() and len(key) < 9 else key: _planted(item) for key, item in value.items()}
    return [_planted(item) for item in value] if isinstance(value, list) else value


def run_saved(data: bytes) -> None:
    """What was saved, put together from JSON: every reader of weights, optimizer state and arguments."""
    try:
        document = _planted(json.loads(data))
    except (ValueError, RecursionError):
        return
    use(open_checkpoint(put("saved/a.pt", torch_file(document))))


def saved_seeds() -> list[bytes]:
    weights = {"module.w": {"T": [2, 2]}, "module.b": {"T": [2]}}
    group = {"params": [0, 1], "lr": 0.1, "rho": 0.05, "momentum": 0.9, "adaptive": True, "initial_lr": 1.0}
    buffers = {"0": {"momentum_buffer": {"T": [2, 2]}, "old_p": {"T": [2, 2]}}, "1": {"old_p": {"T": [2]}}}
    optimizer = {"state": buffers, "param_groups": [group]}
    documents: list[dict[str, Any]] = [
        {"model": weights, "optimizer": optimizer, "ema": {"shadow": weights}},
        {
            "state_dict": weights,
            "pytorch-lightning_version": "2.6",
            "optimizer_states": [optimizer],
            "hyper_parameters": {"lr": 0.1, "rho": 0.2, "arch": "resnet18", "num_classes": 3},
            "hparams_name": "kwargs",
            "lr_schedulers": [{"base_lrs": [0.1], "last_epoch": 3}],
            "epoch": 1,
        },
        {"arch": "resnet18", "state_dict": weights, "args": {"model": "vit", "lr": 0.1}, "state_dict_ema": weights},
    ]
    return [json.dumps(document).encode() for document in documents]


# ---------------------------------------------------------------- data and text


def run_archive(data: bytes) -> None:
    """A NumPy archive of inputs and targets."""
    from samdiag.spec.data.numpy_archive import read_archive

    read_archive(put("data/train.npz", data))


def run_array(data: bytes) -> None:
    """The bytes as the one array of an archive: its header is Python's literals."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("inputs.npy", data)
    run_archive(file.getvalue())


def array_seeds() -> list[bytes]:
    found = []
    for array in (np.zeros((2, 3), np.float32), np.zeros(3, ">i4"), np.zeros(2, [("a", "f4")]), np.array("x")):
        file = io.BytesIO()
        np.save(file, array)
        found.append(file.getvalue())
    return found


def run_pattern(data: bytes) -> None:
    """An adapter's configuration: what is accepted of its regular expressions matches in no time."""
    import re

    from samdiag.spec.models.lora_config import lora_arguments

    text = data.decode("utf-8", "replace")
    accepted = lora_arguments({"peft_type": "LORA", "target_modules": text})["target_modules"]
    with _quiet():
        re.fullmatch(accepted, "model.layers.10.self_attn.q_proj" + "a" * 60)


def pattern_seeds() -> list[bytes]:
    return [
        rb".*\.(q|k|v)_proj",
        rb"(a+)+$",
        rb"model\.layers\.\d+\.self_attn\.[qk]_proj",
        rb"(?:x{1,9}){2}",
        rb"[^.]*",
    ]


def archive_seeds() -> list[bytes]:
    found = []
    for arrays in (
        {"inputs": np.zeros((4, 2), np.float32), "targets": np.zeros(4, np.int64)},
        {"inputs": np.asfortranarray(np.zeros((2, 3))), "labels": np.zeros((), np.uint8)},
    ):
        file = io.BytesIO()
        np.savez(file, **arrays)  # type: ignore[arg-type]
        found.append(file.getvalue())
    return found


def run_quoting(data: bytes) -> None:
    """Whatever it is, what is shown of it is one printable line."""
    from samdiag.reports.escape import printable

    text = data.decode("utf-8", "surrogateescape")
    for line in (shown(text), quoted(text), quoted(data), quoted({text: [text]}), listed([text] * 9)):
        _one_line(line)
    if any(len(line) > 5000 for line in (shown(text), quoted(text))):
        raise Violation("a flood")
    printable(text).encode()
    if len(printable(text).splitlines()) > 1:
        raise Violation("more than one line")


def quoting_seeds() -> list[bytes]:
    return [b"\x1b]8;;x\x1b\\", "\u202e\u2066\u200b".encode(), b"a\nb::error", b"\xff\xfe", b"[red]x[/]"]


def run_written_toml(data: bytes) -> None:
    """Values from a checkpoint, written as TOML, are those values again when it is read, and nothing else."""
    from samdiag.spec.toml_text import assignment, comment, key

    text = data.decode("utf-8", "replace")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = text
    lines = [comment(text), assignment("value", text), f"{key(text)} = 1"]
    if not isinstance(value, (dict, list)) or len(data) < 2000:
        lines.append(assignment("plain", value) if value is not None else "")
    document = "\n".join(lines)
    if any(not character.isprintable() and character != "\n" for character in document):
        raise Violation("written TOML is not printable")
    if len(document.split("\n")) != len(lines):
        raise Violation("a value has left its line")
    if text in {"value", "plain"}:
        return
    try:
        read = tomllib.loads(document)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise Violation(f"written TOML cannot be read: {error}") from error
    if read["value"] != text or len(read) > 3:
        raise Violation("a value has changed on the way")


def written_seeds() -> list[bytes]:
    return [b'"""\nx = 1\n"""', b'{"a": [1, 2.5, true, "\\u0000"]}', b"# \r\n[gate]", b"1e400", b'{"": {"a b": null}}']


TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Target(name="safetensors", run=run_safetensors, seeds=safetensors_seeds, words=JSON_WORDS),
        Target(name="header", run=run_header, seeds=header_seeds, words=JSON_WORDS),
        Target(name="stamp", run=run_stamp, seeds=stamp_seeds, words=JSON_WORDS),
        Target(name="sidecar", run=run_sidecar, seeds=toml_seeds),
        Target(name="toml", run=run_toml, seeds=toml_seeds),
        Target(name="index", run=run_index, seeds=index_seeds, words=JSON_WORDS),
        Target(name="config", run=hugging_face("config.json"), seeds=config_seeds, words=JSON_WORDS),
        Target(name="trainer-state", run=hugging_face("trainer_state.json"), seeds=trainer_seeds, words=JSON_WORDS),
        Target(name="adapter", run=adapter, seeds=adapter_seeds, words=JSON_WORDS),
        Target(name="distributed", run=run_distributed, seeds=distributed_seeds),
        Target(name="zip", run=run_zip, seeds=zip_seeds),
        Target(name="pickle", run=run_pickle, seeds=pickle_seeds),
        Target(name="legacy", run=run_legacy, seeds=legacy_seeds),
        Target(name="saved", run=run_saved, seeds=saved_seeds, words=JSON_WORDS),
        Target(name="archive", run=run_archive, seeds=archive_seeds),
        Target(name="array", run=run_array, seeds=array_seeds, words=(b"'descr': ", b"'shape': (", b"'<f4'", b"True")),
        Target(
            name="pattern", run=run_pattern, seeds=pattern_seeds, words=(b".*", b"(?:", b"{2,}", b"[^", b"\\d+", b"|")
        ),
        Target(name="quoting", run=run_quoting, seeds=quoting_seeds),
        Target(name="written-toml", run=run_written_toml, seeds=written_seeds),
    )
}
