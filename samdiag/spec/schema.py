"""What may be written in samdiag.toml, `[tool.samdiag]`, a sidecar or a stamp, and which values are allowed."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    field_validator,
    model_validator,
)

from samdiag.errors import UsageError
from samdiag.requirements import parse_requirements
from samdiag.types import VERDICTS_BY_HARM

MODEL_KINDS = ("gallery", "timm", "torchvision", "transformers", "python")
DATA_KINDS = ("gallery", "python", "torchvision", "folder", "datasets", "tensors", "webdataset")
DATA_PATHS: dict[str, tuple[str, ...]] = {  # keys of [data] that do, and the kinds of data that they are for
    "root": ("torchvision", "datasets"),
    "data_files": ("datasets",),
    "tokenizer": ("datasets",),  # "checkpoint" is no path
}
LOSSES = Literal["cross_entropy", "mse", "bce_with_logits", "causal_lm", "model", "python"]
FAIL_ON = ("any", "error", "warning", "never", *VERDICTS_BY_HARM)

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Text = Annotated[str, Field(min_length=1, max_length=1000)]
Args = dict[str, JsonValue]


def _reference_or(other: str) -> BeforeValidator:
    """A bare string read as `{python = "module:name"}`, or without a colon as `{<other> = "name"}`."""

    def expand(value: Any) -> Any:
        if isinstance(value, str):
            return {"python" if ":" in value else other: value}
        return value

    return BeforeValidator(expand)


class Table(BaseModel):
    """A table in which an unknown key is an error and no value is converted to another type."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class ModelSpec(Table):
    """`[model]`: one catalog or `python`, and the arguments of the factory.

    Attributes:
        args: plain arguments; of transformers they replace single keys of the configuration.
        config: of transformers, a config.json; the checkpoint's own where absent.
        base: of an adapter, the checkpoint that the base model's weights come from.
    """

    gallery: Text | None = None
    timm: Text | None = None
    torchvision: Text | None = None
    transformers: Text | None = None
    python: Text | None = None
    args: Args = Field(default_factory=dict)
    config: Text | None = None
    base: Text | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        _check_one(self, MODEL_KINDS)
        if self.config is not None and self.transformers is None:
            raise ValueError("has config, which is for transformers: leave it out")
        return self


class DataSpec(Table):
    """`[data]`: one catalog or `python`, and how much of it to look at.

    Attributes:
        args: plain arguments: never a path.
        root: of torchvision, the folder that holds the data set; of datasets = "imagefolder", the images'.
        data_files: of datasets, the local files of text, json, csv and parquet.
        tokenizer: of datasets with text, a folder, or "checkpoint" for the one that the checkpoint lies in.
    """

    gallery: Text | None = None
    python: Text | None = None
    torchvision: Text | None = None
    folder: Text | None = None
    datasets: Text | None = None
    tensors: Text | None = None
    webdataset: Annotated[Text | list[Text], Field(min_length=1)] | None = None
    args: Args = Field(default_factory=dict)
    root: Text | None = None
    data_files: Annotated[Text | list[Text], Field(min_length=1)] | None = None
    tokenizer: Text | None = None
    split: Text | None = None
    num_samples: Count | None = None
    batch_size: Count | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        _check_one(self, DATA_KINDS)
        for key, kinds in DATA_PATHS.items():
            if getattr(self, key) is not None and not any(getattr(self, kind) is not None for kind in kinds):
                raise ValueError(f"has {key}, which is for {' and '.join(kinds)}: leave it out")
        return self


class LossSpec(Table):
    """`[loss]`: a name with its arguments, or a function `loss(model, batch)` of one's own."""

    name: LOSSES | None = None
    python: Text | None = None
    args: Args | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if (self.name in {None, "python"}) != (self.python is not None):
            raise ValueError("must have a name, or a function of your own as python = 'module:function', and not both")
        if self.args and self.python is not None:
            raise ValueError("has args, which are for a named loss: leave them out")
        return self


class SamSpec(Table):
    """`[sam]`: the optimizer's settings in the run that wrote the checkpoint."""

    rho: Positive | None = None
    variant: Literal["sam", "usam", "asam", "asam-samsung", "gsam"] | None = None
    lr: Positive | None = None
    momentum: Annotated[float, Field(ge=0, lt=1)] | None = None
    nesterov: bool | None = None
    dampening: Annotated[float, Field(ge=0, lt=1)] | None = None
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    weight_decay_in: Literal["update", "objective"] | None = None
    batch_size: Count | None = None
    micro_batch: Count | None = None
    alpha: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    eta_a: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None


def _device(value: str) -> str:
    if re.fullmatch(r"auto|cpu|cuda(:\d+)?", value) is None:
        raise ValueError("must be auto, cpu, cuda, or cuda with a number: cuda:0")
    return value


def _bytes(value: Any) -> Any:
    """`"4GB"`, `"500MB"`, `"2GiB"` as a number of bytes; what is no text stays as it is."""
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?", value.strip().lower())
    if found is None or (found[3] and not found[2]):
        raise ValueError("must be a number of bytes, or with a unit: 500MB, 4GB, 2GiB")
    base = 1024 if found[3] else 1000
    return int(float(found[1]) * base ** " kmgt".index(found[2] or " "))


class MeasureSpec(Table):
    """`[measure]`: how much is looked at and how exactly."""

    samples: Count | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    device: Annotated[str, AfterValidator(_device)] | None = None
    dtype: Literal["auto", "float32", "float64"] | None = None
    tol: Annotated[float, Field(gt=0, lt=1)] | None = None
    num_eigenvalues: Annotated[int, Field(ge=1, le=1000)] | None = None
    mode: Literal["eval", "train"] | None = None
    jacobian: Literal["auto", "arnoldi"] | None = None
    until: Literal["ends", "decided", "converged"] | None = None
    solver: Literal["auto", "lanczos", "two-level"] | None = None
    time_limit: Positive | None = None
    block: Annotated[int, Field(ge=1, le=64)] | None = None
    max_products: Count | None = None
    products: Literal["auto", "kept", "recomputed", "forward", "compiled", "difference"] | None = None
    memory: Annotated[Count, BeforeValidator(_bytes)] | None = None


class GateSpec(Table):
    """`[gate]`: what makes the exit code 1, and what leaves it open.

    Attributes:
        fail_on: verdicts, severities, `any` or `never`.
        require: conditions on measurements, as `--require`.
        strict_spec: whether a checkpoint's own word on what it is judged by leaves the gate open.
    """

    fail_on: list[str] | None = None
    require: list[str] | None = None
    strict_spec: bool | None = None

    @field_validator("require", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("require")
    @classmethod
    def _conditions(cls, value: list[str] | None) -> list[str] | None:
        try:
            parse_requirements(value)
        except UsageError as error:
            raise ValueError(f"{error.what.removeprefix('--require ')}; {error.todo}") from None
        return value

    @field_validator("fail_on", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        """`"a,b"` is `["a", "b"]`, as on the command line; case and empty entries do not matter."""
        items = value.split(",") if isinstance(value, str) else value
        if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
            return items
        return [item.strip().lower() for item in items if item.strip()]

    @field_validator("fail_on")
    @classmethod
    def _known(cls, value: list[str] | None) -> list[str] | None:
        if value == []:
            raise ValueError("is empty: list verdicts, or write 'any' or 'never'")
        for item in value or ():
            if item not in FAIL_ON:
                raise ValueError(f"must be among: {', '.join(FAIL_ON)}")
        if value and len(value) > 1 and "never" in value:
            raise ValueError("must be 'never' alone, or a list of verdicts")
        return value


class Spec(Table):
    """A whole file, stamp or command line. Everything is optional: what is absent was not said."""

    problem: Text | None = None
    pythonpath: list[str] | None = None
    model: Annotated[ModelSpec, _reference_or("gallery")] | None = None
    data: Annotated[DataSpec, _reference_or("gallery")] | None = None
    loss: Annotated[LossSpec, _reference_or("name")] | None = None
    sam: SamSpec = SamSpec()
    measure: MeasureSpec = MeasureSpec()
    gate: GateSpec = GateSpec()
    weights: Literal["raw", "ema"] | None = None
    download: bool | None = None  # the flag --download; refused from anywhere else

    @field_validator("problem")
    @classmethod
    def _reference(cls, value: str | None) -> str | None:
        if value is not None and ":" not in value:
            raise ValueError("must be 'module:function' or 'file.py:function'")
        return value

    @model_validator(mode="after")
    def _whole(self) -> Self:
        parts = [name for name in ("model", "data", "loss") if getattr(self, name) is not None]
        if self.problem is not None and parts:
            raise ValueError(f"must have either problem or model, data and loss; it has problem and {', '.join(parts)}")
        return self


def _check_one(table: Table, kinds: tuple[str, ...]) -> None:
    said = [kind for kind in kinds if getattr(table, kind) is not None]
    if len(said) != 1:
        raise ValueError(f"must have exactly one of {', '.join(kinds)}; it has {' and '.join(said) or 'none'}")
