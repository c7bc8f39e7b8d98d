"""Rows with named columns of numbers, as tensors: pairs of inputs and targets, or all columns by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from samdiag.errors import UsageError
from samdiag.quoting import listed, quoted, shown
from samdiag.spec.batches import Columns
from samdiag.spec.data.normalising import Normalisation
from samdiag.spec.data.options import Options
from samdiag.spec.requests import Data
from samdiag.suggesting import did_you_mean


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A datasets.Dataset and what to call it in messages."""

    rows: Any
    source: str

    @property
    def names(self) -> list[str]:
        return list(self.rows.column_names)

    def texts(self) -> list[str]:
        """The columns of text."""
        kinds = self.rows.features.items()
        return [name for name, kind in kinds if getattr(kind, "dtype", None) in {"string", "large_string"}]

    def check(self, column: str) -> None:
        """Nothing, or UsageError where there is no such column."""
        if column not in self.names:
            what = f"{self.source} has no column {quoted(column)}{did_you_mean(column, self.names)}"
            raise UsageError(what, f"it has {listed(self.names, 20)}")

    def numbers(self, column: str) -> Tensor:
        """A column [rows, …] as a tensor: whole numbers as int64, others in torch's default type."""
        self.check(column)
        try:
            found = torch.tensor(self.rows[column][:])
        except (ValueError, TypeError) as error:
            what = f"the column {quoted(column)} of {self.source} is no array of numbers: {shown(error)}"
            raise UsageError(
                what, "name columns of numbers, all rows of one length: args = { columns = […] }"
            ) from None
        return found if found.is_floating_point() or found.dtype == torch.bool else found.long()


def build_table(table: Table, options: Options) -> Data:
    """Pairs of the `inputs` columns, side by side, and the `targets` column; else all `columns` by name."""
    inputs, target = options.texts("inputs"), options.optional_text("targets")
    columns = options.texts("columns")
    normalisation = Normalisation.of(options)
    options.finish()
    if not len(table.rows):
        raise UsageError(f"{table.source} has no rows", "name another split or file")
    if (inputs is None) != (target is None):
        missing = "inputs" if inputs is None else "targets"
        raise UsageError(f"data.args names one of inputs and targets, and {missing} is missing", "name both")
    if inputs is not None and target is not None:
        found = [table.numbers(name) for name in inputs]
        floats = [value.to(torch.get_default_dtype()) for value in found]
        wide = [value[:, None] if value.dim() == 1 else value for value in floats]
        joined = found[0] if len(found) == 1 and found[0].dim() > 1 else torch.cat(wide, 1)
        return Data(returned=TensorDataset(normalisation.apply(joined), table.numbers(target)))
    if not normalisation.is_identity:
        raise UsageError("scale, mean and std are for inputs, and none are named", "name them: args = { inputs = […] }")
    return Data(returned=Columns({name: table.numbers(name) for name in columns or table.names}))
