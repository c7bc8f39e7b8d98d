"""`samdiag inspect` over lists: what is written when, what one bad file does, gates and reports over all."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.fleet.checkpoints import write_run

NUMBER = 5


@pytest.fixture
def runs(work: Path) -> Path:
    """Four checkpoints of one run; a fifth is missing."""
    folder = work / "many"
    folder.mkdir()
    write_run(folder, NUMBER)
    (folder / "step-30.safetensors").unlink()
    return folder


@pytest.fixture
def junk(runs: Path) -> Path:
    """The fifth is there, and is no checkpoint."""
    (runs / "step-30.safetensors").write_bytes(b"junk, and no checkpoint")
    (runs / "tokens.bin").write_bytes(b"data")
    return runs


def test_a_list_has_a_line_each_and_a_summary(junk: Path, inspect: Run) -> None:
    ran = inspect("many")
    lines = ran.out.splitlines()
    assert ran.code == 3
    assert "verdict" in lines[0]
    of_one = [line for line in lines if line.startswith(("✔", "▲", "✖", "?")) and line.split()[-1].startswith("many/")]
    assert [line.split()[-1] for line in of_one] == [f"many/step-{step}.safetensors" for step in (10, 20, 30, 40, 50)]
    assert "1 of 5 checkpoints could not be decided" in ran.out
    assert "its first bytes are no header" in ran.out  # why, below its line


def test_a_folder_takes_what_is_called_a_checkpoint_and_a_gap_is_not_a_pass(junk: Path, inspect: Run) -> None:
    ran = inspect("many", "--format", "json")
    assert ran.code == 3
    assert [r["checkpoint"]["path"][10:12] for r in ran.reports] == ["10", "20", "30", "40", "50"]
    assert "many/tokens.bin" in ran.err  # said to be left out


def test_one_bad_file_is_a_record_with_its_error(junk: Path, inspect: Run) -> None:
    ran = inspect(*sorted(map(str, Path("many").glob("*.safetensors"))), "gone.pt", "--format", "json")
    failures = {r["checkpoint"]["path"]: r["failure"] for r in ran.reports}
    assert ran.code == 3
    assert len(failures) == NUMBER + 1
    assert failures["many/step-30.safetensors"]["exit_code"] == 3
    assert failures["gone.pt"]["exit_code"] == 2
    assert sum(f is None for f in failures.values()) == NUMBER - 1


@pytest.mark.parametrize(
    ("flags", "steps"),
    [
        (("--last", "2"), [40, 50]),
        (("--every", "2"), [10, 40, 50]),
        (("--match", "*step-[12]0*"), [10, 20]),
        (("--match", "/step-[45]0/"), [40, 50]),
        (("--shard", "2/2"), [20, 50]),
    ],
)
def test_parts_of_a_list(flags: tuple[str, ...], steps: list[int], runs: Path, inspect: Run) -> None:
    assert [r["checkpoint"]["step"] for r in inspect("many", "--format", "json", *flags).reports] == steps


def test_seeds(runs: Path, inspect: Run) -> None:
    ran = inspect("many/step-10.safetensors", "--seeds", "3,1", "--format", "json")
    assert [r["settings"]["measure.seed"]["value"] for r in ran.reports] == [3, 1]


@pytest.mark.parametrize("text", ["", "a", "1,1", "-1", "1.5", "9" * 30])
def test_seeds_that_are_none(text: str, runs: Path, inspect: Run) -> None:
    ran = inspect("many", "--seeds", text)
    assert ran.code == 2
    assert "--seeds" in ran.err


def test_each_is_the_full_report_of_each(runs: Path, inspect: Run) -> None:
    ran = inspect("many", "--last", "2", "--each")
    assert ran.out.count("Settings") == 2
    assert "2 checkpoints pass the gate" in ran.out


def test_quiet_and_very_quiet(runs: Path, inspect: Run) -> None:
    quiet = inspect("many", "--last", "1", "-q")
    assert quiet.err == ""
    assert "step-50" in quiet.out
    very = inspect("many", "--last", "1", "-qq")
    assert (very.out, very.err, very.code) == ("", "", quiet.code)


def test_resumed_records_are_not_made_again(runs: Path, inspect: Run) -> None:
    first = inspect("many", "--last", "2", "--resume", "all.jsonl")
    before = Path("all.jsonl").read_text().splitlines()
    second = inspect("many", "--resume", "all.jsonl")
    after = Path("all.jsonl").read_text().splitlines()
    assert (first.code, second.code) == (0, 0)
    assert after[:2] == before
    assert [json.loads(line)["checkpoint"]["step"] for line in after] == [40, 50, 10, 20]
    assert "2 of 4 record(s) were in all.jsonl already" in second.err
    assert [line.split()[-1] for line in second.out.splitlines() if " many/" in line][:4] == [
        f"many/step-{step}.safetensors" for step in (10, 20, 40, 50)
    ]  # the report is of all of them, in order


def test_other_settings_are_other_records(runs: Path, inspect: Run) -> None:
    inspect("many", "--last", "1", "--resume", "all.jsonl", "-qq")
    again = inspect("many", "--last", "1", "--resume", "all.jsonl", "--rho", "0.3", "-q")
    assert again.code == 0
    assert len(Path("all.jsonl").read_text().splitlines()) == 2


def test_the_ledger_is_no_second_output(runs: Path, inspect: Run) -> None:
    ran = inspect("many", "--resume", "a.jsonl", "--output", "./a.jsonl")
    assert ran.code == 2
    assert "both name" in ran.err


def test_json_of_a_list_into_a_file_is_written_record_by_record(runs: Path, inspect: Run) -> None:
    Path("out.jsonl").write_text("old\n")
    ran = inspect("many", "--format", "json", "--output", "out.jsonl")
    assert (ran.code, ran.out) == (0, "")
    assert [json.loads(line)["checkpoint"]["step"] for line in Path("out.jsonl").read_text().splitlines()] == [
        10,
        20,
        40,
        50,
    ]


def test_reports_beside_the_lines(runs: Path, inspect: Run) -> None:
    ran = inspect("many", "--report", "junit=out.xml", "--report", "markdown=out.md", "--require", "loss < -1")
    assert ran.code == 1
    suite = ET.parse("out.xml").getroot().find("testsuite")
    assert suite is not None
    assert (suite.get("tests"), suite.get("failures")) == ("4", "4")
    assert "4 of 4 checkpoints fail the gate" in Path("out.md").read_text()
    assert "loss < -1" in ran.out


@pytest.mark.parametrize("format", ["markdown", "junit", "github", "sarif"])
def test_whole_formats_on_stdout(format: str, runs: Path, inspect: Run) -> None:
    ran = inspect("many", "--format", format, "-q")
    assert ran.code == 0
    assert ran.out.strip()
    assert ran.err == ""


def test_the_step_summary_of_github(runs: Path, inspect: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("summary.md").write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "summary.md")
    assert inspect("many", "--last", "1", "--format", "github", "-q").code == 0
    text = Path("summary.md").read_text()
    assert text.startswith("before\n")
    assert "1 checkpoint passes the gate" in text


# ---------------------------------------------------------------- gates


@pytest.mark.parametrize(
    ("require", "code"),
    [("loss < 1e9", 0), ("loss < -1", 1), ("lambda_max < 1e9 and loss > 1e9", 1), ("jacobian_zero < 1", 3)],
)
def test_requirements(require: str, code: int, runs: Path, inspect: Run) -> None:
    ran = inspect("many/step-10.safetensors", "--require", require)
    assert ran.code == code
    assert (require in ran.out) == (code != 0)


def test_requirements_from_the_environment(runs: Path, inspect: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAMDIAG_REQUIRE", "loss < 1e9; loss < -1")
    ran = inspect("many/step-10.safetensors")
    assert ran.code == 1
    assert "loss < -1" in ran.out


def test_a_requirement_that_is_none(runs: Path, inspect: Run) -> None:
    ran = inspect("many", "--require", "lamda_max < 1")
    assert ran.code == 2
    assert "lambda_max" in ran.err
    assert ran.out == ""


def test_what_the_baseline_has_does_not_fail(runs: Path, inspect: Run) -> None:
    arguments = ("many", "--require", "loss < -1", "--baseline", "base.json")
    assert inspect("many", "--require", "loss < -1").code == 1
    assert inspect(*arguments).code == 2  # there is none yet
    assert inspect(*arguments, "--update-baseline").code == 0
    accepted = inspect(*arguments)
    assert accepted.code == 0
    assert "accepted by the baseline" in accepted.out
    assert inspect(*arguments, "--require", "loss < -2").code == 1


def test_update_baseline_needs_its_file(runs: Path, inspect: Run) -> None:
    ran = inspect("many", "--update-baseline")
    assert ran.code == 2
    assert "--baseline" in ran.err


def test_strict_spec_leaves_a_checkpoints_own_word_open(runs: Path, inspect: Run) -> None:
    assert inspect("many/step-10.safetensors").code == 0
    ran = inspect("many/step-10.safetensors", "--strict-spec")
    assert ran.code == 3
    assert "rho" in ran.out


@pytest.mark.parametrize(
    "flags",
    [
        ("--report", "junit"),
        ("--report", "junti=x"),
        ("--format", "yaml"),
        ("--shard", "0/2"),
        ("--workers", "0"),
        ("--every", "0"),
        ("--last", "-1"),
        ("--each", "--format", "json"),
        ("--match", "nothing-like-it"),
        ("--files-from", "gone.txt"),
    ],
)
def test_flags_that_cannot_be(flags: tuple[str, ...], runs: Path, inspect: Run) -> None:
    ran = inspect("many", *flags)
    assert ran.code == 2
    assert ran.out == ""
    assert len(ran.err.splitlines()) >= 2


def test_nothing_to_inspect(work: Path, inspect: Run) -> None:
    ran = inspect()
    assert ran.code == 2
    Path("empty").mkdir()
    assert inspect("empty").code == 2


def test_warm_starts_in_a_file_are_for_one_process(runs: Path, inspect: Run) -> None:
    ran = inspect("many", "--workers", "2", "--warm-start", "vectors.safetensors")
    assert ran.code == 2
    assert "neighbour" in ran.err


def test_no_name_is_a_command_of_the_runner(runs: Path, inspect: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    (runs / "##[error]x.safetensors").write_bytes(b"junk")
    (runs / "::error::y.pt").write_bytes(b"junk")
    for more in ((), ("--each",)):
        ran = inspect("many", *more)
        said = ran.out + ran.err
        assert ran.code == 3
        assert "error]x.safetensors" in said
        assert "##[" not in said
        assert not [line for line in said.splitlines() if line.lstrip().startswith("::")]


def test_the_list_alone(runs: Path, inspect: Run) -> None:
    (runs / "step-5\nodd.safetensors").write_bytes(b"junk")
    lines = inspect("many", "--last", "2", "--match", "*step-?0.*", "--list")
    assert (lines.code, lines.out) == (0, "many/step-40.safetensors\nmany/step-50.safetensors\n")
    refused = inspect("many", "--list")
    assert refused.code == 2
    assert "-0" in refused.err
    nul = inspect("many", "--list", "-0")
    assert nul.out.split("\0")[:2] == ["many/step-5\nodd.safetensors", "many/step-10.safetensors"]
    Path("list").write_text(nul.out)
    again = inspect("--files-from", "list", "-0", "--shard", "2/2", "--format", "json")
    assert [r["checkpoint"]["step"] for r in again.reports] == [10, 40]


def test_a_failed_gate_outranks_a_report_that_cannot_be_written(runs: Path, inspect: Run) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    fails = ("many", "--last", "1", "--require", "loss < -1")
    assert inspect(*fails, "--report", "junit=/dev/full").code == 1
    assert inspect("many", "--last", "1", "--report", "junit=/dev/full").code == 3
    assert inspect(*fails, "--output", "/dev/full").code == 1


def test_a_checkpoint_inside_a_checkpoints_folder_is_said(work: Path, inspect: Run) -> None:
    for folder in ("hf/run", "hf/run/epoch-3"):
        Path(folder).mkdir(parents=True)
        Path(folder, "config.json").write_text("{}")
        write_run(Path(folder), 1)
        Path(folder, "step-10.safetensors").rename(Path(folder, "model.safetensors"))
    for named in ("hf", "hf/run"):
        ran = inspect(named, "--list")
        assert ran.out == "hf/run\n"
        assert "hf/run/epoch-3" in ran.err


def test_an_empty_path_is_no_folder(work: Path, inspect: Run) -> None:
    ran = inspect("")
    assert ran.code == 2
    assert "an empty path" in ran.err
