"""Hugging Face datasets on disk, texts as tokens, and tokenizers that are data: with the real libraries."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from samdiag.errors import UsageError
from samdiag.formats import Checkpoint
from samdiag.spec.batches import cut
from samdiag.spec.catalog import build_data
from samdiag.spec.requests import Data, DataRequest
from samdiag.types import Trust
from tests.spec.catalog_truth import no_network  # noqa: F401  (a fixture)
from tests.torchvision_ops import declare

Ask = Callable[..., Data]
WORDS = [*("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "sat", "on", "mat", "and", "dog", "ran")]
WORDS += ["far", "away", "home"]
TEXTS = ["the cat sat on the mat", "the dog ran", "", "far away the cat and the dog sat on the mat", "home"]
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # the library leaves its cache files to the collector
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module", autouse=True)
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The libraries, their cache in a folder of its own."""
    declare()
    from samdiag.spec.libraries import library

    config = library("datasets", key="test", extra="datasets").config
    before = config.HF_DATASETS_CACHE
    config.HF_DATASETS_CACHE = tmp_path_factory.mktemp("cache")
    yield
    config.HF_DATASETS_CACHE = before


@pytest.fixture
def ask(folder: Path) -> Ask:
    """Data built as a user's samdiag.toml in the working folder would ask for it."""

    def build(name: str, args: dict[str, Any] | None = None, trust: Trust = Trust.PROJECT, **paths: Any) -> Data:
        checkpoint = Checkpoint(path=folder / "model" / "a.safetensors", format="x", fingerprint="", load=lambda _: {})
        split, seed = paths.pop("split", None), paths.pop("seed", 0)
        said = {"trust": trust, "source": "samdiag.toml", "folder": folder, "paths": paths, "split": split}
        return build_data(
            DataRequest(library="datasets", name=name, args=args or {}, checkpoint=checkpoint, seed=seed, **said)
        )

    return build


@pytest.fixture
def tokenizer(folder: Path) -> Any:
    """A word tokenizer, its files beside the checkpoint."""
    import tokenizers
    import transformers

    model = tokenizers.models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]")
    core = tokenizers.Tokenizer(model)
    core.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    core.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
    found = transformers.PreTrainedTokenizerFast(
        tokenizer_object=core, **{f"{name}_token": word for name, word in names.items()}
    )
    found.save_pretrained(folder / "model")
    return found


@pytest.fixture
def lines(folder: Path) -> str:
    (folder / "train.txt").write_text("\n".join(TEXTS) + "\n")
    return "train.txt"


def batches(data: Data) -> list[dict[str, Tensor]]:
    return list(cut(data.returned, num_samples=None, batch_size=2, collate=data.collate).items)


def test_texts_for_the_next_token(lines: str, tokenizer: Any, ask: Ask) -> None:
    data = ask("text", {"task": "causal_lm", "max_length": 8}, data_files=lines, tokenizer="checkpoint")
    assert len(data.returned) == 4  # the empty line is none
    samples = [data.returned[index] for index in range(4)]
    wanted = [tokenizer(text, truncation=True, max_length=8)["input_ids"] for text in TEXTS if text]
    assert [sample["input_ids"] for sample in samples] == [sample["labels"] for sample in samples] == wanted
    batch = data.collate(samples[:2])
    assert batch["input_ids"].tolist()[1] == [*wanted[1], 0, 0, 0]
    assert batch["attention_mask"].tolist()[1] == [1, 1, 1, 1, 1, 0, 0, 0]
    assert batch["labels"].tolist()[1] == [*wanted[1], -100, -100, -100]
    fixed = ask(
        "text", {"task": "causal_lm", "max_length": 20, "padding": "max_length"}, data_files=[lines], tokenizer="model"
    )
    assert {batch["labels"].shape[1] for batch in batches(fixed)} == {20}
    assert (
        "texts are cut after 128 tokens"
        in ask("text", {"task": "causal_lm"}, data_files=lines, tokenizer="model").notes[0]
    )


def test_packed_texts_leave_no_padding(lines: str, tokenizer: Any, ask: Ask) -> None:
    data = ask("text", {"task": "causal_lm", "max_length": 5, "pack": True}, data_files=lines, tokenizer="model")
    run = [WORDS.index(word) for text in TEXTS for word in text.split()]
    blocks = [data.returned[index]["input_ids"] for index in range(len(data.returned))]
    assert blocks == [run[start : start + 5] for start in range(0, len(run) - 4, 5)]


def test_masks_are_drawn_once_by_the_seed(lines: str, tokenizer: Any, ask: Ask) -> None:
    def masked(seed: int) -> list[dict[str, list[int]]]:
        data = ask(
            "text", {"task": "masked_lm", "mask_probability": 0.5}, data_files=lines, tokenizer="model", seed=seed
        )
        return [data.returned[index] for index in [3, 0, 1, 2]]

    assert masked(3) == masked(3)
    assert masked(3) != masked(4)
    for sample, text in zip(masked(3), [TEXTS[4], TEXTS[0], TEXTS[1], TEXTS[3]], strict=True):
        original = tokenizer(text)["input_ids"]
        chosen = [place for place, label in enumerate(sample["labels"]) if label != -100]
        assert chosen
        for place, token in enumerate(original):
            assert sample["labels"][place] == (token if place in chosen else -100)
            assert place in chosen or sample["input_ids"][place] == token
            assert place not in chosen or token not in (2, 3)


def test_the_shares_of_masking_are_berts(folder: Path, tokenizer: Any, ask: Ask) -> None:
    (folder / "long.txt").write_text("\n".join("cat " * 100 for _ in range(60)))
    data = ask("text", {"task": "masked_lm"}, data_files="long.txt", tokenizer="model")
    inputs = torch.tensor([data.returned[index]["input_ids"][1:-1] for index in range(60)])
    labels = torch.tensor([data.returned[index]["labels"][1:-1] for index in range(60)])
    chosen = labels != -100
    assert float(chosen.double().mean()) == pytest.approx(0.15, abs=0.02)  # 6000 tokens: standard error 0.005
    assert float((inputs[chosen] == 4).double().mean()) == pytest.approx(0.8 + 0.1 / 16, abs=0.06)  # 900: 0.013
    assert float((inputs[chosen] == 6).double().mean()) == pytest.approx(0.1 + 0.1 / 16, abs=0.05)


def test_texts_with_a_class_and_pairs_of_texts(folder: Path, tokenizer: Any, ask: Ask) -> None:
    rows = [{"premise": "the cat", "claim": "the dog ran", "label": number % 3} for number in range(8)]
    (folder / "a.json").write_text("\n".join(json.dumps(row) for row in rows))
    args = {"task": "classification", "columns": ["premise", "claim"]}
    data = ask("json", args, data_files="a.json", tokenizer="checkpoint")
    assert data.returned[2]["input_ids"] == tokenizer("the cat", "the dog ran")["input_ids"]
    assert data.returned[2]["labels"] == 2
    assert data.collate([data.returned[1], data.returned[5]])["labels"].tolist() == [1, 2]


def test_tables_of_numbers(folder: Path, ask: Ask) -> None:
    (folder / "a.csv").write_text("height,width,kind\n" + "\n".join(f"{n},{2 * n}.5,{n % 2}" for n in range(6)))
    data = ask("csv", {"inputs": ["height", "width"], "targets": "kind"}, data_files="a.csv")
    assert data.returned.tensors[0].tolist() == [[n, 2 * n + 0.5] for n in range(6)]
    assert data.returned.tensors[1].tolist() == [n % 2 for n in range(6)]
    columns = ask("csv", {"columns": ["kind"]}, data_files="a.csv")
    assert {name: value.tolist() for name, value in columns.returned[[1, 2]].items()} == {"kind": [1, 0]}


def test_a_folder_of_save_to_disk_and_parquet(folder: Path, ask: Ask) -> None:
    import datasets

    rows = datasets.Dataset.from_dict({"input_ids": [[1, 2, 3], [4, 5, 6]], "labels": [[1, 2, 3], [4, 5, -100]]})
    datasets.DatasetDict({"train": rows, "test": rows.select([1])}).save_to_disk(folder / "saved")
    assert ask("saved").returned[[0, 1]]["labels"].tolist() == [[1, 2, 3], [4, 5, -100]]
    assert ask("saved", split="test").returned[[0]]["input_ids"].tolist() == [[4, 5, 6]]
    with pytest.raises(UsageError, match="did you mean 'test'"):
        ask("saved", split="tset")
    rows.to_parquet(folder / "a.parquet")
    assert ask("parquet", data_files="*.parquet").returned[[0, 1]]["labels"].tolist() == [[1, 2, 3], [4, 5, -100]]


def test_images_are_decoded_here_and_addresses_in_them_are_not_opened(folder: Path, ask: Ask) -> None:
    import datasets

    generator, contents = np.random.default_rng(0), []
    for name in ("cat", "dog"):
        (folder / "pictures" / name).mkdir(parents=True)
        for number in range(2):
            target = io.BytesIO()
            Image.fromarray(generator.integers(0, 256, (4, 5, 3), np.uint8)).save(target, "PNG")
            (folder / "pictures" / name / f"{number}.png").write_bytes(target.getvalue())
            contents.append(target.getvalue())
    found = ask("imagefolder", root="pictures").returned
    assert [found[index][1] for index in range(4)] == [0, 0, 1, 1]
    assert np.allclose(found[3][0].permute(1, 2, 0).numpy(), np.array(Image.open(io.BytesIO(contents[3]))) / 255)
    entries = [{"bytes": contents[0], "path": None}, {"bytes": None, "path": "http://127.0.0.1:9/a.png"}]
    datasets.Dataset.from_dict({"image": entries, "label": [0, 1]}).save_to_disk(folder / "saved")
    info = json.loads((folder / "saved" / "dataset_info.json").read_text())
    info["features"]["image"] = {"_type": "Image"}  # the library itself would ask the address for its size
    (folder / "saved" / "dataset_info.json").write_text(json.dumps(info))
    data = ask("saved").returned
    assert data[0][1] == 0
    with pytest.raises(Exception, match="is not there, or too large"):
        data[1]


@pytest.mark.parametrize(
    ("name", "args", "paths", "what"),
    [
        ("text", {}, {"data_files": "train.txt"}, "data.args.task is missing"),
        ("text", {"task": "causal"}, {"data_files": "train.txt"}, "did you mean 'causal_lm'"),
        ("text", {"task": "causal_lm"}, {"data_files": "train.txt"}, "need a tokenizer, and none is named"),
        ("text", {"task": "causal_lm"}, {}, "needs its files"),
        ("text", {}, {"data_files": "nowhere.txt"}, "there is no such file"),
        ("text", {}, {"data_files": "http://127.0.0.1/a.txt"}, "is no local path"),
        ("text", {}, {"data_files": "zip://a::train.txt"}, "is no local path"),
        ("imagefolder", {}, {}, "needs the folder of its images"),
        ("txet", {}, {}, "did you mean 'text'"),
        ("imdb", {}, {}, "neither a folder nor one of"),
        ("text", {"task": "causal_lm"}, {"data_files": "train.txt", "tokenizer": "nowhere"}, "there is no such file"),
        (
            "text",
            {"task": "causal_lm", "columns": "texts"},
            {"data_files": "train.txt"},
            "did you mean 'text'",
        ),
    ],
)
def test_what_is_missing_is_said(*, lines: str, ask: Ask, name, args, paths, what) -> None:
    with pytest.raises(UsageError) as caught:
        ask(name, args, **paths)
    assert what in caught.value.what


@pytest.mark.parametrize("said", ["checkpoint", "model"])
def test_a_folder_without_a_tokenizer(folder: Path, lines: str, ask: Ask, said: str) -> None:
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text('{"model_type": "bert"}')
    (folder / "model" / "adapter_model.safetensors").touch()
    with pytest.raises(UsageError, match=r"no tokenizer files in .*model") as caught:
        ask("text", {"task": "causal_lm"}, data_files=lines, tokenizer=said)
    assert caught.value.todo == 'name their folder: tokenizer = "path/to/base"'


def test_an_artifact_names_no_files(lines: str, tokenizer: Any, ask: Ask) -> None:
    for name, paths in (("text", {"data_files": lines}), ("text", {"data_files": "*.txt"}), ("model", {})):
        with pytest.raises(UsageError):
            ask(name, {"task": "causal_lm"}, Trust.ARTIFACT, tokenizer="checkpoint", **paths)


def test_code_beside_a_tokenizer_is_not_run(folder: Path, lines: str, tokenizer: Any, ask: Ask) -> None:
    file = folder / "model" / "tokenizer_config.json"
    said = json.loads(file.read_text())
    (folder / "model" / "mine.py").write_text("open('owned', 'w')")
    file.write_text(json.dumps({**said, "auto_map": {"AutoTokenizer": ["mine.Mine", None]}}))
    with pytest.raises(UsageError, match="its tokenizer is code beside the files, which is not run"):
        ask("text", {"task": "causal_lm"}, data_files=lines, tokenizer="checkpoint")
    assert not (folder / "owned").exists()
