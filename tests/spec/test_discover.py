"""Where settings come from: command line, --config, project file, sidecar."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from samdiag.errors import UsageError
from samdiag.formats import Checkpoint
from samdiag.spec import resolve
from samdiag.types import Shadowed, Trust

PROBLEM = 'problem = "train:problem"\n'
OWN = "samdiag.toml"


def test_every_origin_in_its_order(folder: Path, stamped: Checkpoint, resolved) -> None:
    (folder / OWN).write_text(PROBLEM + "[sam]\nrho = 0.3\n")
    (folder / "runs" / "a.safetensors.samdiag.toml").write_text("[sam]\nrho = 0.4\n")
    setting = resolved(stamped, {"sam.rho": 0.1}, "sam.rho = 0.2").settings["sam.rho"]
    assert (setting.value, setting.source, setting.trust) == (0.1, "command line", Trust.CLI)
    assert setting.shadowed == (
        Shadowed(value=0.2, source="--config"),
        Shadowed(value=0.3, source="samdiag.toml"),
        Shadowed(value=0.4, source="sidecar a.safetensors.samdiag.toml"),
        Shadowed(value=0.07, source="stamp in the checkpoint"),
    )


def test_defaults(resolved) -> None:
    settings = resolved(None, {"problem": "a:b", "sam.rho": None}).settings
    assert not {"sam.rho", "sam.lr", "sam.batch_size"} & settings.keys()
    assert {name: setting.value for name, setting in settings.items() if setting.trust is Trust.DEFAULT} == {
        "sam.variant": "sam",
        "sam.momentum": 0.0,
        "sam.nesterov": False,
        "sam.dampening": 0.0,
        "sam.weight_decay": 0.0,
        "sam.weight_decay_in": "update",
        "measure.mode": "eval",
        "measure.jacobian": "auto",
        "measure.samples": 2048,
        "measure.seed": 0,
        "measure.device": "auto",
        "measure.dtype": "auto",
        "measure.tol": 0.01,
        "measure.num_eigenvalues": 5,
        "gate.fail_on": None,
        "gate.require": None,
        "gate.strict_spec": False,
        "weights": "raw",
    }


def test_bad_override_names_the_command_line(resolved) -> None:
    with pytest.raises(UsageError, match=r"sam\.rho = -1 \(command line\)"):
        resolved(None, {"problem": "a:b", "sam.rho": -1})


def test_a_stamped_checkpoint_needs_nothing_else(stamped: Checkpoint, resolved) -> None:
    settings = resolved(stamped).settings
    assert settings["model"].value == {"gallery": "tiny", "args": {}}
    assert settings["sam.rho"].value == 0.07


def test_without_any_spec_the_lines_to_add_are_shown(checkpoint: Checkpoint, resolved) -> None:
    with pytest.raises(UsageError) as caught:
        resolved(checkpoint)
    assert caught.value.exit_code == 2
    assert 'problem = "train:problem"' in caught.value.todo


def test_the_project_file_is_found_upward(folder: Path) -> None:
    (folder / OWN).write_text(PROBLEM + 'pythonpath = ["src"]\n')
    (folder / "src").mkdir()
    deep = folder / "a" / "b"
    deep.mkdir(parents=True)
    resolution = resolve(overrides={}, config=None, checkpoint=None, cwd=deep)
    setting = resolution.settings["problem"]
    assert (setting.source, setting.trust) == (os.path.join("..", "..", OWN), Trust.PROJECT)
    assert resolution.pythonpath == (folder / "src",)
    assert resolution.places["problem"].folder == folder
    assert not resolution.places["problem"].importable


def test_the_nearest_project_file_alone_is_read(folder: Path, resolved) -> None:
    (folder / OWN).write_text("[sam]\nrho = 0.3\nlr = 0.1\n")
    (folder / "a").mkdir()
    (folder / "a" / OWN).write_text(PROBLEM + "[sam]\nrho = 0.4\n")
    settings = resolve(overrides={}, config=None, checkpoint=None, cwd=folder / "a").settings
    assert settings["sam.rho"].shadowed == ()
    assert "sam.lr" not in settings


def test_the_search_ends_at_git_and_at_home(folder: Path, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / OWN).write_text(PROBLEM)
    with pytest.raises(UsageError, match="nothing says"):
        resolve(overrides={}, config=None, checkpoint=None, cwd=folder)
    inner = tmp_path / "home" / "inner"
    inner.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    with pytest.raises(UsageError, match="nothing says"):
        resolve(overrides={}, config=None, checkpoint=None, cwd=inner)
    monkeypatch.setenv("HOME", str(tmp_path / "elsewhere"))
    assert "problem" in resolve(overrides={}, config=None, checkpoint=None, cwd=inner).settings


def test_pyproject_with_the_table(folder: Path, resolved) -> None:
    (folder / "pyproject.toml").write_text('[tool.samdiag]\nproblem = "train:problem"\n[tool.samdiag.sam]\nrho = 0.2\n')
    setting = resolved(None).settings["sam.rho"]
    assert (setting.value, setting.source) == (0.2, "pyproject.toml")
    (folder / OWN).write_text(PROBLEM)
    assert "sam.rho" not in resolved(None).settings


@pytest.mark.parametrize("text", ['[project]\nname = "samdiag"\n', "", "[tool.other]\nx = 1\n", "broken = = toml"])
def test_pyproject_of_another_concern_is_passed_over(folder: Path, text: str) -> None:
    (folder / "a").mkdir()
    (folder / "a" / "pyproject.toml").write_text(text)
    (folder / OWN).write_text(PROBLEM)
    assert "problem" in resolve(overrides={}, config=None, checkpoint=None, cwd=folder / "a").settings


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        (OWN, b"a = = 1", "not valid TOML"),
        ("pyproject.toml", b"[tool.samdiag\n", "not valid TOML"),
        (OWN, b"\xff\xfe", "not UTF-8"),
        (OWN, b"#" * 1_000_001, "larger than"),
        (OWN, b'pythonpath = ["nowhere"]', "no such folder"),
        (OWN, b"modle = 1", "did you mean 'model'"),
    ],
)
def test_broken_project_files(folder: Path, resolved, name: str, content: bytes, what: str) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(UsageError, match=what) as caught:
        resolved(None)
    assert name in caught.value.what


def pretend_foreign(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes `path` another user's, with or without the right to give files away."""
    if os.geteuid() == 0:
        os.chown(path, 12345, -1, follow_symlinks=False)
    else:
        monkeypatch.setattr(os, "getuid", lambda: path.lstat().st_uid + 1)


def test_a_foreign_project_file_is_refused(folder: Path, resolved, monkeypatch) -> None:
    (folder / OWN).write_text(PROBLEM)
    pretend_foreign(folder / OWN, monkeypatch)
    with pytest.raises(UsageError, match="belongs to another user") as caught:
        resolved(None)
    assert "--config" in caught.value.todo


def test_a_foreign_link_to_an_own_file_is_refused(folder: Path, resolved, monkeypatch) -> None:
    (folder / "real.toml").write_text(PROBLEM)
    (folder / OWN).symlink_to(folder / "real.toml")
    pretend_foreign(folder / OWN, monkeypatch)
    with pytest.raises(UsageError, match="belongs to another user"):
        resolved(None)


def test_a_file_that_everybody_may_write_is_refused(folder: Path, resolved) -> None:
    (folder / OWN).write_text(PROBLEM)
    (folder / OWN).chmod(0o666)
    with pytest.raises(UsageError, match="everybody may write to it"):
        resolved(None)


def test_a_folder_that_everybody_may_write_is_refused(folder: Path, resolved, monkeypatch) -> None:
    (folder / OWN).write_text(PROBLEM)
    folder.chmod(0o777)
    with pytest.raises(UsageError, match="folder that everybody may write to"):
        resolved(None)
    folder.chmod(0o1777)  # sticky, like /tmp: others cannot replace one's own file
    assert "problem" in resolved(None).settings
    monkeypatch.setattr(os, "getuid", lambda: 54321)  # where the file is root's or another's
    with pytest.raises(UsageError, match="refused"):
        resolved(None)


def test_naming_a_refused_file_is_the_way_out(folder: Path, resolved) -> None:
    (folder / OWN).write_text(PROBLEM)
    (folder / OWN).chmod(0o666)
    resolution = resolved(None, config=OWN)
    assert resolution.settings["problem"].trust is Trust.CLI
    assert any("refused" in warning for warning in resolution.warnings)


def test_config_is_a_file_or_toml(folder: Path, resolved) -> None:
    (folder / "conf").mkdir()
    (folder / "conf" / "my.toml").write_text(PROBLEM + 'pythonpath = ["."]\n')
    from_file = resolved(None, config="conf/my.toml")
    assert from_file.settings["problem"].source == "--config conf/my.toml"
    assert from_file.pythonpath == (folder / "conf",)
    assert from_file.places["problem"].folder == folder / "conf"
    inline = resolved(None, config='model.gallery="tiny"\ndata.gallery="tiny-data"\nloss="mse"')
    assert inline.settings["model"].trust is Trust.CLI
    (folder / "pyproject.toml").write_text('[project]\nname = "x"\n[tool.samdiag]\nproblem = "a:b"\n')
    assert resolved(None, config="pyproject.toml").settings["problem"].value == "a:b"


@pytest.mark.parametrize("config", ["nowhere.toml", "x" * 5000, "a\0b", ""])
def test_config_that_is_neither(resolved, config: str) -> None:
    with pytest.raises(UsageError, match="neither a file nor TOML"):
        resolved(None, config=config)


def test_sidecar_is_an_artifact(folder: Path, checkpoint: Checkpoint, resolved) -> None:
    sidecar = folder / "runs" / "a.safetensors.samdiag.toml"
    sidecar.write_text('model = "tiny"\ndata = "tiny-data"\nloss = "cross_entropy"\n[measure]\ntol = 0.5\n')
    resolution = resolved(checkpoint)
    assert resolution.settings["model"].trust is Trust.ARTIFACT
    assert resolution.settings["measure.tol"].value == 0.01
    assert any("measure.tol" in warning for warning in resolution.warnings)
    sidecar.write_text(PROBLEM)
    with pytest.raises(UsageError, match=r"a\.safetensors\.samdiag\.toml names code"):
        resolved(checkpoint)


def test_a_broken_sidecar_does_not_stand_in_the_users_way(folder: Path, checkpoint: Checkpoint, resolved) -> None:
    (folder / "runs" / "a.safetensors.samdiag.toml").write_text("= broken")
    with pytest.raises(UsageError, match="not valid TOML"):
        resolved(checkpoint)
    resolution = resolved(checkpoint, {"problem": "a:b"})
    assert any("not valid TOML" in warning for warning in resolution.warnings)


def test_a_project_file_beside_the_checkpoint_is_not_looked_for(folder: Path, checkpoint: Checkpoint, resolved) -> None:
    (folder / "runs" / OWN).write_text(PROBLEM)
    with pytest.raises(UsageError, match="nothing says"):
        resolved(checkpoint)
