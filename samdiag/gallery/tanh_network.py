"""A tanh network on which SAM hallucinates: one exact case, and how often it happens from random initial weights.

What to expect is docs/theory.md B3 to B7 and E; the set-up is that of `tanh_network_study`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from samdiag.gallery.experiment import Experiment, Outcome, Row, Tell

if TYPE_CHECKING:
    from samdiag.gallery.dynamics import Array
    from samdiag.types import Diagnosis, Problem


def tanh_network() -> Problem:
    """The exact case: the network at a hallucinated minimizer for rho = 2.583486."""
    from samdiag.gallery.tanh_network_model import as_problem, network

    return as_problem(network())


def perform(folder: Path, seed: int, tell: Tell) -> Outcome:
    """All rows, three pictures and two checkpoints."""
    from samdiag.gallery import tanh_network_pictures as pictures
    from samdiag.gallery import tanh_network_rows as rows
    from samdiag.gallery.tanh_network_runs import fresh_weights, train
    from samdiag.gallery.tanh_network_study import LR, SEEDS, SHOWN, STEPS, diagnosed, observe, regression

    problem, start = regression(), fresh_weights(SEEDS, seed)
    tell(f"the exact case: {rows.RETURN_STEPS} steps from 20 starts")
    said = rows.exact_rows(seed)
    study = observe(problem, start, tell)
    said += [*rows.share_rows(study), *rows.signature_rows(problem, study), *rows.warm_rows(study)]
    tell(f"samdiag on the {SEEDS} ends at rho {SHOWN:g}")
    diagnoses = [diagnosed(w, SHOWN) for w in study.runs[0, SHOWN].ends]
    said += rows.verdict_rows(diagnoses, study.ends[0, SHOWN])
    drawn = [folder / f"tanh-network-{name}.png" for name in ("shares", "losses")]
    checkpoints: list[Path] = []
    cured = None
    if len(study.stuck):  # 60 runs without a single hallucination are not to be expected
        advised = np.array([prescribed_rho(d) for d, flag in zip(diagnoses, study.shown, strict=True) if flag])
        tell(f"what frees the {len(study.stuck)} hallucinated runs")
        cured, more = rows.cure_rows(problem, study.stuck, advised)
        checkpoints, verdicts = _checkpoints(folder, study.stuck[0], cured.ends[0], float(advised[0]))
        said += [*more, *verdicts]
        run = train(problem, start[study.shown][:1], rho=SHOWN, lr=LR, num_steps=STEPS, every=1)
        drawn.append(folder / "tanh-network-run.png")
        pictures.draw_run(drawn[-1], run)
    tell("pictures")
    pictures.draw_shares(drawn[0], study)
    pictures.draw_losses(drawn[1], study, cured)
    return Outcome(rows=tuple(said), pictures=tuple(drawn), checkpoints=tuple(checkpoints), remarks=REMARKS)


REMARKS = (
    "The share depends on the set-up: at ρ 2.5, 36 % of 180 runs hallucinate with lr 0.2 and 51 % with lr 0.05.",
    "The runs at ρ ≥ 1 that do not hallucinate are mostly caught by the saddle of the constant network (theory A6).",
    "The warm start frees those, so that the mean loss falls; the hallucinated share rises all the same.",
    "Most spontaneous cases have x+ at a strict saddle of f, not at a minimum: J is stable there nevertheless.",
    "Runs that bounce are chaotic: on another machine a count may differ by one or two.",
)


def prescribed_rho(diagnosis: Diagnosis) -> float:
    """The rho that samdiag prescribes; 0, plain gradient descent, where it has none."""
    prescription = diagnosis.prescription
    return (prescription.rho.recommended or 0.0) if prescription else 0.0


def _checkpoints(folder: Path, stuck: Array, cured: Array, advised: float) -> tuple[list[Path], list[Row]]:
    """A hallucinated end and the same run after the prescribed radius, with samdiag's verdict on the first."""
    import torch

    from samdiag.gallery.endpoints import save_weights, verdict_row
    from samdiag.gallery.tanh_network_model import TanhNetwork, dataset
    from samdiag.gallery.tanh_network_study import LR, SHOWN

    stamped = {"model": "tanh-network", "data": "tanh-network", "loss": "model", "batch_size": len(dataset())}
    paths = []
    for name, weights, rho in (("hallucinated", stuck, SHOWN), ("recovered", cured, advised)):
        state = TanhNetwork(torch.from_numpy(weights.copy())).state_dict()
        path = folder / f"tanh-network-{name}.safetensors"
        paths.append(save_weights(path, state, rho=rho or None, variant="sam", lr=LR, **stamped))
    return paths, [verdict_row(paths[0], "hallucinated-minimizer")]


EXPERIMENT = Experiment(
    name="tanh-network",
    title="A tanh network on which SAM hallucinates, with and without a warm start",
    source="PARK, Def. 2.1 and the warm start; docs/theory.md B3 to B7, E",
    run=perform,
)
