"""The line of progress: on a terminal only, one line, harmless, and out of the way of the report."""

from __future__ import annotations

import io
import sys

import pytest

from samdiag.cli.list_progress import ListProgress, list_progress
from samdiag.fleet.entries import Entry


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_nothing_is_written_where_it_is_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with list_progress(3, shown=False) as progress:
        progress.stage("spectrum", 3)
        with progress.aside():
            print("a record")
        progress.finish()
    assert capsys.readouterr() == ("a record\n", "")
    assert progress.pace.done == 1


def test_shown_on_stderr_and_stdout_is_the_reports(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    with list_progress(3, shown=True) as progress:
        progress.finish()
        progress.stage_of(Entry(path="runs/a\x1b[2J.pt"), "spectrum", 12)
        assert progress.live is not None
        progress.live.refresh()
        print("a record")
        with progress.aside():
            shown = terminal.getvalue()
            print("another")
            assert terminal.getvalue() == shown
    assert capsys.readouterr().out == "a record\nanother\n"
    assert "1/3" in shown
    assert "12 Hessian products" in shown
    assert "\x1b[2J" not in shown


def test_a_long_line_is_cut_and_not_wrapped() -> None:
    progress = ListProgress(3, clock=lambda: 0.0)
    progress.stage("x" * 500, 1)
    text = progress.__rich__()
    assert text.no_wrap
    assert text.overflow == "ellipsis"
