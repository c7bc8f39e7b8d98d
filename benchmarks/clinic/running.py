"""All runs that were asked for, in processes of one thread each."""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
import traceback
from concurrent.futures import ProcessPoolExecutor, as_completed

from benchmarks.clinic.cases import work
from benchmarks.clinic.families import FAMILIES, Run, runs_of


def run(options: argparse.Namespace) -> int:
    """The exit code: 1 where a run failed; all others are still made."""
    until = time.monotonic() + 3600 * options.hours
    jobs = [
        run
        for half in (("first", "second") if options.half == "both" else (options.half,))
        for name in options.family or FAMILIES
        for run in runs_of(FAMILIES[name], half=half, quick=options.quick, scale=options.scale)
    ]
    context = multiprocessing.get_context("spawn")
    failed = 0
    with ProcessPoolExecutor(options.workers, mp_context=context) as pool:
        pending = [pool.submit(job, options, run, until) for run in jobs]
        for done, future in enumerate(as_completed(pending), start=1):
            name, seconds, error = future.result()
            failed += error is not None
            print(f"[{done}/{len(jobs)}] {name}: {seconds:.0f} s{' FAILED' if error else ''}", flush=True)
            if error:
                print(error, file=sys.stderr, flush=True)
    return 1 if failed else 0


def job(options: argparse.Namespace, run: Run, until: float) -> tuple[str, float, str | None]:
    """(what, seconds, the error's text or None); nothing is begun after `until`."""
    began = time.monotonic()
    name = f"{run.family} {run.setting.name} seed {run.seed}"
    if began > until:
        return f"{name} (out of time, not made)", 0.0, None
    try:
        work(options.out, run, quick=options.quick, again=options.again, skip=options.skip)
    except Exception:
        return name, time.monotonic() - began, traceback.format_exc()
    return name, time.monotonic() - began, None
