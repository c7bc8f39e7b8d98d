from __future__ import annotations

import json
import subprocess
import sys

import pytest

from samdiag.errors import UsageError
from samdiag.registry import load
from samdiag.reports.media import MEDIA, medium
from tests.hostile.printing import PRINTED

from .fleet_samples import fleet, hostile_outcomes


@pytest.mark.parametrize("name", MEDIA)
def test_every_medium_renders(name: str) -> None:
    shown = medium(name).render(fleet(), missing=1)
    assert "epoch_20.pt" in shown
    assert not shown.endswith("\n")
    assert callable(load(MEDIA[name].whole))


@pytest.mark.parametrize("name", MEDIA)
@pytest.mark.parametrize("payload", PRINTED.values(), ids=PRINTED)
def test_every_medium_can_be_written_and_printed(name: str, payload: str) -> None:
    shown = medium(name).render(hostile_outcomes(payload))
    shown.encode("utf-8")
    assert not {c for c in shown if c != "\n" and not c.isprintable()}


def test_a_streaming_medium_is_its_parts() -> None:
    lines = medium("json").render(fleet()).split("\n")
    assert [json.loads(line)["checkpoint"]["path"] for line in lines] == [
        outcome.diagnosis.checkpoint.path for outcome in fleet() if outcome.diagnosis.checkpoint
    ]
    assert [name for name in MEDIA if MEDIA[name].streaming] == ["text", "json"]


def test_one_checkpoint_has_its_full_text() -> None:
    assert "What to change" in medium("text").render(fleet()[:1])
    assert "What to change" not in medium("text").render(fleet()[:2])


def test_an_unknown_medium_is_a_usage_error() -> None:
    with pytest.raises(UsageError) as raised:
        medium("junti", "--report")
    assert raised.value.what == "--report 'junti' is unknown; did you mean 'junit'?"


def test_rendering_needs_no_torch() -> None:
    modules = {entry.whole.partition(":")[0] for entry in MEDIA.values()}
    program = f"import sys\n{''.join(f'import {m}{chr(10)}' for m in modules)}sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
