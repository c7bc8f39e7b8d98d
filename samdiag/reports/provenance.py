"""Setting → row: its value, who said it, how far that is trusted, and what it overruled."""

from __future__ import annotations

from typing import Any

from samdiag.reports.escape import printable
from samdiag.reports.numbers import number
from samdiag.reports.rows import SettingRow
from samdiag.types import Setting

VALUE_LIMIT = 300  # characters of a value: enough for nested model arguments, short enough for a table


def setting_row(name: str, setting: Setting) -> SettingRow:
    """The row of `setting`, every text of it harmless; who said the same value was not overruled."""
    return SettingRow(
        name=printable(name),
        value=value_text(setting.value),
        source=printable(setting.source),
        trust=setting.trust,
        overruled=tuple(
            (value_text(old.value), printable(old.source)) for old in setting.shadowed if old.value != setting.value
        ),
    )


def value_text(value: Any) -> str:
    """A setting's value on one line: numbers as reports write them, text as it is, `not set` for None."""
    match value:
        case None:
            return "not set"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return number(value, digits=6)
        case str():
            return printable(value, limit=VALUE_LIMIT)
        case _:
            try:
                return printable(repr(value), limit=VALUE_LIMIT)
            except ValueError:  # an integer in it is too long to be written
                return f"a {type(value).__name__} that cannot be shown"
