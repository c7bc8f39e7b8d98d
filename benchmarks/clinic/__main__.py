"""`python -m benchmarks.clinic run --out DIR`, then `report` and `thresholds`; `rejudge` after a new threshold."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.clinic.families import FAMILIES


def main(arguments: list[str] | None = None) -> int:
    """The exit code."""
    options = parsed(arguments)
    if options.command == "report":
        from benchmarks.clinic.report import write

        write(options.out, docs=options.docs)
        return 0
    if options.command == "rejudge":
        from benchmarks.clinic.cases import rejudge

        print(f"{rejudge(options.out)} verdicts changed; run again to make the rescues that are missing now")
        return 0
    if options.command == "thresholds":
        from benchmarks.clinic import sensitivity

        sensitivity.write(options.out)
        return 0
    from benchmarks.clinic.running import run

    return run(options)


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.clinic", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="train, find the truth, judge, rescue; what is there already is kept")
    run.add_argument("--family", action="append", choices=list(FAMILIES), help="only these (default: all)")
    run.add_argument("--half", choices=("first", "second", "both"), default="both")
    run.add_argument("--quick", action="store_true", help="a few runs of every family, their last checkpoint alone")
    run.add_argument("--scale", type=float, default=1.0, help="times as many seeds")
    run.add_argument("--workers", type=int, default=2, help="processes of one thread each")
    run.add_argument("--hours", type=float, default=float("inf"), help="start nothing new after this long")
    for flag, what in (("--again", "make this section anew; the truth is kept"), ("--skip", "leave this section out")):
        run.add_argument(flag, action="append", default=[], choices=("judged", "rescue", "treated"), help=what)
    report = commands.add_parser("report", help="write docs/clinic.md, clinic.json and the pictures")
    report.add_argument("--docs", type=Path, default=Path(__file__).resolve().parents[2] / "docs")
    again = commands.add_parser("rejudge", help="the verdicts of now from what is measured already; nothing is trained")
    study = commands.add_parser("thresholds", help="write docs/thresholds.md: every threshold halved and doubled")
    for command in (run, report, again, study):
        command.add_argument("--out", type=Path, required=True, help="folder of the cases")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
