"""0, 1, 2, 3 and which outranks which, each from a real run; 130 is in test_processes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import HONEST, Run, save

A = "runs/a.safetensors"
STUCK = ("stuck.safetensors", "--rho", "0.6", "--variant", "usam", "--lr", "0.01", "--problem", "problems.py:saddle")


@pytest.fixture
def stuck(work: Path) -> Path:
    """A checkpoint at a saddle that attracts: an error."""
    return save({"w": [0.0, 0.0]}, work / "stuck.safetensors")


@pytest.fixture
def mixed(stuck: Path) -> Path:
    """A project that judges stuck.safetensors, and beside it a file that is none."""
    Path("junk.safetensors").write_bytes(b"junk")
    save({"v": [0.0]}, "other.safetensors")
    save({"w": [2.0, 1.0]}, "moving.safetensors")
    Path("samdiag.toml").write_text(
        'problem = "problems.py:saddle"\n[sam]\nrho = 0.6\nvariant = "usam"\nlr = 0.01\n', encoding="utf-8"
    )
    return stuck


def test_healthy_is_0(work: Path, inspect: Run) -> None:
    assert inspect(A, *HONEST).code == 0


def test_an_error_is_1(stuck: Path, inspect: Run) -> None:
    ran = inspect(*STUCK)
    assert ran.code == 1
    assert "saddle-attraction" in ran.out
    assert ran.err == ""


@pytest.mark.parametrize(
    ("files", "more", "code"),
    [
        ("stuck", (), 1),
        ("moving", (), 0),
        ("junk", (), 3),
        ("gone", (), 2),
        ("other", (), 2),
        ("stuck junk", (), 1),
        ("junk stuck", (), 1),
        ("gone stuck", (), 1),
        ("junk moving", (), 3),
        ("moving gone", (), 3),
        ("gone other", (), 2),
        ("gone junk", (), 3),
        ("moving moving", (), 0),
        ("stuck moving", ("--fail-on", "never"), 0),
        ("stuck junk", ("--fail-on", "never"), 3),
        ("stuck", ("--fail-on", "minimum,bounce"), 0),
        ("stuck", ("--fail-on", "bounce, saddle-attraction"), 1),
        ("moving", ("--fail-on", "any"), 0),
        ("moving", ("--fail-on", "descending,saddle-escaping"), 1),
        ("stuck", ("--fail-on", "any"), 1),
    ],
)
def test_precedence(files: str, more: tuple[str, ...], code: int, mixed: Path, inspect: Run) -> None:
    ran = inspect(*(f"{name}.safetensors" for name in files.split()), *more)
    assert ran.code == code, ran.out + ran.err


def test_one_bad_file_does_not_stop_the_rest(mixed: Path, inspect: Run) -> None:
    ran = inspect("junk.safetensors", "gone.safetensors", "stuck.safetensors", "moving.safetensors", "--format", "json")
    assert ran.code == 1
    assert [bool(report["failure"]) for report in ran.reports] == [True, True, False, False]
    assert [report["checkpoint"]["path"].split(".")[0] for report in ran.reports] == ["junk", "gone", "stuck", "moving"]
    assert [line.split()[1] for line in ran.err.splitlines() if line.startswith("samdiag: ")] == [
        "junk.safetensors",
        "gone.safetensors",
    ]


def test_undecided_is_3(work: Path, inspect: Run) -> None:
    save({"w": [0.0, 0.0]}, "point.safetensors")
    marginal = ("--rho", "0.5", "--variant", "usam", "--lr", "0.01", "--problem", "problems.py:saddle")
    ran = inspect("point.safetensors", *marginal)
    assert ran.code == 3
    assert "undecided" in ran.out
    assert inspect("point.safetensors", *marginal, "--fail-on", "undecided").code == 1


@pytest.mark.parametrize(
    ("gate", "code"), [('["bounce"]', 0), ('["saddle-attraction"]', 1), ('"never"', 0), ('"any"', 1)]
)
def test_the_gate_of_the_project_file(gate: str, code: int, mixed: Path, inspect: Run) -> None:
    with Path("samdiag.toml").open("a") as file:
        file.write(f"[gate]\nfail_on = {gate}\n")
    assert inspect("stuck.safetensors").code == code
    assert inspect("stuck.safetensors", "--fail-on", "saddle-attraction").code == 1  # the command line is nearer
    assert inspect("stuck.safetensors", "--fail-on", "never").code == 0


def test_a_sidecar_has_no_say_in_the_gate(mixed: Path, inspect: Run) -> None:
    Path("stuck.safetensors.samdiag.toml").write_text('[gate]\nfail_on = ["never"]\n[measure]\nseed = 7\n')
    ran = inspect("stuck.safetensors", "--format", "json")
    assert ran.code == 1
    assert any("measure.seed, gate.fail_on: ignored" in warning for warning in ran.report["warnings"])
    assert ran.report["settings"]["measure.seed"]["value"] == 0


GATE = "one reader of --fail-on accepts what the other refuses"


@pytest.mark.parametrize(
    ("gate", "code"),
    [
        ("any,minimum", 1),
        ("Saddle-Attraction", 1),
        ("saddle-attraction,", 1),
        ("", 2),
    ],
)
def test_gates_that_the_parser_of_the_flag_defines(gate: str, code: int, stuck: Path, inspect: Run) -> None:
    assert inspect(*STUCK, "--fail-on", gate).code == code
