"""The values that flow from a checkpoint to a report. Plain and frozen; nothing here imports torch.

path → Checkpoint → {name: Setting} → Problem → Measurements → Finding… → Prescription → Diagnosis
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from samdiag.instruments import ProductEngine, SecondOpinion, SelfCheck, SolverRun
from samdiag.keeping import Keep
from samdiag.probes import Probe
from samdiag.remedies import Prescription

if TYPE_CHECKING:
    from torch import nn

FORMAT_VERSION = 1


class Trust(StrEnum):
    """Who said a value: `default` < `artifact` < `project` < `cli`."""

    DEFAULT = "default"
    ARTIFACT = "artifact"
    PROJECT = "project"
    CLI = "cli"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shadowed:
    """A value that was said as well, but further away."""

    value: Any
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A resolved value that knows who said it and what it overruled."""

    value: Any
    source: str
    trust: Trust
    shadowed: tuple[Shadowed, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A model, a loss and data: what a checkpoint's weights are measured on.

    Attributes:
        model: the network; samdiag restores it exactly after every measurement.
        loss: `loss(model, batch)` → 0-dim tensor, the *mean* loss over the samples of `batch`.
        batches: re-iterable (a list, a DataLoader), not a generator; each item is whatever `loss` takes.
        num_samples: `num_samples(batch)` → number of samples that the mean runs over; by default the first dimension of
            the first tensor found in the batch.
        population: size of the training set that the batches were drawn from. When all of it is analysed there is
            no sampling error; None means "a sample of something much larger".
        loss_lower_bound: a value that the loss can never go below (0 for cross-entropy and squared errors); None: found
            from the loss's own graph where that is certain, else unknown.
        batch_size_is_training: True when `batches` are cut as in training, so that their size says the training batch
            size.
        keep: where measurements leave what the next one on other weights need not make again; None: nowhere.
    """

    model: nn.Module
    loss: Callable[[Any, Any], Any]
    batches: Iterable[Any]
    num_samples: Callable[[Any], int] | None = None
    population: int | None = None
    loss_lower_bound: float | None = None
    batch_size_is_training: bool = True
    keep: Keep | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A measured number with its two kinds of error, both in the unit of the value.

    Attributes:
        value: the number; None where it could not be measured.
        error: numerical error bound (the residual of an eigenpair, the bracket of a root); 0 where only rounding
            remains.
        sampling_error: standard error from the data behind it; None where it cannot be estimated (a single batch). Of
            an eigenvalue measured on two halves of the samples it is half of the half-width of a 95 % interval:
            Student's t for few batches and the doubt in `bias` are in it.
        converged: whether the requested tolerance was reached.
        bias: how far these samples exaggerate the number; it is taken off already, so that value + bias is what they
            say by themselves. None where it was not measured.
    """

    value: float | None
    error: float = 0.0
    sampling_error: float | None = None
    converged: bool = True
    bias: float | None = None

    def spread(self, z: float = 2.0) -> float:
        """Half-width of the interval a verdict compares: numerical bound plus `z` standard errors (z=2: about 95 %)."""
        return self.error + z * (self.sampling_error or 0.0)

    @property
    def in_sample(self) -> Estimate:
        """The number of the analysed samples by themselves, with its numerical error alone."""
        value = None if self.value is None else self.value + (self.bias or 0.0)
        return Estimate(value=value, error=self.error, sampling_error=0.0, converged=self.converged)

    @property
    def known(self) -> bool:
        return self.value is not None and not math.isnan(self.value)

    @property
    def low(self) -> float:
        return math.nan if self.value is None else self.value - self.spread()

    @property
    def high(self) -> float:
        return math.nan if self.value is None else self.value + self.spread()


UNKNOWN = Estimate(value=None, error=math.inf, converged=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Direction:
    """An eigenpair of the Hessian, reduced to the numbers that verdicts and advice need.

    Attributes:
        eigenvalue: lambda, with the residual ‖Hq − lambda q‖ as error.
        effective_radius: rho_eff along this direction (theory A); infinite where the gradient vanishes under SAM.
        noise: qᵀCq, per-sample gradient variance along q; None where a single batch leaves it unknown.
        noise_error: its standard error.
        offset: q·g, the gradient's component along q.
    """

    eigenvalue: Estimate
    effective_radius: float
    noise: float | None = None
    offset: float = 0.0
    noise_error: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchUpdate:
    """The update that mini-batch SAM really makes, E_b ∇f_b(x + e_b) over batches of `size` samples: m-SAM.

    Attributes:
        size: samples behind one ascent gradient: the training batch, or the micro-batch.
        num_batches: how many such batches the expectation was taken over.
        grad_scale: E|g_b|, the mean norm of a batch's gradient.
        effective_radius: rho·E[1/|g_b|] (SAM), in the variant's own norm for ASAM; rho for USAM.
        loss_change: E[f_b(x + e_b) − f_b(x)].
        update_norm: |E ∇f_b(x + e_b)|.
        gradient_ratio: that norm over |g|.
        gradient_cosine: of that gradient and g.
        update_ratio: the ratio with weight decay in both: what a hallucinated minimizer makes vanish.
    """

    size: int
    num_batches: int
    grad_scale: Estimate
    effective_radius: Estimate
    loss_change: Estimate
    update_norm: Estimate
    gradient_ratio: Estimate
    gradient_cosine: Estimate
    update_ratio: Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What full-batch SAM does on the quadratic that the complete spectrum and the gradient's components make up.

    Attributes:
        outcome: "stays", "leaves" or "diverges", where every nearby start and rho agrees; "open" where they do not.
        steps: simulated steps until it left; the horizon where it stayed.
    """

    outcome: str
    steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurements:
    """Everything a verdict may look at: plain numbers with the settings that produced them.

    Units: losses in the loss's unit; norms in loss per parameter unit; eigenvalues in loss per parameter unit squared.
    """

    # the settings that produced the numbers (None: not known)
    rho: float
    variant: str
    lr: float | None
    momentum: float
    weight_decay: float
    batch_size: int | None  # training batch; None: full batch
    # how much was looked at
    num_params: int
    num_samples: int
    num_batches: int
    population: int | None
    num_products: int
    num_gradients: int
    loss_lower_bound: float | None
    # the two gradients
    loss: Estimate
    grad_norm: Estimate
    perturbed_loss: Estimate
    loss_change: Estimate  # f(x+) − f(x), its error from paired batches
    perturbed_grad_norm: Estimate
    gradient_ratio: Estimate  # ‖g+‖/‖g‖
    gradient_cosine: Estimate
    update_ratio: Estimate  # ‖g+ + wd·x‖/‖g + wd·x‖: what a hallucinated minimizer makes vanish
    perturbation_norm: float  # ‖e(x)‖
    directional_curvature: Estimate  # uᵀHu
    quadratic_error: (
        float | None
    )  # ‖g+ − g − He‖/‖He‖: how far the second-order picture is from what happens at radius rho
    lookahead_loss: (
        float | None
    )  # after lookahead_steps SAM steps as in training, by their trend (bounces averaged out)
    lookahead_loss_sgd: float | None  # the same with plain gradient steps
    lookahead_cosine: float | None  # of the gradients before and after the first SAM step; −1 on a period-2 bounce
    ridge_distance: Estimate
    ridge_searched: float  # no ridge nearer than this along the ascent direction
    # curvature
    lambda_max: Estimate
    lambda_min: Estimate
    lambda_min_bound: float | None  # lambda_min is above this with probability `lambda_min_bound_probability`
    lambda_min_bound_probability: float
    top_eigenvalues: tuple[Estimate, ...]
    bottom_eigenvalues: tuple[Estimate, ...]
    top_directions: tuple[Direction, ...]
    bottom_directions: tuple[Direction, ...]
    spectrum_complete: bool  # every eigenvalue was found, so that "all negative directions" can be said
    effective_radius: float
    # gradient noise
    noise_trace: Estimate  # tr C of the per-sample gradient covariance
    # the SAM Jacobian, only where the hallucination test asks for it
    jacobian_eigenvalues: tuple[tuple[float, float], ...] | None  # (real, imaginary)
    jacobian_zero: float | None  # modulus up to which one of them counts as a zero mode
    self_check: SelfCheck
    second_opinion: SecondOpinion | None = None
    lookahead_steps: int = 2
    lookahead_error: float = 0.0  # standard errors of the two lookahead losses: mini-batch noise in the trial run
    lookahead_error_sgd: float = 0.0
    batch_norm: bool = False  # measured with running statistics where training uses the batch's own
    ascent_noise: float = 0.0  # the noise part tr C/m of what divides rho, squared; 0: full batch, or nothing divides
    notes: tuple[str, ...] = ()
    # how the run differs from heavy-ball SAM with decay in the update
    nesterov: bool = False
    dampening: float = 0.0  # PyTorch's: v ← gamma·v + (1 − dampening)·g; equal to momentum it is an average (EMA)
    micro_batch: int | None = None  # samples behind one ascent gradient (m-SAM); None: the whole training batch
    objective_decay: float = 0.0  # weight decay that is part of f, g and H; `weight_decay` is only in the update
    mode: str = "eval"  # "train": BatchNorm with the batch's own statistics
    batch_update: BatchUpdate | None = None  # None: full batch
    forecast: Forecast | None = None  # None: incomplete spectrum, mini-batches, or no lr
    largest_multiplier: Estimate | None = None  # of the linearised iteration at this point, momentum included
    surviving_gradient: float | None = None  # |∇f| over |g| at the fixed point of the update that J predicts
    ascent_batch: int | None = None  # samples behind one ascent gradient; None: full batch
    solver: SolverRun | None = None  # how both ends were found
    engine: ProductEngine | None = field(default=None, compare=False)  # timings differ from run to run

    @property
    def step_size(self) -> float | None:
        """eta of the heavy ball (or Nesterov) iteration that the run is: lr·(1 − dampening)."""
        return None if self.lr is None else self.lr * (1.0 - self.dampening)


class Severity(StrEnum):
    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


class Confidence(StrEnum):
    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"


VERDICTS_BY_HARM: tuple[str, ...] = (
    "unstable",
    "hallucinated-minimizer",
    "saddle-attraction",
    "saddle-slowdown",
    "hallucinated-point",
    "convergence-floor",
    "bounce",
    "saddle-escaping",
    "undecided",
    "descending",
    "minimum",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that holds at the checkpoint, with the numbers that say so and the theorem behind it."""

    verdict: str
    severity: Severity
    confidence: Confidence
    evidence: Mapping[str, float | int | str | None]
    message: str
    source: str
    contradicted: bool = False  # by the dynamics probe: kept for its evidence, and no gate looks at it


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointInfo:
    """Which checkpoint it is.

    Attributes:
        path: as the user named it.
        format: of `formats`.
        fingerprint: "sha256:…" of its content.
        num_params: trainable parameters.
        step: the training step that the checkpoint says it was saved after, or else its name; None: neither does.
    """

    path: str
    format: str | None = None
    fingerprint: str | None = None
    num_params: int | None = None
    step: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why there is no diagnosis: one line of what, one line of what to do."""

    what: str
    todo: str
    exit_code: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """All that was found about one checkpoint, or the failure that prevented it. One line of JSON Lines."""

    checkpoint: CheckpointInfo | None
    settings: Mapping[str, Setting]
    measurements: Measurements | None
    verdict: str
    findings: tuple[Finding, ...]
    prescription: Prescription | None
    warnings: tuple[str, ...] = ()
    failure: Failure | None = None
    probe: Probe | None = None  # only where it was asked for
    timings: Mapping[str, float] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    samdiag_version: str = ""
    request: str = ""  # "sha256:…" of all that was asked, settings included: equal for equal questions
    format_version: int = FORMAT_VERSION

    def to_dict(self) -> dict[str, Any]:
        """The JSON object of `samdiag schema`; infinities and NaN become the strings "Infinity", "-Infinity", "NaN"."""
        from samdiag.encoding import as_object

        return as_object(self)
