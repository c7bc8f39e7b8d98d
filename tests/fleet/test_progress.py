"""Rate and time left, on a clock of the tests' own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samdiag.fleet.progress import WINDOW, Pace, duration, rate_text, stage_text


def paced(total: int | None, times: list[float]) -> Pace:
    pace = Pace(total, 0.0)
    for now in times:
        pace.finish(now)
    return pace


def test_nothing_is_said_before_the_first_record() -> None:
    pace = Pace(500, 0.0)
    assert pace.text(7.0) == "0/500"
    assert (pace.rate(7.0), pace.seconds_left(7.0)) == (None, None)


def test_steady() -> None:
    pace = paced(500, [0.5 * n for n in range(1, 138)])
    assert pace.rate(68.5) == pytest.approx(2.0)
    assert pace.text(68.5) == "137/500, 2.0 per s, 3 min 2 s left"
    assert pace.text(68.5, "spectrum: 12 Hessian products").endswith(" left, spectrum: 12 Hessian products")


@given(num=st.integers(1, 100), total=st.integers(100, 1000), seconds=st.floats(0.01, 1e4), start=st.floats(-1e6, 1e6))
def test_a_steady_rate_is_found_whatever_the_clock(num: int, total: int, seconds: float, start: float) -> None:
    pace = Pace(total, start)
    for n in range(1, num + 1):
        pace.finish(start + n * seconds)
    now = start + num * seconds
    assert pace.rate(now) == pytest.approx(1 / seconds, rel=1e-4)
    assert pace.seconds_left(now) == pytest.approx((total - num) * seconds, rel=1e-4, abs=1e-6)


def test_the_last_records_count() -> None:
    slow = [10.0 * n for n in range(1, 50)]
    fast = [slow[-1] + 0.1 * n for n in range(1, WINDOW + 1)]
    assert paced(1000, slow + fast).rate(fast[-1]) == pytest.approx(10.0)


def test_the_start_is_left_out_once_there_is_enough() -> None:
    times = [100.0 + n for n in range(20)]  # imports took 99 seconds
    assert paced(50, times[:2]).rate(101.0) == pytest.approx(2 / 101)
    assert paced(50, times).rate(119.0) == pytest.approx(1.0)


def test_resumed_records_count_as_done_and_not_for_the_rate() -> None:
    pace = Pace(1000, 0.0)
    for _ in range(600):
        pace.finish(30.0, resumed=True)
    assert pace.text(30.0) == "600/1000"
    pace.finish(32.0)
    assert pace.rate(32.0) == pytest.approx(0.5)
    for _ in range(99):
        pace.finish(32.0, resumed=True)
    pace.finish(34.0)
    assert pace.rate(34.0) == pytest.approx(0.5)
    assert pace.text(34.0) == "701/1000, 30 per min, 9 min 58 s left"


def test_a_long_record_lowers_the_rate_and_lengthens_the_rest() -> None:
    pace = paced(20, [1.0, 2.0, 3.0, 4.0])
    assert pace.seconds_left(4.0) == pytest.approx(16.0)
    assert pace.seconds_left(4.5) == pytest.approx(15.5)
    assert pace.rate(5.0) == pytest.approx(1.0)
    assert pace.rate(21.0) == pytest.approx(0.2)
    assert (pace.seconds_left(21.0) or 0.0) > 60.0


def test_bursts_of_workers_are_evened_out() -> None:
    bursts = [2.0 * (n // 4 + 1) for n in range(60)]  # four records every two seconds
    assert paced(100, bursts).rate(bursts[-1]) == pytest.approx(2.0, rel=0.2)


def test_no_two_records_in_no_time() -> None:
    assert paced(3, [0.0, 0.0]).text(0.0) == "2/3"


def test_failures_and_unknown_totals() -> None:
    pace = Pace(None, 0.0)
    pace.finish(1.0, failed=True)
    assert pace.text(1.0) == "1, 1 failed, 1.0 per s"


def test_nothing_is_left_at_the_end() -> None:
    assert paced(2, [1.0, 2.0]).text(2.0) == "2/2, 1.0 per s"


@pytest.mark.parametrize(
    ("rate", "text"),
    [(123.4, "123 per s"), (9.96, "10 per s"), (1.0, "1.0 per s"), (0.5, "30 per min"), (0.01, "36 per h")],
)
def test_rates(rate: float, text: str) -> None:
    assert rate_text(rate) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "0 s"),
        (59.6, "1 min 0 s"),
        (173.0, "2 min 53 s"),
        (3900.0, "1 h 5 min"),
        (86400 * 3 + 7300.0, "3 d 2 h"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_stages() -> None:
    assert stage_text("spectrum", 12) == "spectrum: 12 Hessian products"
    assert stage_text("reading the data", 0) == "reading the data"
