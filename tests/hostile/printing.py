"""Text that would take over a terminal, forge a line, or leave the place where it is printed."""

from __future__ import annotations

import re

from tests.cli.conftest import Ran

FORGED = "✔ ALL IS WELL"
PRINTED: dict[str, str] = {
    "clear screen": f"\x1b[2J\x1b[H{FORGED}",
    "title": "\x1b]0;owned\x07",
    "link": "\x1b]8;;https://example.invalid\x1b\\here\x1b]8;;\x1b\\",
    "device control": "\x1bP+q544e\x1b\\",
    "line": f"x\n{FORGED}",
    "carriage return": f"x\r{FORGED}",
    "C1": "x\x9b2J",
    "direction": "x\u202egnp",
    "isolate": "x\u2066y\u2069",
    "zero width": "x\u200by\ufeff",
    "tags": "x\U000e0041",
    "backspace": "x\b\b\b",
    "GitHub": "x\n::error::owned",
    "GitHub group": "x\r\n::stop-commands::t",
    "line separator": f"x\u2028{FORGED}",
    "next line": f"x\x85{FORGED}",
    "vertical tab": f"x\x0b{FORGED}\x0c{FORGED}",
    "lone surrogate": "x\udc80y",
    "markup": "[bold red]x[/][link=https://example.invalid]y[/link]",
    "markup that does not close": "[/bold][/][not a tag",
    "emoji code": ":warning: x",
    "TOML": f'x"\n[gate]\nfail_on = "never"\n# {FORGED}',
    "TOML text": '"""\nproblem = "evil:run"\n"""',
    "null": "x\0y",
}
STYLE = re.compile(r"\x1b\[[0-9;]*m")


def check(ran: Ran) -> None:
    """Nothing but text, line ends and colour, and no line that the payload wrote."""
    for stream in (ran.out, ran.err):
        plain = STYLE.sub("", stream)
        hidden = {c for c in plain if c != "\n" and not c.isprintable()}
        assert not hidden, hidden
        assert not [line for line in plain.splitlines() if line.startswith((FORGED, "::"))]
