"""As much of Slurm's command line as submitit uses, for one machine.

It is no Slurm: no queue, no nodes, no limits. Scripts are run by bash, at once, in the background.
State is kept in files under $FAKE_SLURM.
"""

from __future__ import annotations

import sys
from pathlib import Path

SBATCH = r"""
import os, re, subprocess, sys
from pathlib import Path
home = Path(os.environ["FAKE_SLURM"])
script = Path(sys.argv[-1]).read_text()
if "--partition=none" in script:
    sys.exit("sbatch: error: invalid partition specified: none")
(home / "script").write_text(script)
array = re.search(r"#SBATCH --array=0-(\d+)", script)
number = 100 + len(list(home.glob("job-*")))
(home / f"job-{number}").touch()
for task in range(int(array[1]) + 1) if array else [None]:
    name = str(number) if task is None else f"{number}_{task}"
    (home / f"state-{name}").write_text("RUNNING")
    env = {**os.environ, "SLURM_JOB_ID": str(number), "SLURM_NTASKS": "1", "SLURM_JOB_NUM_NODES": "1",
           "SLURM_NODEID": "0", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_JOB_NODELIST": "node"}
    if task is not None:
        env |= {"SLURM_ARRAY_JOB_ID": str(number), "SLURM_ARRAY_TASK_ID": str(task)}
    (home / f"run-{name}").write_text(script)
    run = f'bash "{home}/run-{name}" && s=COMPLETED || s=FAILED; printf $s > "{home}/state-{name}"'
    subprocess.Popen(["bash", "-c", run], env=env, stdin=subprocess.DEVNULL,
                     stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
print(f"Submitted batch job {number}")
"""
SRUN = r"""
import os, sys
words = sys.argv[1:]
number, task = os.environ["SLURM_JOB_ID"], os.environ.get("SLURM_ARRAY_TASK_ID", "")
def named(text):
    for sign, value in (("%A", number), ("%a", task), ("%j", number), ("%t", "0")):
        text = text.replace(sign, value)
    return text
while words[0].startswith("--"):
    option = words.pop(0)
    if option in ("--output", "--error"):
        descriptor = os.open(named(words.pop(0)), os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        os.dup2(descriptor, 1 if option == "--output" else 2)
os.execvp(words[0], words)
"""
SACCT = r"""
import os
from pathlib import Path
print("JobID|State|NodeList")
for path in sorted(Path(os.environ["FAKE_SLURM"]).glob("state-*")):
    print(f"{path.name.removeprefix('state-')}|{path.read_text()}|node")
"""


def install(folder: Path) -> None:
    """Writes the programs into `folder`, to be put on PATH."""
    for name, text in (("sbatch", SBATCH), ("srun", SRUN), ("sacct", SACCT)):
        (folder / name).write_text(f"#!{sys.executable}\n{text.lstrip()}")
        (folder / name).chmod(0o755)
