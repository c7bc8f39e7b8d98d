"""Which checkpoints a command line means, and in which order."""

from __future__ import annotations

import io
import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from samdiag.errors import UsageError
from samdiag.fleet.entries import Entry
from samdiag.fleet.listing import list_entries
from samdiag.formats.content import Content
from samdiag.formats.steps import natural

HEADER = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
WEIGHTS = struct.pack("<Q", len(HEADER)) + HEADER + bytes(4)


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def make(*names: str, content: bytes = WEIGHTS) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(content)


def paths_of(*paths: str, **options: Any) -> list[str]:
    return [entry.path for entry in list_entries(paths, **options).entries]


def refusal(*paths: str, **options: Any) -> UsageError:
    with pytest.raises(UsageError) as caught:
        list_entries(paths, **options)
    assert "\n" not in caught.value.what
    assert caught.value.todo
    return caught.value


# --- order


def test_the_checkpoints_of_a_folder_come_by_run_and_by_step() -> None:
    make(*(f"runs/run{run}/step-{step}.safetensors" for run in (10, 2) for step in (1000, 90, 500)))
    found = list_entries(["runs"])
    assert [entry.path for entry in found.entries] == [
        f"runs/run{run}/step-{step}.safetensors" for run in (2, 10) for step in (90, 500, 1000)
    ]
    assert [entry.step for entry in found.entries] == [90, 500, 1000] * 2
    assert found.many


def test_what_says_no_step_comes_last_in_its_run() -> None:
    make("run/last.pt", "run/best.pt", "run/step-7.pt")
    assert paths_of("run") == ["run/step-7.pt", "run/best.pt", "run/last.pt"]


def test_a_list_without_steps_stays_as_given() -> None:
    make("b.pt", "a.pt", "z/c.pt")
    assert paths_of("z/c.pt", "b.pt", "a.pt") == ["z/c.pt", "b.pt", "a.pt"]


def test_a_list_with_steps_is_put_in_their_order() -> None:
    make("step-10.pt", "step-9.pt")
    assert paths_of("step-10.pt", "step-9.pt") == ["step-9.pt", "step-10.pt"]


def test_steps_in_the_names_of_folders_order_the_files_in_them() -> None:
    make(*(f"run/checkpoint-{step}/weights.safetensors" for step in (100, 20)))
    assert paths_of("run/checkpoint-100/weights.safetensors", "run/checkpoint-20/weights.safetensors", last=1) == [
        "run/checkpoint-100/weights.safetensors"
    ]


def test_epochs_and_steps_in_one_run_are_remarked_on() -> None:
    make("run/epoch=3.ckpt", "run/step=2.ckpt")
    found = list_entries(["run"])
    assert [entry.step for entry in found.entries] == [2, 3]
    assert any("epochs" in note for note in found.notes)


def test_the_state_of_a_trainer_says_the_step_of_its_folder() -> None:
    for name, step in (("best", 700), ("middle", 90)):
        make(f"run/{name}/model.safetensors", f"run/{name}/config.json")
        state = {"epoch": 1.5, "global_step": step, "log_history": [{"step": 5}]}
        Path(f"run/{name}/trainer_state.json").write_text(json.dumps(state, indent=2, sort_keys=True))
    assert [(entry.path, entry.step) for entry in list_entries(["run"]).entries] == [
        ("run/middle", 90),
        ("run/best", 700),
    ]


@pytest.mark.parametrize(
    ("smaller", "larger"),
    [("run2", "run10"), ("a9b", "a10b"), ("a007", "a8"), ("a", "ab"), ("9" * 5000, "1" + "0" * 5000)],
)
def test_numbers_in_names_order_by_their_value(smaller: str, larger: str) -> None:
    assert natural(smaller) < natural(larger)


# --- folders


def test_a_folder_is_searched_for_contents_and_not_for_names() -> None:
    make("run/plain", "run/deep/er/model_best.pth.tar")
    make("run/notes.pt", "run/weights.bin", content=b"not weights at all")
    make("run/log.txt", "run/config.json")
    found = list_entries(["run"])
    assert [entry.path for entry in found.entries] == ["run/notes.pt", "run/plain", "run/deep/er/model_best.pth.tar"]
    assert [note for note in found.notes if "run/notes.pt" not in note and "run/weights.bin" in note]


def test_files_of_torch_are_found_whatever_their_layout() -> None:
    Path("run").mkdir()
    torch.save({"w": torch.zeros(1)}, "run/new.pt")
    torch.save({"w": torch.zeros(1)}, "run/old.pt", _use_new_zipfile_serialization=False)
    make("run/archive.pt", content=b"PK\x05\x06" + bytes(18))  # an empty zip archive
    assert paths_of("run") == ["run/archive.pt", "run/new.pt", "run/old.pt"]  # the first is no checkpoint: a gap


def test_an_empty_file_of_such_a_name_is_listed_so_that_the_gap_is_seen() -> None:
    make("run/step-1.pt")
    make("run/step-2.pt", "run/done", content=b"")
    assert paths_of("run") == ["run/step-1.pt", "run/step-2.pt"]


@pytest.mark.parametrize(
    "name",
    [
        *("optimizer.pt", "optimizer.bin", "scheduler.pt", "training_args.bin", "rng_state.pth", "rng_state_3.pth"),
        *("scaler.pt", "step-100-optimizer.pt", "optimizer-step-100.pt", "lr_scheduler.pt", "optim_0.pt"),
        *(".hidden.pt", ".cache/a.pt", "__pycache__/a.pt", "checkpoint-1/.git/a.pt"),
    ],
)
def test_what_lies_beside_the_weights_is_left_out(name: str) -> None:
    make("run/step-1.pt", f"run/{name}")
    found = list_entries(["run"])
    assert [entry.path for entry in found.entries] == ["run/step-1.pt"]
    assert not found.notes


@pytest.mark.parametrize("name", ["adam_optimizer_run2.pt", "optimizer_study.pt", "unscheduled.pt", "string.pt"])
def test_weights_that_speak_of_an_optimizer_are_listed(name: str) -> None:
    make(f"run/{name}")
    assert paths_of("run") == [f"run/{name}"]


def test_samdiags_own_eigenvectors_are_left_out() -> None:
    from safetensors.torch import save_file

    make("run/step-1.safetensors")
    save_file({"ritz_vectors": torch.ones(1, 2)}, "run/start.safetensors", {"format": "samdiag-ritz-vectors-1"})
    found = list_entries(["run"])
    assert [entry.path for entry in found.entries] == ["run/step-1.safetensors"]
    assert not found.notes


@pytest.mark.parametrize(
    "names",
    [
        ("config.json", "model.safetensors", "pytorch_model.bin", "extra.pt"),
        ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"),
        ("model.safetensors", "optimizer.bin"),
        ("adapter_config.json", "adapter_model.safetensors"),
        (".metadata", "__0_0.distcp"),
        ("__0_0.distcp",),
        ("mp_rank_00_model_states.pt", "zero_pp_rank_0_mp_rank_00_optim_states.pt"),
    ],
)
def test_a_folder_that_is_one_checkpoint_is_one_entry(names: tuple[str, ...]) -> None:
    make(*(f"run/checkpoint-{step}/{name}" for step in (200, 30) for name in names))
    assert paths_of("run") == ["run/checkpoint-30", "run/checkpoint-200"]
    assert list_entries(["run/checkpoint-30"]).entries == (Entry(path="run/checkpoint-30", step=30),)
    assert not list_entries(["run/checkpoint-30"]).many


def test_weights_called_as_hugging_face_calls_them_hide_no_others() -> None:
    make("run/model.safetensors", "run/step-1.safetensors", "run/sub/step-2.safetensors")
    assert paths_of("run") == ["run/step-1.safetensors", "run/model.safetensors", "run/sub/step-2.safetensors"]


def test_the_checkpoints_inside_a_trainers_final_weights_are_found_too() -> None:
    make("runs/out/config.json", "runs/out/model.safetensors", "runs/out/1_Pooling/pytorch_model.bin")
    make("runs/out/checkpoint-5/config.json", "runs/out/checkpoint-5/model.safetensors")
    assert sorted(paths_of("runs")) == ["runs/out", "runs/out/checkpoint-5"]


def test_the_blobs_of_a_hugging_face_cache_are_its_snapshots_and_nothing_else() -> None:
    make("models--x/blobs/0123abc")
    Path("models--x/snapshots/rev").mkdir(parents=True)
    Path("models--x/snapshots/rev/model.safetensors").symlink_to("../../blobs/0123abc")
    assert paths_of("models--x") == ["models--x/snapshots/rev"]


def test_links_are_not_followed_out_of_the_tree_and_loops_end() -> None:
    make("outside/step-3.pt", "run/step-1.pt")
    Path("run/loop").symlink_to(".")
    Path("run/again").symlink_to("..")
    Path("run/outside").symlink_to("../outside")
    Path("run/step-9.pt").symlink_to("../outside/step-3.pt")
    Path("run/gone.pt").symlink_to("nowhere.pt")
    found = list_entries(["run"])
    assert [entry.path for entry in found.entries] == ["run/step-1.pt", "run/gone.pt"]  # the last is a gap
    assert [note for note in found.notes if "run/step-9.pt" in note and "run/outside" in note and "links" in note]
    assert paths_of("run/**/*.pt") == ["run/step-1.pt", "run/step-9.pt", "run/gone.pt"]  # as the shell would


def test_a_link_beside_its_file_is_inspected_once_under_the_files_name() -> None:
    make("run/epoch=3-step=500.ckpt")
    Path("run/last.ckpt").symlink_to("epoch=3-step=500.ckpt")
    found = list_entries(["run"])
    assert [entry.path for entry in found.entries] == ["run/epoch=3-step=500.ckpt"]
    assert "run/last.ckpt (is run/epoch=3-step=500.ckpt)" in found.notes[0]


def test_a_pipe_is_never_opened() -> None:
    make("run/step-1.pt")
    os.mkfifo("run/step-2.pt")
    assert paths_of("run") == ["run/step-1.pt"]
    make("run/best/config.json", "run/best/model.safetensors")
    os.mkfifo("run/best/trainer_state.json")
    assert paths_of("run/best") == ["run/best"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_folder_that_cannot_be_read_is_listed_so_that_the_gap_is_seen() -> None:
    make("run/step-1.pt", "run/closed/step-2.pt")
    Path("run/closed").chmod(0)
    try:
        found = list_entries(["run"])
    finally:
        Path("run/closed").chmod(0o755)
    assert [entry.path for entry in found.entries] == ["run/step-1.pt", "run/closed"]


def test_a_folder_that_is_closed_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    make("run/step-1.pt", "run/closed/step-2.pt")
    scandir = os.scandir

    def refusing(path: str) -> Any:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    found = list_entries(["run"])
    assert [entry.path for entry in found.entries] == ["run/step-1.pt", "run/closed"]


def test_a_folder_with_nothing_in_it_says_so() -> None:
    Path("empty/inner").mkdir(parents=True)
    assert refusal("empty").what == "empty holds no checkpoint, nor does any folder in it"
    make("bad/a.pt", content=b"no weights")
    assert "bad/a.pt" in refusal("bad").what


@pytest.mark.parametrize(
    "names",
    [
        ("latest_checkpointed_iteration.txt", "iter_0000100/mp_rank_00/model_optim_rng.pt"),
        ("model_index.json", "unet/model.safetensors", "vae/model.safetensors"),
        ("saved_model.pb", "variables/variables.data-00000-of-00001"),
    ],
)
def test_a_folder_that_is_refused_by_name_is_one_entry(names: tuple[str, ...]) -> None:
    make(*(f"runs/a/{name}" for name in names), "runs/step-1.pt")
    assert sorted(paths_of("runs")) == ["runs/a", "runs/step-1.pt"]
    assert paths_of("runs/a") == ["runs/a"]


def test_a_folder_of_a_known_kind_gets_the_record_that_says_what_to_do() -> None:
    make("model/weights.gguf", content=b"GGUF")
    assert paths_of("model") == ["model"]


def test_an_empty_folder_among_others_becomes_a_record_with_its_error() -> None:
    make("a.pt")
    Path("empty").mkdir()
    assert paths_of("a.pt", "empty", "none*.pt") == ["a.pt", "empty", "none*.pt"]


# --- what is named


def test_a_file_that_is_named_is_listed_whatever_it_is() -> None:
    make("notes.txt", content=b"text")
    assert list_entries(["notes.txt"]).entries == (Entry(path="notes.txt"),)
    assert paths_of("missing.pt", "nul\0l") == ["missing.pt", "nul\0l"]
    assert not list_entries(["missing.pt"]).many


def test_nothing_named_is_a_mistake() -> None:
    assert "no checkpoint" in refusal().what


def test_a_path_named_twice_is_inspected_once() -> None:
    make("a.pt", "sub/b.pt")
    Path("link.pt").symlink_to("a.pt")
    found = list_entries(["link.pt", "a.pt", "./a.pt", "sub/../a.pt", os.path.abspath("a.pt"), "sub/b.pt"])
    assert [entry.path for entry in found.entries] == ["a.pt", "sub/b.pt"]
    assert len(found.notes) == 1
    assert "link.pt (is a.pt)" in found.notes[0]


def test_a_path_is_spelled_as_its_record_will_be() -> None:
    make("run/a.pt")
    assert paths_of("./run//a.pt") == ["run/a.pt"]
    assert paths_of("./run/") == ["run/a.pt"]


def test_a_folder_and_a_file_in_it_are_that_file_once() -> None:
    make("run/step-1.pt", "run/step-2.pt")
    assert paths_of("run/step-2.pt", "run") == ["run/step-1.pt", "run/step-2.pt"]


# --- globs


def test_a_glob_that_the_shell_left_alone_is_expanded() -> None:
    make("runs/a/last.pt", "runs/b/last.pt", "runs/b/first.pt")
    assert paths_of("runs/*/last.pt") == ["runs/a/last.pt", "runs/b/last.pt"]
    assert paths_of("runs/[b]/*.pt") == ["runs/b/first.pt", "runs/b/last.pt"]
    assert list_entries(["runs/[a]/*"]).many


def test_two_stars_stand_for_any_folders_and_no_link_is_followed() -> None:
    make("runs/a/b/c/last.pt", "runs/last.pt", "runs/.hidden/last.pt", "runs/a/step-1.pt")
    for name in ("one", "two", "three"):  # three loops: followed, they would never end
        Path(f"runs/a/{name}").symlink_to("..")
    assert paths_of("runs/**/last.pt") == ["runs/last.pt", "runs/a/b/c/last.pt"]
    assert paths_of("**/c/*.pt") == ["runs/a/b/c/last.pt"]
    assert sorted(paths_of("runs/**")) == sorted(paths_of("runs"))


def test_a_glob_leaves_out_what_is_no_checkpoint_but_keeps_what_is_called_one() -> None:
    make("run/step-1.pt", "run/config.yaml", "run/optimizer.pt")
    make("run/broken.pt", content=b"no weights")
    assert paths_of("run/*") == ["run/step-1.pt", "run/broken.pt"]


def test_a_glob_finds_folders_of_checkpoints() -> None:
    make("run1/step-1.pt", "run2/step-1.pt", "other/step-1.pt")
    make("run3/config.json", "run3/model.safetensors")
    assert paths_of("run*") == ["run3", "run1/step-1.pt", "run2/step-1.pt"]


def test_a_glob_that_matches_nothing_says_so() -> None:
    assert refusal("runs/*/last.pt").what == "runs/*/last.pt matches no checkpoint"


def test_a_file_whose_name_looks_like_a_glob_is_that_file() -> None:
    make("step[1].pt", "step1.pt")
    assert paths_of("step[1].pt") == ["step[1].pt"]


# --- lists in files


def test_a_list_of_lines_is_read_byte_by_byte() -> None:
    Path("list").write_bytes(b"b.pt\r\n\n  \na\xff.pt\nlast one.pt")
    found = list_entries([], files_from="list")
    assert [os.fsencode(entry.path) for entry in found.entries] == [b"b.pt", b"a\xff.pt", b"last one.pt"]
    assert found.many


def test_a_list_with_nul_may_hold_any_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"two\nlines.pt\0 b.pt\0")))
    assert paths_of(files_from="-", null=True) == ["two\nlines.pt", " b.pt"]


def test_names_in_a_list_are_neither_globs_nor_searched() -> None:
    make("run/step-1.pt")
    Path("list").write_text("run\n*.pt\n")
    assert paths_of(files_from="list") == ["run", "*.pt"]


def test_paths_and_a_list_are_one_list() -> None:
    make("step-1.pt", "step-2.pt")
    Path("list").write_text("step-1.pt\n")
    assert paths_of("step-2.pt", files_from="list") == ["step-1.pt", "step-2.pt"]


@pytest.mark.parametrize(
    ("content", "null", "said"),
    [(b"", False, "empty"), (b"\n \n", False, "empty"), (b"a\0b", False, "NUL"), (b"a\nb\n", True, "no NUL")],
)
def test_a_list_that_cannot_be_meant_is_a_mistake(content: bytes, null: bool, said: str) -> None:
    Path("list").write_bytes(content)
    assert said in refusal(files_from="list", null=null).what


def test_a_list_that_is_missing_is_a_mistake() -> None:
    assert "No such file" in refusal(files_from="none").what
    assert refusal("a.pt", null=True).todo == "add --files-from -"


# --- choosing


def names(*numbers: int, run: str = "run") -> list[str]:
    return [f"{run}/step-{number}.pt" for number in numbers]


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"every": 1}, (1, 2, 3, 4, 5, 6, 7, 8)),
        ({"every": 3}, (1, 4, 7, 8)),
        ({"every": 7}, (1, 8)),
        ({"every": 100}, (1, 8)),
        ({"last": 2}, (7, 8)),
        ({"last": 100}, (1, 2, 3, 4, 5, 6, 7, 8)),
        ({"last": 4, "every": 2}, (5, 7, 8)),
    ],
)
def test_every_and_last_choose_in_each_run(options: dict[str, int], kept: tuple[int, ...]) -> None:
    make(*names(*range(1, 9)), *names(5, 6, run="run2"))
    found = paths_of("run", "run2", **options)
    assert [path for path in found if path.startswith("run/")] == names(*kept)
    assert found[-1] == "run2/step-6.pt"


@pytest.mark.parametrize("option", ["every", "last"])
@pytest.mark.parametrize("value", [0, -1])
def test_a_choice_of_nothing_is_a_mistake(option: str, value: int) -> None:
    assert f"--{option} {value}" in refusal("a.pt", **{option: value}).what


@pytest.mark.parametrize(
    ("match", "kept"),
    [
        (["step-1*.pt"], ["a/step-1.pt", "a/step-10.pt", "b/step-1.pt"]),
        (["b/*"], ["b/step-1.pt"]),
        (["*/step-10.pt", "b/*"], ["a/step-10.pt", "b/step-1.pt"]),
        (["/step-1[.]/"], ["a/step-1.pt", "b/step-1.pt"]),
        (["a/**"], ["a/step-1.pt", "a/step-10.pt"]),
        (["/^b/"], ["b/step-1.pt"]),
    ],
)
def test_match_keeps_what_any_pattern_fits(match: list[str], kept: list[str]) -> None:
    make("a/step-1.pt", "a/step-10.pt", "b/step-1.pt")
    assert paths_of("a", "b", match=match) == kept


@pytest.mark.parametrize(("match", "said"), [("/(/", "regular expression"), ("", "nothing"), ("no*", "fits none")])
def test_a_pattern_that_keeps_nothing_is_a_mistake(match: str, said: str) -> None:
    make("a.pt")
    assert said in refusal("a.pt", match=[match]).what


def test_seeds_stand_beside_each_other() -> None:
    make("run/step-1.pt", "run/step-2.pt")
    found = list_entries(["run"], seeds=(0, 7))
    assert [(entry.step, entry.seed) for entry in found.entries] == [(1, 0), (1, 7), (2, 0), (2, 7)]
    assert list_entries(["run/step-1.pt"], seeds=(0, 1)).many


def test_a_seed_twice_is_a_mistake() -> None:
    assert "different" in refusal("a.pt", seeds=(1, 1)).what
    assert "-1" in refusal("a.pt", seeds=(-1,)).what


def test_listing_never_reads_a_file_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    make("run/step-1.pt", "run/checkpoint-2/model.safetensors")
    with open("run/step-1.pt", "ab") as file:
        file.truncate(2**40)  # a sparse terabyte
    monkeypatch.setattr(Content, "fingerprint", lambda _self: pytest.fail("hashed"))
    assert paths_of("run") == ["run/step-1.pt", "run/checkpoint-2"]


def test_listing_never_loads_torch() -> None:
    make("run/step-1.pt", "run/hf/model.safetensors")
    torch.save({"w": torch.zeros(1)}, "run/step-2.pt")
    code = (
        "import sys; from samdiag.fleet.listing import list_entries;"
        "print(len(list_entries(['run']).entries), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["3", "False"]
