"""Clock of a search."""

import math

from helixlab.planning.record import SearchClock


def test_without_a_limit_it_is_never_late():
    clock = SearchClock(None, lambda *_: None)
    assert math.isinf(clock.limit_s)
    assert not clock.is_late()
    assert not clock.is_late(1e-12)


def test_a_fraction_of_the_time_is_over_before_all_of_it():
    clock = SearchClock(1000.0, lambda *_: None)
    assert clock.is_late(1e-12)
    assert not clock.is_late()


def test_the_trace_has_what_was_recorded_and_progress_what_was_shown_too():
    shown = []
    clock = SearchClock(None, lambda *row: shown.append(row))
    clock.record(1.0, 5.0)
    clock.show(1.0, 5.0)
    clock.record(2.0)
    assert [row[1] for row in clock.trace] == [1.0, 2.0]
    assert math.isnan(clock.trace[-1][2])
    assert [row[1] for row in shown] == [1.0, 1.0, 2.0]
    seconds = [row[0] for row in shown]
    assert seconds == sorted(seconds)
