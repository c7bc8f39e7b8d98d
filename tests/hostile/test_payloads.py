"""The attacks are real: what samdiag refuses does run where somebody unpickles it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.hostile.opcodes import alone
from tests.hostile.payloads import WORKING

RUN = """
import pickle, sys, contextlib
for path in sys.argv[1:]:
    with contextlib.suppress(BaseException):
        pickle.load(open(path, "rb"))
"""


@pytest.mark.slow
def test_every_payload_runs_in_the_stock_unpickler(tmp_path: Path) -> None:
    files = []
    for number, payload in enumerate(WORKING.values()):
        files.append(tmp_path / f"{number}.pkl")
        files[-1].write_bytes(alone(payload(tmp_path / f"{number}.marker")))
    subprocess.run([sys.executable, "-c", RUN, *map(str, files)], check=True, capture_output=True, timeout=300)
    silent = [name for number, name in enumerate(WORKING) if not (tmp_path / f"{number}.marker").exists()]
    assert silent == []
