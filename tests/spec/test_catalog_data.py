"""Data that a spec names: tensors, image folders, torchvision's sets, shards; written by the real libraries."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from samdiag.errors import CannotDecide, SamdiagError, UsageError
from samdiag.formats import Checkpoint
from samdiag.spec.batches import Columns, cut
from samdiag.spec.catalog import build_data
from samdiag.spec.requests import Data, DataRequest
from samdiag.types import Trust
from tests.spec.catalog_truth import no_network  # noqa: F401  (a fixture)
from tests.torchvision_ops import declare

Ask = Callable[..., Data]


@pytest.fixture
def ask(folder: Path) -> Ask:
    """Data built as a user's samdiag.toml in the working folder would ask for it."""

    def build(library: str, name: str, args: dict[str, Any] | None = None, **more: Any) -> Data:
        checkpoint = Checkpoint(path=folder / "a.safetensors", format="x", fingerprint="", load=lambda _: {})
        said = {"trust": Trust.PROJECT, "source": "samdiag.toml", "folder": folder, "paths": {}} | more
        return build_data(DataRequest(library=library, name=name, args=args or {}, checkpoint=checkpoint, **said))

    return build


def pairs(data: Data) -> tuple[Tensor, Tensor]:
    samples = [data.returned[index] for index in range(len(data.returned))]
    return torch.stack([sample[0] for sample in samples]), torch.tensor([int(sample[1]) for sample in samples])


def picture(seed: int, size: tuple[int, int] = (8, 6)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def encoded(image: Image.Image) -> bytes:
    target = io.BytesIO()
    image.save(target, "PNG")
    return target.getvalue()


# ---------------------------------------------------------------- tensors


@pytest.mark.parametrize("suffix", ["safetensors", "npz"])
def test_tensors_are_pairs(folder: Path, ask: Ask, suffix: str) -> None:
    inputs, targets = torch.randn(7, 3), torch.arange(7, dtype=torch.int32)
    if suffix == "npz":
        np.savez_compressed(folder / "a.npz", inputs=inputs.numpy(), targets=targets.numpy())
    else:
        save_file({"inputs": inputs, "targets": targets}, folder / "a.safetensors")
    data = ask("tensors", f"a.{suffix}")
    assert torch.equal(data.returned.tensors[0], inputs)
    assert torch.equal(data.returned.tensors[1], targets.long())
    assert data.returned.tensors[1].dtype == torch.int64


def test_tensors_of_other_names_scaled_and_normalised(folder: Path, ask: Ask) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 3, 2, 2), dtype=np.uint8)
    np.savez(folder / "a.npz", x_test=images, y_test=np.arange(5, dtype=np.uint8), x_train=images)
    args = {"inputs": "x_test", "targets": "y_test", "scale": 1 / 255, "normalize": "imagenet"}
    data = ask("tensors", "a.npz", args)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    wanted = (images / 255 - mean[:, None, None]) / std[:, None, None]
    assert np.allclose(data.returned.tensors[0].numpy(), wanted, atol=1e-6)
    assert data.returned.tensors[1].tolist() == [0, 1, 2, 3, 4]
    assert "x_train not used" in data.notes[0]


def test_tensors_without_pairs_are_columns(folder: Path, ask: Ask) -> None:
    ids = np.arange(40, dtype=np.int32).reshape(10, 4)
    np.savez(folder / "a.npz", input_ids=ids, attention_mask=np.asfortranarray(np.ones((10, 4), dtype=np.int8)))
    data = ask("tensors", "a.npz")
    assert isinstance(data.returned, Columns)
    batches = list(cut(data.returned, num_samples=None, batch_size=None).items)
    assert batches[0].keys() == {"input_ids", "attention_mask"}
    assert {row[0] for batch in batches for row in batch["input_ids"].tolist()} == set(range(0, 40, 4))
    assert batches[0]["attention_mask"].dtype == torch.int64


def npz(folder: Path, **entries: bytes) -> None:
    with zipfile.ZipFile(folder / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(f"{name}.npy", content)


def npy(descr: str, shape: str, data: bytes) -> bytes:
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + data


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (npy("'<f4'", "(1152921504606846976,)", b"1234"), "needs 4611686018427387904 bytes"),
        (npy("'<f4'", "(-1,)", b""), "has the shape"),
        (npy("'|O'", "(1,)", b"cos\nsystem\n"), "holds object"),
        (npy("'<U1'", "(1,)", b"abcd"), "no numbers"),
        (npy("__import__('os')", "(1,)", b"abcd"), "no valid header"),
        (npy("'<f4'", "(1, ) * 9", b"abcd"), "no valid header"),
        (npy("'<f4'", "(2,)", b"1234"), "needs 8 bytes and has 4"),
        (b"nothing", "no valid header"),
    ],
)
def test_arrays_that_claim_what_is_not_there(*, folder: Path, ask: Ask, content: bytes, what: str) -> None:
    npz(folder, inputs=content)
    with pytest.raises(CannotDecide, match=what):
        ask("tensors", "a.npz")


def test_an_archive_that_would_inflate_without_measure(folder: Path, ask: Ask, monkeypatch) -> None:
    monkeypatch.setattr("samdiag.spec.data.numpy_archive.FREE_BYTES", 1000)
    np.savez_compressed(folder / "a.npz", inputs=np.zeros(100_000))
    with pytest.raises(CannotDecide, match="would inflate to 800"):
        ask("tensors", "a.npz")


@pytest.mark.parametrize(
    ("tensors", "args", "what"),
    [
        (
            {"inputs": torch.zeros(3), "targets": torch.zeros(4)},
            {},
            "of samples: inputs 3, targets 4",
        ),
        ({"inputs": torch.zeros(3)}, {}, "has no 'targets'"),
        ({"inputs": torch.tensor(3.0), "targets": torch.zeros(4)}, {}, "inputs is a single number"),
        ({"x_train": torch.zeros(3)}, {"inputs": "x_trian"}, "did you mean 'x_train'"),
        ({"a": torch.zeros(3)}, {"scale": 2}, "scale, mean and std are for inputs"),
        ({"a": torch.zeros(3)}, {"sacle": 2}, "data.args.sacle (samdiag.toml) is unknown; did you mean 'scale'"),
        ({"a": torch.zeros(3)}, {"scale": "2"}, "data.args.scale = '2' (samdiag.toml) must be a number"),
        ({"inputs": torch.zeros(3, 2), "targets": torch.zeros(3)}, {"mean": [1, 2, 3]}, "has 3 values"),
        ({"a": torch.zeros(0)}, {}, "has no samples"),
    ],
)
def test_tensors_that_do_not_belong_together(*, folder: Path, ask: Ask, tensors, args, what) -> None:
    save_file(tensors, folder / "a.safetensors")
    with pytest.raises(UsageError) as caught:
        ask("tensors", "a.safetensors", args)
    assert what in caught.value.what


# ---------------------------------------------------------------- image folders


@pytest.fixture
def images(folder: Path) -> Path:
    for name in ("dog", "cat", ".hidden"):
        (folder / "pictures" / name).mkdir(parents=True)
        for number in range(3):
            picture(len(name) + number).save(folder / "pictures" / name / f"{number}.png")
    (folder / "pictures" / "cat" / "notes.txt").write_text("no image")
    return folder / "pictures"


def test_a_folder_is_what_torchvisions_image_folder_reads(images: Path, ask: Ask) -> None:
    declare()
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import CenterCrop, Compose, Normalize, Resize, ToTensor

    (images / ".hidden").rename(images.parent / "elsewhere")
    mean = std = [0.5, 0.25, 0.125]
    theirs = ImageFolder(images, Compose([Resize(5), CenterCrop(4), ToTensor(), Normalize(mean, std)]))
    inputs, targets = pairs(ask("folder", "pictures", {"size": 4, "resize": 5, "mean": mean, "std": std}))
    assert torch.allclose(inputs, torch.stack([image for image, _ in theirs]), atol=1e-6)
    assert targets.tolist() == [target for _, target in theirs] == [0, 0, 0, 1, 1, 1]
    theirs = ImageFolder(images, Compose([Resize((3, 7)), ToTensor()]))
    inputs, _ = pairs(ask("folder", "pictures", {"size": [3, 7]}))
    assert torch.allclose(inputs, torch.stack([image for image, _ in theirs]), atol=1e-6)
    theirs = ImageFolder(images, Compose([Resize(4), CenterCrop(4), ToTensor()]))
    inputs, _ = pairs(ask("folder", "pictures", {"size": 4}))
    assert torch.allclose(inputs, torch.stack([image for image, _ in theirs]), atol=1e-6)


def test_grey_images_have_one_channel(images: Path, ask: Ask) -> None:
    inputs, _ = pairs(ask("folder", "pictures", {"grayscale": True, "normalize": "mnist"}))
    assert inputs.shape == (6, 1, 6, 8)
    grey = np.array(Image.open(images / "cat" / "0.png").convert("L")) / 255
    assert np.allclose(inputs[0, 0].numpy(), (grey - 0.1307) / 0.3081, atol=1e-5)


def test_a_split_is_a_subfolder(images: Path, ask: Ask) -> None:
    _, targets = pairs(ask("folder", ".", split="pictures"))
    assert len(targets) == 6
    for split in ("..", "a/b", "nowhere"):
        with pytest.raises(UsageError):
            ask("folder", ".", split=split)


def test_an_image_that_cannot_be_read_is_named(images: Path, ask: Ask, monkeypatch) -> None:
    (images / "cat" / "1.png").write_bytes((images / "cat" / "1.png").read_bytes()[:60])
    data = ask("folder", "pictures")
    with pytest.raises(CannotDecide, match=r"cat/1\.png cannot be read"):
        data.returned[1]
    monkeypatch.setattr("samdiag.spec.data.images.MAX_PIXELS", 40)
    with pytest.raises(CannotDecide, match="8 x 6 pixels, more than 40"):
        data.returned[0]


def test_images_of_different_sizes_ask_for_one(images: Path, ask: Ask) -> None:
    picture(0, (9, 9)).save(images / "dog" / "9.png")
    data = ask("folder", "pictures")
    with pytest.raises(UsageError, match="different sizes"):
        data.collate([data.returned[index] for index in range(7)])


def test_a_program_that_pillow_would_start_for_an_image_is_not_started(images: Path, ask: Ask) -> None:
    (images / "cat" / "0.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n")
    with pytest.raises(CannotDecide, match="cannot be read"):
        ask("folder", "pictures").returned[0]


# ---------------------------------------------------------------- torchvision


def write_idx(path: Path, array: np.ndarray) -> None:
    header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    path.write_bytes(header + array.tobytes())


@pytest.fixture
def mnist(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    raw = folder / "sets" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    generator = np.random.default_rng(0)
    inputs, targets = generator.integers(0, 256, (9, 28, 28), np.uint8), generator.integers(0, 10, 9, np.uint8)
    for split in ("train", "t10k"):
        write_idx(raw / f"{split}-images-idx3-ubyte", inputs)
        write_idx(raw / f"{split}-labels-idx1-ubyte", targets)
    return inputs, targets


def test_a_set_of_torchvision(mnist: tuple[np.ndarray, np.ndarray], ask: Ask) -> None:
    declare()
    data = ask("torchvision", "MNIST", {"normalize": "mnist"}, split="test", paths={"root": "sets"})
    inputs, targets = pairs(data)
    assert np.allclose(inputs[:, 0].numpy(), (mnist[0] / 255 - 0.1307) / 0.3081, atol=1e-5)
    assert targets.tolist() == mnist[1].tolist()


def test_only_with_the_flag_is_a_set_fetched(folder: Path, ask: Ask, monkeypatch) -> None:
    declare()
    from torchvision import datasets

    asked: list[dict[str, Any]] = []

    class Recorded(datasets.FakeData):
        def __init__(self, **arguments: Any) -> None:
            asked.append(arguments)
            super().__init__(size=3, image_size=(3, 4, 4), num_classes=2)

    monkeypatch.setattr(datasets, "CIFAR10", Recorded)
    for download in (False, True):
        assert len(ask("torchvision", "CIFAR10", download=download).returned) == 3
    root = str(folder / "data")
    assert asked == [{"root": root, "train": True, "download": download} for download in (False, True)]


@pytest.mark.parametrize(
    ("name", "more", "what", "todo"),
    [
        ("CIFAR11", {}, "did you mean 'CIFAR10'", "module:factory"),
        ("VOCDetection", {}, "no data set of classified images", "MNIST"),
        ("MNIST", {"split": "tset"}, "did you mean 'test'", "train or test"),
        ("MNIST", {"paths": {"root": "nowhere"}}, "data.root names 'nowhere': there is no such file", "looked in"),
        ("CIFAR10", {}, "data (torchvision CIFAR10) raised RuntimeError: Dataset not found", "--download"),
        ("MNIST", {"trust": Trust.ARTIFACT, "paths": {"root": "sets"}}, "names a path", "your own samdiag.toml"),
    ],
)
def test_sets_that_are_not_there(*, mnist, ask: Ask, name, more, what, todo) -> None:
    declare()
    with pytest.raises(UsageError) as caught:
        ask("torchvision", name, **more)
    assert what in caught.value.what
    assert todo in caught.value.todo


def test_cifar_is_not_unpickled_unless_it_is_the_published_file(folder: Path, ask: Ask) -> None:
    """torchvision reads CIFAR's files as pickles, and only after their md5 sums were found right."""
    declare()
    place = folder / "data" / "cifar-10-batches-py"
    place.mkdir(parents=True)
    for name in ("batches.meta", "test_batch", *(f"data_batch_{i}" for i in range(1, 6))):
        (place / name).write_bytes(b"cos\nsystem\n(S'touch owned'\ntR.")
    with pytest.raises(UsageError, match="not found or corrupted"):
        ask("torchvision", "CIFAR10")
    assert not (folder / "owned").exists()


# ---------------------------------------------------------------- shards


def write_shards(folder: Path, num_shards: int = 2, **extra: Any) -> list[tuple[bytes, int]]:
    import webdataset

    written = []
    for shard in range(num_shards):
        with webdataset.TarWriter(str(folder / f"part-{shard:03d}.tar")) as sink:
            for number in range(4):
                image = encoded(picture(10 * shard + number))
                sample = {"__key__": f"{shard}{number:04d}", "png": image, "cls": number % 3, **extra}
                sink.write(sample | {"json": {"label": number, "deep": {"kind": 2 - number % 3}}})
                written.append((image, number % 3))
    return written


def test_shards_are_what_webdataset_reads(folder: Path, ask: Ask) -> None:
    import webdataset

    written = write_shards(folder)
    files = [(folder / f"part-{i:03d}.tar").open("rb") for i in range(2)]  # the library leaves what it opens open
    theirs = webdataset.tariterators.group_by_keys(
        webdataset.tariterators.tar_file_expander({"url": file.name, "stream": file} for file in files)
    )
    assert [(sample["png"], int(sample["cls"])) for sample in theirs] == written
    for file in files:
        file.close()
    wanted = torch.stack([torch.from_numpy(np.array(Image.open(io.BytesIO(image)))) for image, _ in written])
    for name in ("part-{000..001}.tar", "part-*.tar", ["part-000.tar", "part-001.tar"]):
        inputs, targets = ask("webdataset", name).returned.tensors
        assert torch.allclose(inputs, wanted.permute(0, 3, 1, 2) / 255)
        assert targets.tolist() == [target for _, target in written]
    assert len(ask("webdataset", "part-*.tar", {"samples": 3}).returned) == 3
    _, targets = ask("webdataset", "part-000.tar", {"target": "json"}).returned.tensors
    assert targets.tolist() == [0, 1, 2, 3]
    _, targets = ask("webdataset", "part-000.tar", {"target": "json.deep.kind"}).returned.tensors
    assert targets.tolist() == [2, 1, 0, 2]


def test_a_gzipped_shard(folder: Path, ask: Ask) -> None:
    import gzip

    write_shards(folder, 1)
    (folder / "a.tar.gz").write_bytes(gzip.compress((folder / "part-000.tar").read_bytes()))
    assert len(ask("webdataset", "a.tar.gz").returned) == 4


@pytest.mark.parametrize("name", ["pipe:touch owned", "pipe:touch owned #*", "http://127.0.0.1/a.tar", "s3://b/*.tar"])
def test_shards_start_no_program_and_fetch_nothing(folder: Path, ask: Ask, name: str) -> None:
    with pytest.raises(UsageError, match="no local path"):
        ask("webdataset", name)
    assert not (folder / "owned").exists()


def test_members_are_bounded_and_never_unpickled(folder: Path, ask: Ask, monkeypatch) -> None:
    import webdataset

    write_shards(folder, 1)
    with pytest.raises(UsageError, match="no class number in 'png'"):
        ask("webdataset", "part-000.tar", {"target": "png"})
    with webdataset.TarWriter(str(folder / "pickled.tar")) as sink:
        sink.write({"__key__": "a", "pyd": {"image": 1}})
    with pytest.raises(UsageError, match="pyd would have to be unpickled, which is never done"):
        ask("webdataset", "pickled.tar")
    (folder / "cut.tar").write_bytes((folder / "part-000.tar").read_bytes()[:700])
    with pytest.raises(CannotDecide, match=r"cut\.tar cannot be read"):
        ask("webdataset", "cut.tar")
    monkeypatch.setattr("samdiag.spec.data.shards.MAX_BYTES", 50)
    with pytest.raises(SamdiagError, match=r"more than 50|claims"):
        ask("webdataset", "part-000.tar")


def test_a_damaged_image_in_a_shard_is_named(folder: Path, ask: Ask) -> None:
    import webdataset

    with webdataset.TarWriter(str(folder / "a.tar")) as sink:
        sink.write({"__key__": "7", "jpg": b"no image", "cls": 1})
    with pytest.raises(CannotDecide, match=r"a\.tar:7\.jpg cannot be read"):
        ask("webdataset", "a.tar")
