"""Every file of docs/ci: it parses, and what it runs does what it says."""

from __future__ import annotations

import json
import re
import shutil
import stat
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from .conftest import FILES, ROOT, Shell

ELSEWHERE = ("pip install", "python3 -m venv", "gh pr comment")  # what needs a network; samdiag is here already
PASSING = "checkpoints/step_100.safetensors", "checkpoints/step_200.safetensors"
STUCK = "checkpoints/step_300.safetensors"


def document(name: str) -> dict[str, Any]:
    found = yaml.safe_load((FILES / name).read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found


def cases(path: Path) -> dict[str, list[str]]:
    """Test case → what it holds beside its output."""
    root = ElementTree.parse(path).getroot()
    return {
        str(case.get("name")): [child.tag for child in case if child.tag != "system-out"]
        for case in root.iter("testcase")
    }


def verdicts(path: Path) -> dict[str, str]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return {record["checkpoint"]["path"]: record["verdict"] for record in map(json.loads, lines)}


def here(steps: list[str]) -> list[str]:
    """The steps that can be run here; there is at least one."""
    found = [step for step in steps if not step.startswith(ELSEWHERE)]
    assert found
    assert all("samdiag" in step for step in found)
    return found


def test_github_actions(project: Path, shell: Shell, tmp_path: Path) -> None:
    steps = document("github-actions.yml")["jobs"]["diagnose"]["steps"]
    (script,) = here([step["run"] for step in steps if "run" in step])
    variables = {"GITHUB_ACTIONS": "true", "CI": "true", "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md")}
    ran = shell(script, command=("bash", "-e", "-c"), **variables)
    assert ran.returncode == 1, ran.stderr
    assert ran.stdout.startswith(f"::error file={STUCK},title={STUCK}%3A saddle-attraction::")
    assert all(line.startswith("::") for line in ran.stdout.splitlines())
    assert cases(project / "samdiag.xml") == {**{key: [] for key in PASSING}, STUCK: ["failure"]}
    comment = (project / "samdiag.md").read_text(encoding="utf-8")
    assert comment.startswith("### ✖ samdiag: 1 of 3 checkpoints fails the gate")
    assert (tmp_path / "summary.md").read_text(encoding="utf-8") == comment
    (project / STUCK).unlink()  # the next push
    again = shell(script, command=("bash", "-e", "-c"), **variables)
    assert again.returncode == 0, again.stderr
    assert "2 of 2 record(s) were in samdiag.jsonl already" in again.stderr
    assert cases(project / "samdiag.xml") == {key: [] for key in PASSING}


@pytest.mark.slow
def test_gitlab_ci(project: Path, shell: Shell) -> None:
    jobs = document("gitlab-ci.yml")
    (diagnose,), gates = here(jobs["samdiag"]["script"]), here(jobs["samdiag-gate"]["script"])
    gate = "\n".join(gates)
    for index in ("1", "2"):
        if index == "2":  # one of the jobs died before it wrote anything
            assert "have no record" in (early := shell(gate, CI="true")).stderr
            assert early.returncode in {1, 3}
        ran = shell(diagnose, CI="true", CI_NODE_INDEX=index, CI_NODE_TOTAL="2")
        assert ran.returncode == 0, ran.stderr
    ran = shell(gate, CI="true")
    assert ran.returncode == 1, ran.stderr
    assert list(verdicts(project / "samdiag.jsonl")) == [*PASSING, STUCK]
    assert cases(project / "samdiag.xml") == {**{key: [] for key in PASSING}, STUCK: ["failure"]}
    kept = jobs["samdiag-gate"]["artifacts"]
    assert all((project / name).is_file() for name in (*kept["paths"], kept["reports"]["junit"]))


@pytest.mark.slow
def test_jenkins(project: Path, shell: Shell) -> None:
    text = (FILES / "Jenkinsfile").read_text(encoding="utf-8")
    scripts = [long or short for long, short in re.findall(r"sh\b[^'\n]*(?:'''(.*?)'''|'([^']*)')", text, re.DOTALL)]
    (script,) = here([script.strip().replace("\\\n", "") for script in scripts])
    assert text.count("{") == text.count("}")
    ran = shell(script, command=("sh", "-xe", "-c"), WORKSPACE=str(project), BUILD_NUMBER="7")
    assert ran.returncode == 1, ran.stderr
    assert cases(project / "samdiag.xml")[STUCK] == ["failure"]
    for name in re.findall(r"samdiag\.\w+", text[text.index("post {") :]):
        assert (project / name).is_file()
    stuck = project / STUCK
    stuck.write_bytes(stuck.read_bytes()[:-4])  # cut short
    ran = shell(script, command=("sh", "-xe", "-c"), WORKSPACE=str(project), BUILD_NUMBER="8")
    assert ran.returncode == 3, ran.stderr
    assert cases(project / "samdiag.xml")[STUCK] == ["error"]


SBATCH = """\
#!/bin/bash
# Runs at once what Slurm would queue: two tasks of an array, or one job.
echo "$@" >> sbatch.log
script=${!#}
if grep -q '^#SBATCH --array' "$script"; then
    for task in 1 2; do
        SLURM_ARRAY_TASK_ID=$task SLURM_ARRAY_TASK_COUNT=2 bash "$script" >&2
        echo "task $task: $?" >> sbatch.log
    done
    echo "42;cluster"
else
    bash "$script" >&2
    echo "gate: $?" >> sbatch.log
fi
"""


@pytest.mark.slow
def test_slurm(project: Path, shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "sbatch").write_text(SBATCH, encoding="utf-8")
    (tmp_path / "bin" / "sbatch").chmod(0o755)
    ran = shell(f"{FILES}/slurm-submit.sh checkpoints results")
    assert ran.returncode == 0, ran.stderr
    log = (project / "sbatch.log").read_text(encoding="utf-8").splitlines()
    assert [line for line in log if ": " in line] == ["task 1: 0", "task 2: 0", "gate: 1"]
    assert "--dependency=afterany:42 " in log[-2]
    assert list(verdicts(project / "results" / "all.jsonl")) == [*PASSING, STUCK]
    assert cases(project / "results" / "samdiag.xml")[STUCK] == ["failure"]
    assert (project / "results" / "samdiag.txt").read_text(encoding="utf-8").count("\n✖ saddle-attraction") == 1


@pytest.mark.slow
def test_slurm_epilogue(project: Path, shell: Shell) -> None:
    ran = shell(f"{FILES}/slurm-epilog.sh", RUN="checkpoints", SLURM_JOB_ID="42")
    assert ran.returncode == 1, ran.stderr
    assert verdicts(project / "checkpoints" / "samdiag.jsonl") == {STUCK: "saddle-attraction"}
    assert "saddle-attraction" in (project / "checkpoints" / "samdiag.md").read_text(encoding="utf-8")


def test_shell_scripts_can_be_run() -> None:
    for path in FILES.glob("*.sh"):
        assert path.stat().st_mode & stat.S_IXUSR
        assert path.read_text(encoding="utf-8").startswith("#!/bin/bash\n")


GIT = "git -c init.defaultBranch=main -c user.name=a -c user.email=a@example.org"


@pytest.mark.slow
@pytest.mark.parametrize("hook", ["local", "samdiag"])
def test_pre_commit(hook: str, project: Path, shell: Shell, tmp_path: Path) -> None:
    """With the real pre-commit: the example's own hook, and the one that comes with samdiag."""
    pytest.importorskip("pre_commit")
    config = (FILES / "pre-commit-config.yaml").read_text(encoding="utf-8")
    if hook == "samdiag":
        revision = _repository(tmp_path / "samdiag", shell)
        config = config[config.index("# Or,") :].partition("\n")[2].replace("\n# ", "\n ").replace("# ", " ", 1)
        config = f"repos:\n{config}".replace("https://example.org/samdiag", str(tmp_path / "samdiag"))
        config = config.replace("v0.1.0", revision)
    (project / ".pre-commit-config.yaml").write_text(config, encoding="utf-8")
    (project / ".gitignore").write_text(".samdiag.jsonl*\n", encoding="utf-8")
    run = f"{GIT} init -q . && git add . && pre-commit run --color never"
    ran = shell(run, PRE_COMMIT_HOME=str(tmp_path / "cache"))
    assert ran.returncode == 1, ran.stdout + ran.stderr
    assert "saddle-attraction" in ran.stdout
    ran = shell(f"git rm -qf {STUCK} && {run}", PRE_COMMIT_HOME=str(tmp_path / "cache"))
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "Passed" in ran.stdout


def _repository(folder: Path, shell: Shell) -> str:
    """A repository that offers samdiag's hooks; its revision."""
    folder.mkdir()
    shutil.copy(ROOT / ".pre-commit-hooks.yaml", folder)
    ran = shell(f"cd {folder} && {GIT} init -q . && git add -A && {GIT} commit -qm hooks && git rev-parse HEAD")
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


def test_the_hooks_are_what_pre_commit_takes() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
    assert [hook["id"] for hook in hooks] == ["samdiag", "samdiag-isolated"]
    for hook in hooks:
        assert hook["entry"] == "samdiag inspect"
        assert re.search(hook["files"], STUCK)


@pytest.mark.slow
def test_the_gates_of_the_page(project: Path, shell: Shell) -> None:
    page = (FILES / "README.md").read_text(encoding="utf-8")
    block = re.search(r"```sh\n(.*?)```", page, re.DOTALL)
    assert block is not None
    commands = block[1].splitlines()
    assert len(commands) == 6
    codes = [shell(command).returncode for command in commands]
    assert codes == [1, 1, 1, 0, 0, 1]  # accepted from --update-baseline on, as far as a baseline is asked for


def test_every_file_is_explained() -> None:
    page = (FILES / "README.md").read_text(encoding="utf-8")
    for path in FILES.iterdir():
        assert path.name == "README.md" or f"]({path.name})" in page
