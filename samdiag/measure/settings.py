"""What a measurement is made with: the training settings that are judged, and how hard to look."""

from __future__ import annotations

from dataclasses import dataclass

from samdiag.errors import UsageError
from samdiag.theory.edge import stability_edge

DEFAULT_SAMPLES = 2048  # enough for ~10 % sampling error of lambda_max on small convolution nets; --samples raises it
DEFAULT_TOLERANCE = 0.01  # relative residual of the first eigenvalue at each end; its value is then good to about 1e-4
DEFAULT_EIGENVALUES = 5
DEFAULT_ALPHA = 0.4  # the GSAM authors' setting for ImageNet
DEFAULT_ETA_A = 0.01  # SamsungLabs' default
DEFAULT_MAX_PRODUCTS = 300  # five times what the reference networks needed for both ends


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasureSettings:
    """Settings of one measurement.

    Attributes:
        rho, variant, lr, momentum, weight_decay, batch_size: as in training; lr and batch_size may be unknown (None).
        nesterov, dampening: as in torch.optim.SGD; dampening equal to momentum makes the velocity an average (EMA);
            without momentum there is none, whatever was said.
        micro_batch: samples behind one ascent gradient (m-SAM); None: the training batch.
        alpha: gsam's share of the orthogonal part. eta_a: asam-samsung's constant added to |w|.
        weight_decay_in: "update", as optimisers apply it, or "objective": f + wd/2·|x|², which the ascent sees too.
        mode: "eval", or "train": BatchNorm with the batch's own statistics (dropout stays off).
        jacobian: "auto": the SAM Jacobian where the shifted gradient may vanish; "arnoldi": always, by Arnoldi.
        samples: analyse at least this many samples where there are so many (whole batches); None: all of them.
        seed: of the start vectors and of whatever randomness the data loader has.
        device, dtype: "auto" takes the GPU when there is one, and float64 when the weights are.
        tol: relative residual asked of either end.
        num_eigenvalues: eigenvalues reported at each end.
        max_products: bound on full-data Hessian products in one Lanczos run.
        until: "ends": both ends known to `tol`; "decided": no threshold of a verdict inside their certified intervals,
            however rough the values; "converged": all `num_eigenvalues` of either end.
        solver: "auto", "lanczos", or "two-level": led by the samples that carry most of the loss, where they are few.
        time_limit: seconds after which the best answer so far is taken; None: none.
        block: vectors per solver step; more than 1 finds repeated eigenvalues at once.
        warm_start: "subsample", or a file whose eigenvectors are started from and replaced; None: a random start.
        products: kept, recomputed, forward, compiled or difference: how Hessian products are computed; "auto": the
            fastest.
        memory: bytes for kept gradient graphs and the Krylov basis together; None: from what the device has free.
        cross_check: also ask PyHessian.
    """

    rho: float
    variant: str = "sam"
    lr: float | None = None
    momentum: float = 0.0
    weight_decay: float = 0.0
    batch_size: int | None = None
    samples: int | None = DEFAULT_SAMPLES
    seed: int = 0
    device: str = "auto"
    dtype: str = "auto"
    tol: float = DEFAULT_TOLERANCE
    num_eigenvalues: int = DEFAULT_EIGENVALUES
    max_products: int = DEFAULT_MAX_PRODUCTS
    cross_check: bool = False
    nesterov: bool = False
    dampening: float = 0.0
    micro_batch: int | None = None
    alpha: float = DEFAULT_ALPHA
    eta_a: float = DEFAULT_ETA_A
    weight_decay_in: str = "update"
    mode: str = "eval"
    jacobian: str = "auto"
    until: str = "ends"
    solver: str = "auto"
    time_limit: float | None = None
    block: int = 1
    warm_start: str | None = None
    products: str = "auto"
    memory: int | None = None

    def __post_init__(self) -> None:
        if 1 < self.block > self.max_products:
            raise UsageError(
                f"a block of {self.block} vectors is more than the {self.max_products} products allowed",
                "give a smaller --block, or more --max-products",
            )
        if self.solver == "two-level" and (self.block > 1 or self.warm_start):
            raise UsageError(
                "the two-level solver takes neither --block nor --warm-start", "use --solver lanczos with them"
            )
        if self.nesterov and (self.momentum <= 0 or self.dampening > 0):
            raise UsageError(
                f"nesterov with momentum {self.momentum:g} and dampening {self.dampening:g}",
                "as in torch.optim.SGD, Nesterov needs a momentum and no dampening",
            )
        if self.micro_batch is not None and self.batch_size is not None and self.micro_batch > self.batch_size:
            raise UsageError(
                f"the micro-batch of {self.micro_batch} is larger than the batch of {self.batch_size}",
                "give --micro-batch the samples behind one ascent gradient, at most the batch",
            )
        if self.momentum == 0:  # torch.optim.SGD dampens its momentum buffer, and there is none
            object.__setattr__(self, "dampening", 0.0)
        if self.memory is not None and (not isinstance(self.memory, int) or self.memory < 1):
            raise UsageError(f"memory = {self.memory!r} is not a number of bytes", "give it as an int, e.g. 4 * 10**9")

    @property
    def update_decay(self) -> float:
        """The weight decay that is in the update and not in the loss."""
        return self.weight_decay if self.weight_decay_in == "update" else 0.0

    @property
    def objective_decay(self) -> float:
        """The weight decay that is in the loss."""
        return self.weight_decay if self.weight_decay_in == "objective" else 0.0

    @property
    def edge(self) -> float | None:
        """Curvature at the edge of stability of the plain iteration; None where lr is not known."""
        return stability_edge(self.momentum, nesterov=self.nesterov) / self.step_size if self.step_size else None

    @property
    def step_size(self) -> float | None:
        """eta of the heavy-ball or Nesterov iteration: lr·(1 − dampening)."""
        return None if self.lr is None else self.lr * (1.0 - self.dampening)
