"""Draws the terminal reports of the two demo checkpoints as SVG, for the README: `python docs/terminal_picture.py`.

Needs `make demo` first, which writes demo/healthy.safetensors and demo/stuck.safetensors.
"""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

from samdiag import pipeline
from samdiag.reports import text

ROOT = Path(__file__).resolve().parents[1]
WIDTH = 100
WEB_FONT = re.compile(r"@font-face \{.*?\}", re.DOTALL)  # Rich names fonts on a server; a local monospace one will do


def draw(name: str) -> Path:
    """docs/images/NAME.svg from demo/NAME.safetensors."""
    diagnosis = pipeline.inspect(f"demo/{name}.safetensors", cwd=ROOT)
    if diagnosis.failure is not None:
        raise SystemExit(f"{diagnosis.failure.what}\n{diagnosis.failure.todo}; run `make demo` first")
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    console.print(Text(f"$ samdiag inspect demo/{name}.safetensors\n", style="bold"))
    console.print(Text.from_ansi(text.render(diagnosis, width=WIDTH, color=True)))
    target = ROOT / "docs" / "images" / f"{name}.svg"
    drawing = console.export_svg(title="samdiag")
    target.write_text(WEB_FONT.sub("", drawing), encoding="utf-8")
    return target


if __name__ == "__main__":
    for name in ("stuck", "healthy"):
        sys.stdout.write(f"{draw(name).relative_to(ROOT)}\n")
