"""What a tool says about both ends of a spectrum."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """One reported eigenvalue with its vector [num_params], in the order of `model.parameters()`."""

    value: float
    vector: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a tool said about both ends; None for an end that it was not asked for.

    Attributes:
        products: full-data Hessian-vector products, or what amounts to them.
        wall, cpu: seconds of the whole call, from a model and its data in memory.
        product_wall, product_cpu: of these, inside products.
        claimed: the worst relative residual by the tool's own account, where it gives one and has no tolerance.
        stages: wall seconds of its parts, where they are known.
        remark: what it chose by itself.
    """

    top: End | None
    bottom: End | None
    products: float
    wall: float = 0.0
    cpu: float = 0.0
    product_wall: float = 0.0
    product_cpu: float = 0.0
    claimed: float | None = None
    stages: dict[str, float] = field(default_factory=dict)
    remark: str = ""
