"""Files and folders in the working folder, held against a checkpoint's shapes and classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from samdiag.guessing import folders
from samdiag.guessing.data_files import DataGuess, files_below, tensor_files
from tests.guessing.conftest import outline

FLAT = nn.Sequential(nn.Linear(784, 10))
COLOUR = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4, 3))
GREY = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(4, 2))
WORDS = nn.ModuleDict({"embed": nn.Embedding(20, 4), "head": nn.Linear(4, 20)})
MASKED = {"transformers": "BertForMaskedLM"}


def guesses(folder: Path, model: nn.Module) -> list[DataGuess]:
    return tensor_files(list(files_below(folder)), folder, outline(model), folder / "runs" / "a.pt")


def arrays(samples: int, shape: tuple[int, ...], targets: Any) -> dict[str, np.ndarray[Any, Any]]:
    return {"inputs": np.zeros((samples, *shape), dtype=np.float32), "targets": np.asarray(targets)}


@pytest.mark.parametrize(
    ("model", "found", "fits", "loss"),
    [
        (FLAT, arrays(20, (784,), np.arange(20) % 10), True, "cross_entropy"),
        (FLAT, arrays(20, (28, 28), np.arange(20) % 10), True, "cross_entropy"),
        (FLAT, arrays(20, (784,), np.arange(20)), False, "cross_entropy"),  # class 19 of 10
        (FLAT, arrays(20, (784,), np.arange(20) % 10 - 1), False, "cross_entropy"),
        (FLAT, arrays(20, (783,), np.arange(20) % 10), False, "cross_entropy"),
        (FLAT, arrays(20, (784,), np.arange(19) % 10), False, "cross_entropy"),
        (FLAT, arrays(20, (784,), np.full((20, 10), 3.0)), True, "mse"),
        (FLAT, arrays(20, (784,), np.eye(20, 10)), True, "bce_with_logits"),
        (FLAT, arrays(20, (784,), np.full((20, 3), 3.0)), False, "mse"),
        (COLOUR, arrays(6, (3, 9, 7), [0, 1, 2, 0, 1, 2]), True, "cross_entropy"),
        (COLOUR, arrays(6, (1, 9, 7), [0, 1, 2, 0, 1, 2]), False, "cross_entropy"),
    ],
)
def test_pairs(folder: Path, model: nn.Module, found: dict[str, Any], fits: bool, loss: str) -> None:
    np.savez(folder / "train.npz", **found)
    (guess,) = guesses(folder, model)
    assert (guess.value, guess.fits, guess.loss) == ({"tensors": "train.npz"}, fits, loss)


def test_other_names_of_pairs_and_the_best_comes_first(folder: Path) -> None:
    (folder / "sets").mkdir()
    np.savez(folder / "a.npz", **arrays(4, (5,), [0, 1, 2, 3]))
    np.savez(folder / "sets" / "b.npz", x_train=np.zeros((20, 784)), y_train=np.arange(20) % 10)
    first, second = guesses(folder, FLAT)
    assert first.value == {"tensors": "sets/b.npz", "args": {"inputs": "x_train", "targets": "y_train"}}
    assert first.exact
    assert not second.fits


@pytest.mark.parametrize(
    ("largest", "labels", "fits", "loss"),
    [(19, True, True, "model"), (19, False, True, "causal_lm"), (20, True, False, "model")],
)
def test_columns_of_words(folder: Path, largest: int, labels: bool, fits: bool, loss: str) -> None:
    words = torch.full((6, 5), largest)
    save_file({"input_ids": words} | ({"labels": words.clone()} if labels else {}), folder / "words.safetensors")
    (guess,) = guesses(folder, WORDS)
    assert (guess.fits, guess.loss) == (fits, loss)


def test_what_is_no_data(folder: Path) -> None:
    save_file(FLAT.state_dict(), folder / "weights.safetensors")
    (folder / "broken.npz").write_bytes(b"PK\x03\x04 no archive")
    np.savez(folder / "objects.npz", inputs=np.array([{}, {}], dtype=object), targets=np.arange(2))
    np.savez(folder / "other.npz", x=np.arange(3))
    assert guesses(folder, FLAT) == []


def test_the_checkpoint_is_no_data_of_its_own(folder: Path) -> None:
    np.savez(folder / "a.npz", **arrays(20, (784,), np.arange(20) % 10))
    assert tensor_files(list(files_below(folder)), folder, outline(FLAT), folder / "a.npz") == []


def test_hidden_and_deep_files_and_links_are_not_looked_at(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "x.npz").touch()
    for name in (".hidden", "a/b/c/d", "node_modules"):
        (folder / name).mkdir(parents=True)
        (folder / name / "x.npz").touch()
    (folder / "link").symlink_to(tmp_path / "outside")
    assert not [path for path in files_below(folder) if path.suffix == ".npz"]


def images(folder: Path, classes: int, size: tuple[int, int] = (8, 8)) -> None:
    for number in range(classes):
        (folder / f"class{number}").mkdir(parents=True)
        Image.new("L", size).save(folder / f"class{number}" / "0.png")


@pytest.mark.parametrize(
    ("model", "side", "args"),
    [(COLOUR, None, {}), (GREY, None, {"grayscale": True}), (COLOUR, 32, {"size": 32}), (COLOUR, 8, {})],
)
def test_image_folders(folder: Path, model: nn.Module, side: int | None, args: dict[str, Any]) -> None:
    outputs = outline(model).num_outputs
    assert outputs is not None
    images(folder / "images" / "val", outputs)
    images(folder / "images" / "train", outputs)
    images(folder / "more", outputs + 1)
    found = list(folders.image_folders(list(files_below(folder)), folder, outline(model), side))
    assert found[0].value == {"folder": "images/train"} | ({"args": args} if args else {})
    assert [guess.fits for guess in found] == [True, False, True]


def test_images_of_several_sizes_need_one(folder: Path) -> None:
    images(folder / "train", 2)
    images(folder / "train" / "class2", 0)
    (folder / "train" / "class2").mkdir()
    Image.new("L", (9, 8)).save(folder / "train" / "class2" / "0.png")
    (guess,) = folders.image_folders(list(files_below(folder)), folder, outline(COLOUR), None)
    assert guess.value["args"] == {"size": 224}


@pytest.mark.parametrize(
    ("marker", "model", "value", "fits"),
    [
        ("data/MNIST/raw", FLAT, {"torchvision": "MNIST", "root": "data", "split": "train"}, True),
        ("FashionMNIST/raw", FLAT, {"torchvision": "FashionMNIST", "root": ".", "split": "train"}, True),
        ("d/cifar-10-batches-py", FLAT, {"torchvision": "CIFAR10", "root": "d", "split": "train"}, False),
        ("d/cifar-10-batches-py", COLOUR, {"torchvision": "CIFAR10", "root": "d", "split": "train"}, False),
    ],
)
def test_torchvision_sets(folder: Path, marker: str, model: nn.Module, value: dict[str, Any], fits: bool) -> None:
    (folder / marker).mkdir(parents=True)
    (guess,) = folders.torchvision_sets(list(files_below(folder)), folder, outline(model))
    assert (guess.value, guess.fits) == (value, fits)


def test_names_and_classes_of_torchvision_sets_are_those_of_the_catalog() -> None:
    from samdiag.spec.data.torchvision_sets import SETS

    assert {known.name for known in folders.SETS} <= set(SETS)


def test_text_for_a_model_of_language(folder: Path) -> None:
    (folder / "model").mkdir()
    (folder / "model" / "vocab.txt").write_text("a\n" * 200)
    (folder / "corpus.txt").write_text("some words " * 50)
    (folder / "requirements.txt").write_text("torch\n" * 50)
    (folder / "note.txt").write_text("short")
    paths = list(files_below(folder))
    (guess,) = folders.texts(paths, folder, folder / "model", MASKED)
    said = {"datasets": "text", "data_files": "corpus.txt", "tokenizer": "checkpoint"}
    assert guess.value == said | {"args": {"task": "masked_lm"}}
    (guess,) = folders.texts(paths, folder, folder / "model", {"transformers": "GPT2LMHeadModel"})
    assert guess.value == said | {"args": {"task": "causal_lm"}}
    assert not list(folders.texts(paths, folder, folder / "runs", MASKED))  # without a tokenizer
    assert not list(folders.texts(paths, folder, folder / "model", {"timm": "resnet18"}))
