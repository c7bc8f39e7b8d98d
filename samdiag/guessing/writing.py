"""A proposal as the text of a samdiag.toml: every line valid TOML or a comment, whatever the checkpoint contains."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from samdiag.guessing.proposal import Part, Proposal
from samdiag.spec.toml_text import assignment, comment

NEEDED = "TO BE FILLED IN"
MAX_OTHERS = 4  # more alternatives than one reads


def render(proposal: Proposal) -> str:
    """The file's text; it parses as TOML also where parts are missing."""
    return "\n".join(_lines(proposal)) + "\n"


def _lines(proposal: Proposal) -> Iterator[str]:
    yield comment(f"Written by `samdiag init` for {proposal.checkpoint}. Correct it where it is wrong.")
    yield from (comment(line) for line in (*proposal.described, *proposal.remarks))
    yield ""
    for part in proposal.parts:
        yield from _part(part)
        if part.name == "data" and proposal.unnormalised is not None:
            yield comment("how its pixels were normalised is not known; if as usual for ImageNet, say it so:")
            yield comment(assignment("data", short(proposal.unnormalised)))
        yield ""
    if proposal.pythonpath:
        yield assignment("pythonpath", list(proposal.pythonpath))
        yield ""
    if proposal.weights is not None:
        yield comment("the file holds averaged weights alone")
        yield assignment("weights", proposal.weights)
        yield ""
    yield from _sam(proposal)
    if proposal.layers:
        yield ""
        yield comment("The network's modules, for whoever writes its factory:")
        yield from (comment(f"  {line}") for line in proposal.layers)


def _part(part: Part) -> Iterator[str]:
    if part.chosen is not None:
        yield comment(part.chosen.why)
        yield assignment(part.name, short(part.chosen.value))
    else:
        yield comment(f"{NEEDED}: {part.missing}")
        yield comment(assignment(part.name, short(part.example)))
    for other in part.others[:MAX_OTHERS]:
        yield comment(f"or: {assignment(part.name, short(other.value))}  ({other.why})")
    if len(part.others) > MAX_OTHERS:
        yield comment(f"and {len(part.others) - MAX_OTHERS} more")


def _sam(proposal: Proposal) -> Iterator[str]:
    yield "[sam]"
    if proposal.rho is not None:
        yield comment(proposal.rho_why)
        yield assignment("rho", proposal.rho)
    if proposal.kept:
        yield comment("kept from the file that was here before:")
    for name, value in proposal.kept.items():
        yield assignment(name, value)
    if proposal.hyperparameters:
        yield comment("What the checkpoint says itself and needs no line here; uncomment one to say it differently:")
    for name, (value, source) in proposal.hyperparameters.items():
        yield comment(f"{assignment(name.removeprefix('sam.'), value)}  ({source})")


def short(value: Any) -> Any:
    """The value as its user would write it: `{python = "a:b"}` is "a:b", `{name = "mse"}` is "mse"."""
    if not isinstance(value, Mapping):
        return value
    said = {key: item for key, item in value.items() if item not in (None, {})}
    return next(iter(said.values())) if set(said) in ({"python"}, {"gallery"}, {"name"}) else said
