"""Rich, tamed: renderables to a string, with markup, emoji codes and highlighting switched off."""

from __future__ import annotations

from io import StringIO
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

MIN_WIDTH = 40  # narrower than this nothing fits; a terminal that reports 0 columns gets this


def draw(*renderables: RenderableType, width: int, color: bool, soft_wrap: bool = False) -> str:
    """`renderables` under each other, at most `width` columns wide, without trailing blanks or a final newline.

    With `color=False` the string has no escape sequence at all. The result depends on the arguments only, not on the
    terminal or on the environment.
    """
    from rich.console import Console

    console = Console(
        file=StringIO(),
        width=max(width, MIN_WIDTH),
        height=100,  # unused; with both given Rich does not ask the terminal, nor assume 80 columns where TERM=dumb
        force_jupyter=False,
        force_terminal=color,
        color_system="standard" if color else None,
        no_color=not color,
        markup=False,
        emoji=False,
        highlight=False,
        legacy_windows=False,
    )
    with console.capture() as capture:
        for renderable in renderables:
            console.print(renderable, soft_wrap=soft_wrap)
    return "\n".join(line.rstrip() for line in capture.get().rstrip("\n").split("\n"))


def text(content: str, style: str = "") -> Text:
    """Text that is never read as markup."""
    from rich.text import Text

    return Text(content, style=style)
