"""docs/theory.md and the verdicts' pages: complete, linked, cited rightly, and about the present code."""

from __future__ import annotations

import importlib.util
import re
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from samdiag.reports.words import VERDICT_WORDS
from samdiag.types import VERDICTS_BY_HARM, Severity
from samdiag.verdicts import thresholds

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
THEORY = DOCS / "theory.md"
PAGES = [THEORY, *sorted((DOCS / "verdicts").glob("*.md"))]
SECTIONS = ("The test", "The evidence", "What to do", "Severity and gate")
CITED = re.compile(r"\btheory(?:\.md)?,? ((?:[A-Z]\d*\b(?:,? (?:to|and|or) |[,;] )?)+)")
NUMBER = re.compile(r"[−-]?\d+(?:\.\d+)?(?:e[−-]?\d+)?")
NOTHING = 1e-9  # what is smaller in an excerpt is rounding, and differs from machine to machine


def load(name: str) -> ModuleType:
    """A script of docs/, as a module."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


@cache
def text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def page(verdict: str) -> str:
    return text(DOCS / "verdicts" / f"{verdict}.md")


def prose(path: Path) -> str:
    """The page without its fenced blocks."""
    return re.sub(r"^```.*?^```", "", text(path), flags=re.DOTALL | re.MULTILINE)


def headings(path: Path) -> list[str]:
    return re.findall(r"^#+ (.+)$", prose(path), flags=re.MULTILINE)


def anchor(heading: str) -> str:
    """The link target that a heading gets on the usual hosts."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def items() -> dict[str, set[int]]:
    """Section letter → numbers of its items."""
    found: dict[str, set[int]] = {}
    for part in re.split(r"^## ", text(THEORY), flags=re.MULTILINE):
        letter = re.match(r"([A-Z])\. ", part)
        if letter:
            found[letter[1]] = {int(n) for n in re.findall(r"^(\d+)\. ", part, flags=re.MULTILINE)}
    return found


@pytest.mark.parametrize("verdict", VERDICTS_BY_HARM)
def test_every_verdict_has_a_page(verdict: str) -> None:
    assert headings(DOCS / "verdicts" / f"{verdict}.md") == [
        f"{VERDICT_WORDS[verdict].headline}: `{verdict}`",
        *SECTIONS,
    ]
    parts = re.split(r"^## .+$", page(verdict), flags=re.MULTILINE)
    assert all(len(part.split()) > 8 for part in parts)


@pytest.mark.parametrize("verdict", VERDICTS_BY_HARM)
def test_every_page_has_its_picture(verdict: str) -> None:
    shown = re.findall(r"!\[.+?\]\((.+?)\)", page(verdict))
    assert shown == [f"../images/verdict-{verdict}.png"]
    assert (DOCS / "verdicts" / shown[0]).read_bytes().startswith(b"\x89PNG")


def test_the_table_lists_all_verdicts_in_the_order_of_harm() -> None:
    words = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "information"}
    rows = re.findall(r"^\| \[`(.+?)`\]\(verdicts/(.+?)\.md\) \| .+ \| (\w+).* \|$", text(THEORY), flags=re.MULTILINE)
    assert rows == [(name, name, words[VERDICT_WORDS[name].severity]) for name in VERDICTS_BY_HARM]


def test_there_is_no_page_without_a_verdict() -> None:
    assert {path.stem for path in (DOCS / "verdicts").glob("*.md")} == set(VERDICTS_BY_HARM)
    assert {path.name for path in (DOCS / "images").glob("verdict-*")} == {f"verdict-{v}.png" for v in VERDICTS_BY_HARM}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_links_resolve(path: Path) -> None:
    links = re.findall(r"\]\(([^)]+)\)", prose(path))
    assert links
    for link in links:
        target, _, fragment = link.partition("#")
        file = (path.parent / target).resolve() if target else path
        assert file.is_file(), link
        if fragment:
            assert fragment in {anchor(heading) for heading in headings(file)}, link


def test_every_citation_in_the_source_refers_to_an_item() -> None:
    known, count = items(), 0
    for file in sorted((ROOT / "samdiag").rglob("*.py")):
        for match in CITED.finditer(" ".join(text(file).split())):
            for letter, number in re.findall(r"([A-Z])(\d*)", match[1]):
                assert letter in known, f"{file.name}: {match[0]}"
                assert not number or int(number) in known[letter], f"{file.name}: {match[0]}"
                count += 1
    assert count > 150


def test_items_are_numbered_without_gaps() -> None:
    found = items()
    assert list(found) == list("ABCDEFGH")
    for letter, numbers in found.items():
        assert numbers == set(range(1, len(numbers) + 1)), letter


def test_citations_within_the_pages_refer_to_items() -> None:
    known = items()
    for path in PAGES:
        for letter, number in re.findall(r"(?<![\w\[])([A-H])(\d{1,2})(?!\d)", prose(path).replace("H200", "")):
            assert int(number) in known[letter], f"{path.name}: {letter}{number}"


def test_the_tests_that_the_page_names_exist() -> None:
    named = set(re.findall(r"`(test_\w+)`", text(THEORY)))
    sources = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "tests" / "theory").glob("test_*.py"))
    assert len(named) > 10
    assert {name for name in named if f"def {name}(" not in sources} == set()


def test_the_thresholds_on_the_pages_are_those_of_the_code() -> None:
    assert f"{thresholds.HALLUCINATION_RATIO:g}·‖g" in page("hallucinated-minimizer")
    assert f"{thresholds.HALLUCINATION_RATIO:g}·‖g" in page("hallucinated-point")
    assert f"> {thresholds.BOUNCE_RATIO:g}·‖g‖".replace("> 1·", "> ") in page("bounce")
    assert f"at most {thresholds.BOUNCE_COSINE:g}".replace("-", "−") in page("bounce")
    assert f"margin of {100 * thresholds.MARGIN_NORMALISED:g} %" in page("saddle-attraction")
    assert f"{100 * thresholds.MARGIN_USAM:g} % for USAM" in page("saddle-attraction")
    assert f"{thresholds.PRACTICAL_CAPTURE:g} times slower" in page("saddle-attraction")
    assert f"≥ {thresholds.NEAR_SADDLE:g}" in page("saddle-escaping")
    assert thresholds.SLOWDOWN == 2
    assert "half" in page("saddle-slowdown")
    for verdict in ("convergence-floor", "minimum"):
        assert f"{100 * thresholds.PROGRESS:g} % of the remaining loss" in page(verdict)
        assert f"{thresholds.HORIZON} steps" in page(verdict)


@pytest.mark.parametrize("verdict", VERDICTS_BY_HARM)
def test_the_report_on_the_page_is_what_samdiag_says(verdict: str) -> None:
    """Words exactly, numbers to a thousandth; `python docs/verdict_examples.py` writes the excerpts anew."""
    examples = load("verdict_examples")
    shown = re.findall(r"^```text\n(.*?)\n```", page(verdict), flags=re.DOTALL | re.MULTILINE)
    said = examples.excerpt(verdict)
    assert said.splitlines()[0].startswith(f"{VERDICT_WORDS[verdict].headline} ({verdict}): ")
    assert [masked(part) for part in shown] == [masked(said)]
    np.testing.assert_allclose(numbers(shown[0]), numbers(said), rtol=2e-3, atol=NOTHING)


def masked(excerpt: str) -> str:
    """Without numbers and line breaks, which move with them."""
    return " ".join(NUMBER.sub("#", excerpt).replace("± #", "").split())


def numbers(excerpt: str) -> list[float]:
    """All but errors."""
    found = NUMBER.findall(re.sub(r"± \S+", "", excerpt))
    return [float(number.replace("−", "-")) for number in found]


def test_a_picture_is_drawn_alike_twice(tmp_path: Path) -> None:
    load("verdict_examples")
    pictures = load("verdict_pictures")
    assert list(pictures.PICTURES) == list(VERDICTS_BY_HARM)
    for name in ("first.png", "second.png"):
        pictures.PICTURES["unstable"](tmp_path / name)
    assert (tmp_path / "first.png").read_bytes() == (tmp_path / "second.png").read_bytes()


def test_gsam_leaves_no_saddle_that_holds_sam_and_stays_at_more() -> None:
    study = load("variant_study")
    saddles = study.random_saddles(200, 0)
    sam, gsam = study.leaves(saddles, 0.0, 6000), study.leaves(saddles, 0.8, 6000)
    assert 50 < sam.sum() < 150
    assert not (gsam & ~sam).any()
    assert (sam & ~gsam).sum() > 20


@pytest.mark.parametrize(("lr", "across", "factor"), [(0.1, 1.0, 1.2), (0.01, 1.0, 1.25), (0.01, 3.0, 9.5)])
def test_gsam_hovers_about_a_hallucinated_minimizer(lr: float, across: float, factor: float) -> None:
    """At a distance proportional to eta·alpha·|g|: it neither reaches the point nor leaves it."""
    study = load("variant_study")
    for alpha in (0.1, 0.8):
        assert study.hovering_distance(alpha, lr, across=across, steps=4000) == pytest.approx(factor, rel=0.1)


def test_adam_leaves_what_usam_with_sgd_leaves() -> None:
    found = load("variant_study").adam_usam(60, 12_000)
    assert 10 < found.captured < 50
    assert found.same_inertia == found.adam_agrees == found.runs


def test_adam_leaves_at_a_pace_of_its_own() -> None:
    leave = load("variant_study").steps_to_leave
    assert leave(-1.0, with_adam=True) == leave(-0.01, with_adam=True)
    assert leave(-0.01, with_adam=False) > 50 * leave(-1.0, with_adam=False) / 0.6


@pytest.mark.parametrize(("inside", "grows"), [(False, False), (True, True)])
def test_weight_decay_captures_in_the_update_and_not_in_the_objective(inside: bool, grows: bool) -> None:
    """A10's example, lam −1, wd 0.2, rho 0.9, by USAM itself."""
    lam, decay, rho, x = -1.0, 0.2, 0.9, 1.0
    for _ in range(500):
        curvature = lam + decay if inside else lam
        step = curvature * (x + rho * curvature * x) + (0.0 if inside else decay * x)
        x -= 0.01 * step
    assert (x > 1.5) == grows
    assert (x < 0.7) == (not grows)
