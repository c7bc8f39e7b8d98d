"""A checkpoint with a hostile name among others, in every medium that a list can be written in."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from samdiag.reports.media import MEDIA
from tests.cli.conftest import HONEST, Run
from tests.hostile.printing import PRINTED, check

OTHER = "other.pt"
FEW = ("clear screen", "link", "line", "C1", "direction", "GitHub", "markup", "TOML", "lone surrogate")
MORE = {
    "legacy command": "x ##[group]y",
    "wrapped command": f"{'x' * 40} ::error::owned",
    "mention": "@octocat ![x](y) <img src=x>",
    "XML": "]]><!-- & \"'",
}
PAYLOADS = {name: PRINTED[name] for name in FEW} | MORE


@pytest.mark.parametrize("payload", PAYLOADS.values(), ids=PAYLOADS)
def test_name_of_one_of_a_list(payload: str, work: Path, inspect: Run) -> None:
    path = Path(f"{payload.replace('/', '')}.pt")
    for name in (OTHER, path):
        Path(name).write_bytes(b"no checkpoint")
    files = [f"--report={name}={name}.out" for name in MEDIA]
    ran = inspect(OTHER, str(path), *HONEST, *files)
    check(ran)
    assert ran.code == 3
    texts = {name: Path(f"{name}.out").read_text(encoding="utf-8") for name in MEDIA}
    for name, text in texts.items():
        hidden = {c for c in text if c != "\n" and not c.isprintable()}
        assert not hidden, name
        if name not in {"github", "json"}:
            assert not [line for line in text.splitlines() if line.lstrip().startswith("::")], name
    assert len(texts["json"].splitlines()) == 2
    assert [case.get("classname") for case in ElementTree.fromstring(texts["junit"]).iter("testcase")] == [
        "samdiag"
    ] * 2
    assert len(texts["github"].splitlines()) == 3
    assert json.loads(texts["sarif"])["runs"][0]["invocations"][0]["executionSuccessful"] is False
    assert "\n#### ? `" in texts["markdown"]
