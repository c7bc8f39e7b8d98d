from __future__ import annotations

import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from samdiag.outcomes import Outcome
from samdiag.reports import markdown
from samdiag.reports.escape import printable
from samdiag.reports.markdown_escape import cell, code, prose
from samdiag.types import Failure
from tests.hostile.printing import PRINTED

from .fleet_samples import at, fleet, hit, hostile_outcomes
from .snapshot import matches

READER = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
ANY_TEXT = st.text(st.characters(codec=None, categories=None), max_size=40)
NASTY = st.text(alphabet="`|\\<>[]()!*_~@#&;:/.=+- \ta1gGhHwW\n\r\u202e", max_size=30)
OWN_HTML = re.compile(r"<details><summary>\d+ checkpoints? without a finding</summary>|</details>")
EXTRA = {
    "mention": "@octocat",
    "issue": "#12 and GH-13 and octo/cat#14",
    "commit": "deadbeef and 1234567890abcdef1234567890abcdef12345678",
    "address": "https://evil.example http:x www.evil.example a@b.example",
    "link": "[x](javascript:alert(1)) ![y](https://evil.example/z.png) [a]: https://evil.example",
    "HTML": "<img src=x onerror=alert(1)> </details> <!-- x --> &lt;b&gt;",
    "table": "a | b | c\n|---|---|\n\\| d \\\\| e",
    "blocks": "# x\n- y\n> z\n1. w\n---\n===\n```\nx\n```",
    "ticks": "` `` ``` x` `y ``",
    "emphasis": "*x* _y_ **z** ~~w~~ __v__",
}
HOSTILE = PRINTED | EXTRA


def inline(tokens: list[Token]) -> list[Token]:
    return [child for token in tokens for child in (token.children or [token])]


def words(text: str) -> str:
    return " ".join(text.split())


def test_snapshot() -> None:
    assert matches("fleet.md", markdown.render(fleet(), missing=2))


@given(ANY_TEXT | NASTY)
def test_prose_is_shown_as_it_is_written(text: str) -> None:
    tokens = inline(READER.parseInline(f"x {prose(text)}"))
    assert {token.type for token in tokens} <= {"text", "code_inline"}
    shown = "".join(token.content for token in tokens)
    assert words(shown) == words(f"x {printable(text)}")


@given(ANY_TEXT | NASTY)
def test_outside_of_code_there_are_plain_words_only(text: str) -> None:
    plain = "".join(token.content for token in inline(READER.parseInline(f"x {prose(text)}")) if token.type == "text")
    assert not set(plain) & set("@#<>&|*_~`[]\\/!=")
    assert not re.search(r"://|www\.|gh-\d|[0-9a-f]{7}", plain, re.IGNORECASE)


@given(ANY_TEXT | NASTY)
def test_code_is_shown_as_it_is_written(text: str) -> None:
    tokens = inline(READER.parseInline(code(text)))
    if printable(text).strip():
        assert [token.type for token in tokens] == ["code_inline"]
        assert tokens[0].content == printable(text)


@given(ANY_TEXT | NASTY)
def test_a_cell_stays_one_cell(text: str) -> None:
    table = f"| a | b |\n|---|---|\n| {cell(code(text))} | {cell(prose(text))} |"
    tokens = READER.parse(table)
    cells = [tokens[n + 1] for n, token in enumerate(tokens) if token.type == "td_open"]
    assert len(cells) == 2
    for found in cells:
        assert {child.type for child in found.children or []} <= {"text", "code_inline"}
        assert words("".join(child.content for child in found.children or [])) == words(printable(text))


@pytest.mark.parametrize("payload", HOSTILE.values(), ids=HOSTILE)
def test_hostile_text_makes_no_markup(payload: str) -> None:
    """The same structure as with harmless text of as many lines, no link, image or HTML but our own."""
    lines = "\n".join("x" if line.strip() else "" for line in payload.split("\n"))
    found, harmless = (READER.parse(markdown.render(hostile_outcomes(text))) for text in (payload, lines))
    blocks = {"inline", "html_block"}
    assert [t.type for t in found if t.type not in blocks] == [t.type for t in harmless if t.type not in blocks]
    kinds = {child.type for child in inline(found)}
    assert not kinds & {"link_open", "image", "html_inline", "em_open", "s_open"}
    html = "".join(token.content for token in found if token.type == "html_block")
    assert not OWN_HTML.sub("", html).strip()


def test_findings_come_first_and_the_rest_is_folded() -> None:
    shown = markdown.render(fleet())
    assert shown.startswith("### ✖ samdiag: 1 of 8 checkpoints fails the gate")
    order = [shown.index(f"epoch_{n}.pt`") for n in (20, 30, 40, 50, 10)]
    assert order == sorted(order)
    folded = shown[shown.index("<details>") :]
    assert "epoch_1.pt`" in folded
    assert "epoch_20.pt" not in folded


def test_the_change_is_said_from_and_to() -> None:
    shown = markdown.render(fleet())
    assert "- **change** rho: 0.5 → **0.134** (allowed ≤ 0.1343), bound by saddle trap." in shown
    assert "**change** batch size" not in shown  # it is kept


def test_what_to_write_is_shown_line_by_line() -> None:
    todo = 'write into samdiag.toml:\n\n  model = { timm = "resnet18" }\n  data = "train:data"'
    failure = Failure(what="a.pt: nobody says what model this is", todo=todo, exit_code=2)
    failed = at("a.pt", measurements=None, findings=(), prescription=None, failure=failure)
    shown = markdown.render([Outcome(diagnosis=failed, exit_code=2)])
    assert "- **found** nobody says what model this is\n- **do** write into `samdiag.toml:`\n" in shown
    assert '  - `   model = { timm = "resnet18" } `\n  - `   data = "train:data" `' in shown


def test_all_passing_is_short() -> None:
    shown = markdown.render(fleet()[:1])
    assert shown.startswith("### ✔ samdiag: 1 checkpoint passes the gate\n")
    assert "<details>" not in shown
    assert "####" not in shown


@pytest.mark.parametrize("failing", [True, False])
def test_a_long_list_is_bounded(failing: bool) -> None:
    hits = (hit("bounce", message="long " * 100),) if failing else ()
    path = "some/rather/long/folder/of/a/run"
    outcomes = [
        Outcome(diagnosis=at(f"{path}/{n}.pt", "bounce"), exit_code=int(failing), hits=hits) for n in range(500)
    ]
    quiet = [Outcome(diagnosis=at(f"{path}/{n}.ok"), exit_code=0) for n in range(500)]
    shown = markdown.render([*outcomes, *quiet])
    assert len(shown) <= markdown.LIMIT
    tokens = Counter(token.type for token in READER.parse(shown))
    assert tokens["table_open"] == tokens["table_close"]
    assert shown.count("<details>") == shown.count("</details>")
    named = shown.count(f"| `{path}/")
    left = sum(int(n) for n in re.findall(r"… and (\d+) checkpoint", shown))
    assert named + left == 1000


def test_one_enormous_name_does_not_pass_the_bound() -> None:
    outcomes = [Outcome(diagnosis=at("|" * 5000), exit_code=1, hits=(hit("|" * 5000, message="`" * 5000),))] * 50
    assert len(markdown.render(outcomes)) <= markdown.LIMIT
