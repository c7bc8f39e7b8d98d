"""How long a measurement may take: limits, and the first interruption."""

from __future__ import annotations

import time

from samdiag.patience import INTERRUPTED, TIME_LIMIT, Patience


def test_no_limit_never_runs_out() -> None:
    patience = Patience()
    patience.begin(None)
    assert patience.run_out() is None


def test_a_limit_runs_out_and_a_new_checkpoint_starts_afresh() -> None:
    patience = Patience()
    patience.begin(1e-9)
    time.sleep(1e-3)
    assert patience.run_out() == TIME_LIMIT
    patience.begin(60.0)
    assert patience.run_out() is None
    patience.begin(None)
    assert patience.run_out() is None


def test_only_a_listening_stage_takes_note_and_only_once() -> None:
    patience = Patience()
    assert not patience.interrupt()
    with patience.listening():
        assert patience.interrupt()
        assert patience.run_out() == INTERRUPTED
        assert not patience.interrupt()
    assert patience.run_out() == INTERRUPTED
