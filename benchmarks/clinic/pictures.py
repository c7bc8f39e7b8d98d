"""The clinic's pictures: confusion, rescue, predicted against observed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.clinic.figures import ARMS, LABELS, Case, escapes, judged_cases, verdict_of
from benchmarks.clinic.judging import RIGHT
from benchmarks.clinic.truth import label
from samdiag.pictures import FAINT, FOURTH, GD, SAM, THEORY, THIRD, sheet
from samdiag.types import VERDICTS_BY_HARM

COLOURS = (GD, SAM, THIRD, FOURTH, "#E69F00", "#56B4E9", "#F0E442", "#000000")  # Okabe & Ito's
MARKERS = "osD^vP*X"


def confusion(cases: list[Case], path: Path, title: str) -> None:
    """Label × verdict as a heat map; every row's shares are its colours, and the numbers are counts."""
    known = judged_cases(cases)
    if not known:
        return
    verdicts = [v for v in VERDICTS_BY_HARM if any(verdict_of(c) == v for c in known)]
    labels = [name for name in LABELS if any(label(c["truth"]) == name for c in known)]
    counts = [[sum(label(c["truth"]) == a and verdict_of(c) == v for c in known) for v in verdicts] for a in labels]
    with sheet(path, panels=1, title=title, panel=(1.6 + 0.85 * len(verdicts), 1.9 + 0.5 * len(labels))) as drawn:
        axes = drawn.panels[0]
        shares = [[n / max(sum(row), 1) for n in row] for row in counts]
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1.2, aspect="auto")
        for i, row in enumerate(counts):
            for j, n in enumerate(row):
                if n:
                    claims = verdicts[j] in RIGHT and verdicts[j] != "bounce"
                    false = claims and labels[i] != "borderline" and labels[i] not in RIGHT[verdicts[j]][0]
                    colour = "#B00000" if false else "white" if shares[i][j] > 0.6 else "black"
                    axes.text(
                        j, i, str(n), ha="center", va="center", color=colour, fontweight="bold" if false else "normal"
                    )
        axes.set_xticks(range(len(verdicts)), [v.replace("-", "-\n") for v in verdicts], fontsize=8)
        axes.set_yticks(range(len(labels)), [f"{a} ({sum(row)})" for a, row in zip(labels, counts, strict=True)])
        axes.tick_params(length=0)
        axes.set_xlabel("verdict of samdiag (red: its claim did not come true)")
        axes.set_ylabel("what then happened")
        for spine in axes.spines.values():
            spine.set_visible(False)


def rescue(rates: dict[str, dict[str, Any]], path: Path, title: str) -> None:
    """Share of stuck runs rescued by every remedy, with its 95 % interval."""
    names = [arm for arm in ARMS if rates[arm]["count"]]
    with sheet(path, panels=1, title=title, panel=(6.6, 0.9 + 0.5 * max(len(names), 1))) as drawn:
        axes = drawn.panels[0]
        for place, arm in enumerate(reversed(names)):
            found = rates[arm]
            own = arm in ARMS[:2]
            axes.barh(place, found["share"], color=SAM if own else FAINT, height=0.62)
            axes.plot([found["low"], found["high"]], [place, place], color=THEORY, linewidth=1.2)
            axes.text(1.02, place, f"{found['hits']} of {found['count']}", va="center", fontsize=9.5)
        axes.set_yticks(range(len(names)), list(reversed(names)))
        axes.set_xlim(0, 1.0)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25 %", "50 %", "75 %", "100 %"])
        axes.set_xlabel("stuck runs rescued (bar: share; line: 95 % interval)")


def escape(cases: list[Case], path: Path, title: str) -> None:
    """Observed over predicted steps to leave, one mark a case."""
    found = escapes(cases)
    with sheet(path, panels=1, title=title, panel=(6.0, 5.0)) as drawn:
        axes = drawn.panels[0]
        values = [max(e["predicted"], 1) for e in found] + [max(e["observed"] or e["horizon"], 1) for e in found]
        low, high = 0.7 * min(values, default=1), 1.5 * max(values, default=1000)
        axes.fill_between([low, high], [0.5 * low, 0.5 * high], [2 * low, 2 * high], color=FAINT, alpha=0.18, lw=0)
        axes.plot([low, high], [low, high], color=THEORY, linewidth=1.0)
        for i, family in enumerate(sorted({e["family"] for e in found})):
            own = [e for e in found if e["family"] == family]
            seen = [e for e in own if e["observed"] is not None]
            missed = [e for e in own if e["observed"] is None]
            style: dict[str, Any] = {"marker": MARKERS[i], "linestyle": "", "color": COLOURS[i], "markersize": 5.5}
            axes.plot(
                [e["predicted"] for e in seen], [max(e["observed"], 1) for e in seen], label=family, alpha=0.8, **style
            )
            axes.plot([e["predicted"] for e in missed], [e["horizon"] for e in missed], fillstyle="none", **style)
        axes.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high))
        axes.set_xlabel("predicted steps to leave the saddle, as prescribed")
        axes.set_ylabel("observed steps (hollow: not within the steps run)")
        if found:
            axes.legend(title="grey: within a factor of 2", title_fontsize=9, fontsize=8.5, loc="upper left")
