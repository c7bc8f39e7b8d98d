"""From settings to a Problem: the catalog's or the user's own, with errors that point at the cause."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from samdiag.errors import UsageError
from samdiag.formats import Checkpoint, open_checkpoint
from samdiag.spec.build import build, build_problem
from samdiag.spec.discover import Resolution
from samdiag.types import Setting, Trust

SPEC = {"model": "train.py:model", "data": "train.py:data", "loss": "cross_entropy"}


def complaint(resolution: Resolution, checkpoint: Checkpoint) -> UsageError:
    with pytest.raises(UsageError) as caught:
        build_problem(resolution, checkpoint)
    assert "\n" not in caught.value.what
    return caught.value


def test_a_stamped_checkpoint_builds(stamped: Checkpoint, weights: dict[str, torch.Tensor], resolved) -> None:
    problem = build_problem(resolved(stamped), stamped)
    assert all(torch.equal(problem.model.state_dict()[name], value) for name, value in weights.items())
    assert (problem.population, problem.batch_size_is_training, problem.loss_lower_bound) == (40, False, 0.0)
    assert problem.loss(problem.model, next(iter(problem.batches))).shape == ()


def test_own_parts_build(train: Path, checkpoint: Checkpoint, weights: dict[str, torch.Tensor], resolved) -> None:
    built = build(resolved(checkpoint, SPEC), checkpoint)
    assert built.notes == ()
    assert torch.equal(built.problem.model.state_dict()["0.weight"], weights["0.weight"])
    own = {**SPEC, "data": "train.py:batches", "loss": "train.py:loss"}
    problem = build_problem(resolved(checkpoint, own), checkpoint)
    assert (problem.population, problem.batch_size_is_training, problem.loss_lower_bound) == (None, True, None)
    assert problem.loss is sys.modules[problem.loss.__module__].loss


@pytest.mark.parametrize("name", ["problem", "ready"])
def test_a_problem_or_a_function_that_returns_one(train: Path, checkpoint: Checkpoint, weights, resolved, name) -> None:
    problem = build_problem(resolved(checkpoint, {"problem": f"train.py:{name}"}), checkpoint)
    assert torch.equal(problem.model.state_dict()["0.weight"], weights["0.weight"])


def test_arguments_reach_the_factories(train: Path, checkpoint: Checkpoint, resolved, folder: Path) -> None:
    config = 'model = {python = "train.py:model", args = {hidden = 3}}\n'
    config += (
        'data = {python = "train.py:data", args = {n = 30}, num_samples = 24, batch_size = 2}\nloss = "cross_entropy"'
    )
    problem = build_problem(resolved(checkpoint, config=config), checkpoint)
    assert problem.population == 30
    assert [len(targets) for _, targets in problem.batches] == [2] * 12
    error = complaint(resolved(checkpoint, config=config.replace("hidden = 3", "hidden = 4")), checkpoint)
    assert "0.weight (3, 2) against (4, 2)" in error.what
    error = complaint(resolved(checkpoint, config=config.replace("hidden = 3", "width = 4")), checkpoint)
    assert "TypeError" in error.what
    assert "width" in error.what


@pytest.mark.parametrize(
    ("changed", "what", "todo"),
    [
        ({"model": "train.py:modle"}, "did you mean 'model'", "correct model"),
        ({"model": "nowhere.py:model"}, "no such file", "looked in"),
        ({"model": "nowhere:model"}, "module 'nowhere', which is not found", "pythonpath"),
        ({"model": "train.py:"}, "no reference", "module:function"),
        ({"model": "train.py:number"}, "is a int and not a function", "name a function"),
        ({"model": "train.py:data"}, "is a TensorDataset and not a torch.nn.Module", "network"),
        ({"model": "train.py:fails"}, "raised ValueError: no such run at train.py:", "correct it"),
        ({"data": "train.py:generator"}, "only once", "list("),
        ({"data": "train.py:fails"}, "data (train.py:fails) raised ValueError", "correct it"),
        ({"loss": "train.py:one_argument"}, "takes (model)", "loss(model, batch)"),
        ({"loss": "train.py:number"}, "not a function", "name a function"),
        ({"model": "unknown"}, "no model named 'unknown'", "tiny"),
        ({"model": "tinny"}, "did you mean 'tiny'", "module:factory"),
        ({"data": "tiny"}, "the gallery has no data named 'tiny'; did you mean 'tiny-data'", "module:factory"),
        ({"weights": "ema"}, "no EMA weights", "raw"),
    ],
)
def test_what_goes_wrong_is_said_in_one_line(*, train, checkpoint, resolved, changed, what, todo) -> None:
    error = complaint(resolved(checkpoint, {**SPEC, **changed}), checkpoint)
    assert what in error.what
    assert todo in error.todo
    assert error.exit_code == 2


@pytest.mark.parametrize(
    ("reference", "what"),
    [
        ("train.py:model", "returned a Sequential"),
        ("train.py:number", "is a int and not a function"),
        ("train.py:fails", "ValueError: no such run at train.py:"),
    ],
)
def test_a_problem_of_another_type(train: Path, checkpoint: Checkpoint, resolved, reference: str, what: str) -> None:
    assert what in complaint(resolved(checkpoint, {"problem": reference}), checkpoint).what


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("import nowhere_to_be_found", "ModuleNotFoundError: No module named 'nowhere_to_be_found' at broken.py:1"),
        ("x = (", "SyntaxError: '(' was never closed at broken.py:1"),
        ("\n1 / 0", "ZeroDivisionError: division by zero at broken.py:2"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
    ],
)
@pytest.mark.parametrize("reference", ["broken.py:f", "broken:f"])
def test_a_module_that_fails_names_its_line(*, folder: Path, checkpoint, resolved, text, what, reference) -> None:
    (folder / "broken.py").write_text(text)
    for _ in range(2):  # a failed import leaves nothing behind
        error = complaint(resolved(checkpoint, {"problem": reference}), checkpoint)
        assert what in error.what


def test_what_user_code_prints_stays_off_stdout(train: Path, checkpoint: Checkpoint, resolved, capsys) -> None:
    complaint(resolved(checkpoint, {"problem": "train.py:fails"}), checkpoint)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "before failing" in captured.err


def test_siblings_of_a_named_file_are_found(folder: Path, checkpoint: Checkpoint, resolved) -> None:
    (folder / "src").mkdir()
    (folder / "src" / "sibling.py").write_text("from torch import nn\n")
    (folder / "src" / "train.py").write_text(
        "import sibling\ndef model(): return sibling.nn.Sequential("
        "sibling.nn.Linear(2, 3), sibling.nn.Tanh(), sibling.nn.Linear(3, 2))\n"
    )
    overrides = {"model": "src/train.py:model", "data": "tiny-data", "loss": "cross_entropy"}
    build_problem(resolved(checkpoint, overrides), checkpoint)
    assert str(folder / "src") in sys.path


def test_the_working_folder_is_searched_for_the_command_line_only(train, folder, checkpoint, resolved) -> None:
    (folder / "samdiag.toml").write_text('problem = "train:problem"\n')
    error = complaint(resolved(checkpoint), checkpoint)
    assert "'train', which is not found" in error.what
    assert 'pythonpath = ["."]' in error.todo
    assert str(folder) not in sys.path
    build_problem(resolved(checkpoint, {"problem": "train:problem"}), checkpoint)


def test_pythonpath_of_the_project_file(train: Path, folder: Path, checkpoint: Checkpoint, resolved) -> None:
    (folder / "samdiag.toml").write_text('problem = "train:problem"\npythonpath = ["."]\n')
    build_problem(resolved(checkpoint), checkpoint)
    assert sys.path[0] == str(folder)


def test_nothing_beside_a_checkpoint_is_imported(train, folder, weights, resolved) -> None:
    save_file(weights, folder / "a.safetensors")
    checkpoint = open_checkpoint("a.safetensors")
    error = complaint(resolved(checkpoint, {"problem": "train:problem"}), checkpoint)
    assert "the folder of a checkpoint is never searched" in error.what
    assert "--problem train.py:name" in error.todo
    assert str(folder) not in sys.path
    build_problem(resolved(checkpoint, {"problem": "train.py:problem"}), checkpoint)  # named by the user: trusted


def test_a_stamped_checkpoint_leaves_sys_path_alone(stamped: Checkpoint, resolved) -> None:
    path, modules = list(sys.path), set(sys.modules)
    (Path(stamped.path).parent / "tiny_catalog.py").write_text("raise SystemExit")
    build_problem(resolved(stamped), stamped)
    assert sys.path == path
    assert not [name for name in set(sys.modules) - modules if name.startswith("_samdiag_user_")]


def test_an_artifact_that_got_through_is_still_refused(train: Path, checkpoint: Checkpoint, resolved) -> None:
    good = resolved(checkpoint, {"problem": "train.py:problem"})
    forged = Setting(value="train.py:problem", source="stamp in the checkpoint", trust=Trust.ARTIFACT)
    resolution = Resolution(settings={**good.settings, "problem": forged}, places=good.places)
    assert "stamp in the checkpoint names code" in complaint(resolution, checkpoint).what


@pytest.mark.parametrize(
    ("key", "table", "module", "extra"),
    [
        ("model", {"timm": "resnet18"}, "timm", "timm"),
        ("model", {"torchvision": "resnet18"}, "torchvision", "torchvision"),
        ("model", {"transformers": "GPT2LMHeadModel"}, "transformers", "transformers"),
        ("data", {"torchvision": "CIFAR10"}, "torchvision", "torchvision"),
        ("data", {"datasets": "text"}, "datasets", "datasets"),
        ("data", {"folder": "."}, "pillow", "images"),
        ("data", {"webdataset": "a.tar"}, "pillow", "webdataset"),
    ],
)
def test_libraries_that_are_not_installed_say_so(
    *, train, checkpoint, resolved, monkeypatch, key: str, table: dict[str, Any], module: str, extra: str
) -> None:
    top = {"pillow": "PIL"}.get(module, module)
    for name in [name for name in sys.modules if name.partition(".")[0] == top]:
        monkeypatch.setitem(sys.modules, name, None)  # importing it raises ModuleNotFoundError
    monkeypatch.setitem(sys.modules, top, None)
    error = complaint(resolved(checkpoint, {**SPEC, key: table}), checkpoint)
    assert error.what == f"{key}.{next(iter(table))} needs {module}, which is not installed"
    assert error.todo == f"pip install 'samdiag[{extra}]'"


def test_a_download_that_nobody_asked_for_by_the_flag_is_refused(train: Path, checkpoint: Checkpoint, resolved) -> None:
    good = resolved(checkpoint, {**SPEC, "data": {"torchvision": "CIFAR10"}})
    forged = Setting(value=True, source="stamp in the checkpoint", trust=Trust.ARTIFACT)
    resolution = Resolution(settings={**good.settings, "download": forged}, places=good.places)
    error = complaint(resolution, checkpoint)
    assert error.what == "stamp in the checkpoint says download"
    assert error.todo == "give the flag instead: --download"


def test_notes_tell_of_conversions(folder: Path, train: Path, weights: dict[str, torch.Tensor], resolved) -> None:
    (folder / "runs").mkdir()
    save_file({name: value.half() for name, value in weights.items()}, folder / "runs" / "half.safetensors")
    checkpoint = open_checkpoint(folder / "runs" / "half.safetensors")
    assert build(resolved(checkpoint, SPEC), checkpoint).notes == (
        "4 tensors are stored as float16 and measured as float32",
    )
