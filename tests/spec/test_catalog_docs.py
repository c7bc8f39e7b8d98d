"""Every example of docs/catalogs.md is a spec that samdiag accepts, and every kind has one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from samdiag.spec.parsing import parse, parse_toml

PAGE = Path(__file__).parents[2] / "docs" / "catalogs.md"
EXAMPLES = re.findall(r"```toml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_example_is_a_spec(example: str) -> None:
    spec = parse(parse_toml(example, "docs/catalogs.md"), "docs/catalogs.md")
    assert any(part is not None for part in (spec.model, spec.data, spec.loss))


def test_every_kind_has_an_example() -> None:
    text = "\n".join(EXAMPLES)
    kinds = ("timm", "torchvision", "transformers", "gallery", "base", "tensors", "folder", "webdataset", "datasets")
    assert all(re.search(rf"^{kind} = ", text, re.MULTILINE) for kind in kinds)
