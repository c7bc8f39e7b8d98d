"""`python docs/examples/check.py NAME`: how well an example's weights do their own task on its data.

The model, the data and the weights are put together as `samdiag inspect` does it, so that a figure near chance would
mean that the weights were loaded wrongly, and its report would say nothing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from samdiag.formats import open_checkpoint
from samdiag.spec.build import build_problem
from samdiag.spec.discover import resolve
from samdiag.types import Problem

HERE = Path(__file__).parent
CHECKPOINTS = {
    "pnet": "pnet.pt",
    "rnet": "rnet.pt",
    "onet": "onet.pt",
    "crepe": "tiny.pth",
    "silero_vad": "silero_vad_16k.safetensors",
    "resemblyzer": "pretrained.pt",
    "minilm": "model",
    "rxnmapper": "model",
    "rxnfp": "model",
    "attacut": "model.pth",
}


def main(arguments: list[str] | None = None) -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(description="Checks that an example's weights do what they were trained for.")
    parser.add_argument("names", nargs="+", metavar="NAME", choices=CHECKPOINTS, help=", ".join(CHECKPOINTS))
    for name in parser.parse_args(arguments).names:
        figures = figures_of(name, HERE / name)
        print(f"{name}: " + ", ".join(f"{what} {value:.4g}" for what, value in figures.items()))
    return 0


def figures_of(name: str, folder: Path) -> dict[str, float]:
    """The figures of the example `name` that was laid out in `folder`: its task's own, and the loss."""
    checkpoint = open_checkpoint(folder / CHECKPOINTS[name])
    problem = build_problem(resolve(overrides={}, config=None, checkpoint=checkpoint, cwd=folder), checkpoint)
    problem.model.eval()
    with torch.no_grad():
        batches = list(problem.batches)
        losses = [float(problem.loss(problem.model, batch)) for batch in batches]
        right = torch.cat([RIGHT[name](problem, batch) for batch in batches]).to(torch.float64)
    return {TASKS[name]: float(right.mean()), "loss": sum(losses) / len(losses)}


def _classified(problem: Problem, batch: Any) -> Tensor:
    inputs, targets = batch
    return problem.model(inputs).argmax(1) == targets


def _switched(problem: Problem, batch: Any) -> Tensor:
    inputs, targets = batch
    return ((problem.model(inputs) > 0) == (targets > 0.5)).flatten()


def _pitched(problem: Problem, batch: Any) -> Tensor:
    inputs, targets = batch
    return (problem.model(inputs).argmax(1) - targets.argmax(1)).abs() <= 2  # classes of 20 cents: within 40 cents


def _filled_in(problem: Problem, batch: Any) -> Tensor:
    answer = problem.model(**{name: value for name, value in batch.items() if name != "labels"})
    found = (answer.logits if "logits" in answer else answer.prediction_logits).argmax(-1)
    hidden = batch["labels"] != -100
    return found[hidden] == batch["labels"][hidden]


def _named(problem: Problem, batch: Any) -> Tensor:
    """Whether each utterance is nearest to the mean of its own speaker's others."""
    vectors = problem.model(batch)
    total = vectors.sum(1, keepdim=True)
    found = []
    for speaker, mine in enumerate(vectors):
        centres = total.squeeze(1).expand(len(mine), *total.squeeze(1).shape).clone()
        centres[:, speaker] -= mine
        cosines = torch.einsum("ud,utd->ut", mine, functional.normalize(centres, dim=2))
        found.append(cosines.argmax(1) == speaker)
    return torch.cat(found)


def _found(problem: Problem, batch: Any) -> Tensor:
    """Whether each word's own definition is the nearest of the batch."""
    words, texts = (_mean_state(problem, numbered) for numbered in batch)
    return (words @ texts.T).argmax(1) == torch.arange(len(words))


def _mean_state(problem: Problem, numbered: Tensor) -> Tensor:
    mask = (numbered != 0).long()
    states = problem.model(input_ids=numbered, attention_mask=mask).last_hidden_state
    return functional.normalize((states * mask.unsqueeze(2)).sum(1), dim=1)


RIGHT: dict[str, Callable[[Problem, Any], Tensor]] = {
    **dict.fromkeys(("pnet", "rnet", "onet"), _classified),
    **dict.fromkeys(("silero_vad", "attacut"), _switched),
    **dict.fromkeys(("rxnmapper", "rxnfp"), _filled_in),
    "crepe": _pitched,
    "resemblyzer": _named,
    "minilm": _found,
}
TASKS = {
    **dict.fromkeys(("pnet", "rnet", "onet"), "accuracy"),
    "silero_vad": "accuracy over steps",
    "attacut": "accuracy over characters",
    **dict.fromkeys(("rxnmapper", "rxnfp"), "masked tokens filled in"),
    "crepe": "pitch within 40 cents",
    "resemblyzer": "speaker named",
    "minilm": "definition found among 16",
}


if __name__ == "__main__":
    sys.exit(main())
