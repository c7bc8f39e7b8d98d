"""The prescription's schedule as lines of Python: davda54-style SAM, pytorch_optimizer, and a plain loop."""

from __future__ import annotations

from typing import Any

from samdiag.remedies import Schedule
from samdiag.reports.escape import printable
from samdiag.reports.recipes import resolved
from samdiag.types import Diagnosis, Measurements

DAVDA54 = "davda54-style SAM"
PYTORCH_OPTIMIZER = "pytorch_optimizer"
PLAIN = "a plain loop"
OFFERED = ("sam", "asam")  # variants of the two packages' SAM; ASAM is adaptive=True
DEFAULT_ALPHA, DEFAULT_ETA_A = 0.4, 0.01  # gsam's and asam-samsung's own defaults, as --help states them

_SETTINGS_AT = '''

def settings_at(step):
    """rho, lr, momentum and micro-batch at update `step` = 0, 1, ... from the checkpoint on."""
    for steps, first, last, lr, momentum, micro_batch in PHASES:
        if steps is None or step < steps:
            break
        step -= steps
    else:
        step = steps
    share = min(step / max(steps - 1, 1), 1.0) if first != last else 0.0
    return first * (last / first) ** share if share else first, lr, momentum, micro_batch'''

_TWO_STEPS = """for step, (inputs, targets) in enumerate(batches):
    rho, lr, momentum, _ = settings_at(step)
    for group in optimizer.param_groups:
        group["rho"] = rho
        group["lr"], group["momentum"] = lr, momentum
    loss_fn(model(inputs), targets).backward()
    optimizer.first_step(zero_grad=True)
    loss_fn(model(inputs), targets).backward()
    optimizer.second_step(zero_grad=True)"""

_LOOP = """for step, (inputs, targets) in enumerate(batches):
    rho, lr, momentum, micro_batch = settings_at(step)
    for group in optimizer.param_groups:
        group["lr"], group["momentum"] = lr, momentum
    parts = max(1, round(len(inputs) / micro_batch)) if micro_batch else 1
    descent = [torch.zeros_like(p) for p in params]
    for part_inputs, part_targets in zip(inputs.chunk(parts), targets.chunk(parts)):
        share = len(part_inputs) / len(inputs)
        for total, g in zip(descent, shifted_gradient(part_inputs, part_targets, rho)):
            total.add_(g, alpha=share)
    for p, total in zip(params, descent):
        p.grad = total
    optimizer.step()"""

_GRADIENT = """def gradient(inputs, targets):
    loss = loss_fn(model(inputs), targets)
    return torch.autograd.grad(loss, params, allow_unused=True, materialize_grads=True)


def norm_of(tensors):
    return torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(t) for t in tensors]))


def shifted_gradient(inputs, targets, rho):
    g = gradient(inputs, targets)
    if rho <= 0:
        return g
    kept = [p.detach().clone() for p in params]
    with torch.no_grad():
{ascent}
    shifted = gradient(inputs, targets)
    with torch.no_grad():
        for p, old in zip(params, kept):
            p.copy_(old)
{descent}"""

_ASCENTS = {
    "sam": """        scale = rho / (norm_of(g) + 1e-12)
        for p, g_p in zip(params, g):
            p.add_(scale * g_p)""",
    "usam": """        for p, g_p in zip(params, g):
            p.add_(rho * g_p)""",
    "asam": """        scale = rho / (norm_of([p.abs() * g_p for p, g_p in zip(params, g)]) + 1e-12)
        for p, g_p in zip(params, g):
            p.add_(scale * p**2 * g_p)""",
    "asam-samsung": """\
        t = [p.abs() + {eta_a!r} if "weight" in n else torch.ones_like(p) for n, p in zip(names, params)]
        scale = rho / (norm_of([t_p * g_p for t_p, g_p in zip(t, g)]) + 1e-12)
        for p, t_p, g_p in zip(params, t, g):
            p.add_(scale * t_p**2 * g_p)""",
}
_ASCENTS["gsam"] = _ASCENTS["sam"]
_GSAM = """    w = [s / (norm_of(shifted) + 1e-12) for s in shifted]
    along = sum((g_p * w_p).sum() for g_p, w_p in zip(g, w))
    return [s - {alpha!r} * (g_p - along * w_p) for s, g_p, w_p in zip(shifted, g, w)]"""


def render(diagnosis: Diagnosis) -> str:
    """Python lines with one part per way to run SAM, each under a `# ---` heading; "" where there is no schedule.

    The parts share what stands above the first heading and each run after it alone. They use `torch`, `model`,
    `loss_fn(outputs, targets)` and `batches` of (inputs, targets); `lr` as well where the run's is not known.
    """
    return (
        "\n\n\n".join([head, *(f"# --- {name} ---\n{code}" for name, code in parts(diagnosis).items())])
        if (head := shared(diagnosis))
        else ""
    )


def shared(diagnosis: Diagnosis) -> str:
    """What every part needs: the phases and what they say at a step; "" where there is no schedule."""
    p, m = diagnosis.prescription, diagnosis.measurements
    if p is None or p.schedule is None or m is None:
        return ""
    rows = [resolved(phase, m) for phase in p.schedule.phases]
    names = ("steps", "rho", "rho_end", "lr", "momentum", "micro_batch")
    table = "\n".join(f"    ({', '.join(_literal(name, row[name]) for name in names)})," for row in rows)
    lines = [
        f"# {printable(diagnosis.verdict)}: {printable(p.schedule.kind)}. Inspect again when a phase ends.",
        f"# Yours: model, loss_fn, {'lr, ' if m.lr is None else ''}and batches of (inputs, targets): {_sizes(rows)}.",
        "# Load the run's optimizer state before the loop, so that its momentum goes on.",
        "import torch",
        "",
        "PHASES = [  # steps (None: the rest), rho at the first and the last of them, lr, momentum, micro-batch",
        table,
        "]",
    ]
    return "\n".join(lines) + _SETTINGS_AT


def _literal(name: str, value: Any) -> str:
    return "lr" if name == "lr" and value is None else repr(value)


def _sizes(rows: list[dict[str, Any]]) -> str:
    """The batches of each phase in words, once where they are all the same."""
    words = ["all samples at once" if row["batch_size"] is None else f"{row['batch_size']} samples" for row in rows]
    if len(set(words)) == 1:
        return words[0]
    return ", then ".join(
        f"{said} for {row['steps']} steps" if row["steps"] else said for row, said in zip(rows, words, strict=True)
    )


def parts(diagnosis: Diagnosis) -> dict[str, str]:
    """Name → code; a package that cannot run this has a comment that says so."""
    p, m = diagnosis.prescription, diagnosis.measurements
    if p is None or p.schedule is None or m is None:
        return {}
    return {
        DAVDA54: _packaged(p.schedule, m, "from sam import SAM  # sam.py of github.com/davda54/sam"),
        PYTORCH_OPTIMIZER: _packaged(p.schedule, m, "from pytorch_optimizer import SAM"),
        PLAIN: _plain(diagnosis, p.schedule, m),
    }


def _options(schedule: Schedule, m: Measurements) -> str:
    """SGD's arguments at the first step."""
    first = resolved(schedule.phases[0], m)
    found = [f"lr={_literal('lr', first['lr'])}", f"momentum={first['momentum']!r}"]
    found += [f"weight_decay={m.weight_decay!r}"] if m.weight_decay else []
    found += [f"dampening={m.dampening!r}"] if m.dampening else []
    found += ["nesterov=True"] if m.nesterov else []
    return ", ".join(found)


def _packaged(schedule: Schedule, m: Measurements, imported: str) -> str:
    if m.variant not in OFFERED:
        return f"# It has no {printable(m.variant)}: use the plain loop."
    if any(resolved(phase, m)["micro_batch"] is not None for phase in schedule.phases):
        return "# It makes one ascent per batch, no micro-batches: use the plain loop."
    adaptive = ", adaptive=True" if m.variant == "asam" else ""
    made = (
        f"optimizer = SAM(model.parameters(), torch.optim.SGD, rho={schedule.phases[0].rho!r}{adaptive}, "
        f"{_options(schedule, m)})"
    )
    return f"{imported}\n\n{made}\n{_TWO_STEPS}"


def _plain(diagnosis: Diagnosis, schedule: Schedule, m: Measurements) -> str:
    alpha = _setting(diagnosis, "sam.alpha", DEFAULT_ALPHA)
    ascent = _ASCENTS[m.variant].format(eta_a=_setting(diagnosis, "sam.eta_a", DEFAULT_ETA_A))
    descent = _GSAM.format(alpha=alpha) if m.variant == "gsam" else "    return shifted"
    params = "params = [p for p in model.parameters() if p.requires_grad]"
    if m.variant == "asam-samsung":
        params = "names, params = zip(*((n, p) for n, p in model.named_parameters() if p.requires_grad))"
    return "\n".join(
        [
            params,
            f"optimizer = torch.optim.SGD(params, {_options(schedule, m)})",
            "",
            "",
            _GRADIENT.format(ascent=ascent, descent=descent),
            "",
            "",
            _LOOP,
        ]
    )


def _setting(diagnosis: Diagnosis, name: str, default: float) -> float:
    found = diagnosis.settings.get(name)
    return default if found is None or found.value is None else float(found.value)
