"""The clock of a search."""

import math

from helixlab.planning.record import Watch


def test_without_a_limit_it_is_never_late():
    watch = Watch(None, lambda *_: None)
    assert math.isinf(watch.limit_s)
    assert not watch.late()
    assert not watch.late(1e-12)


def test_a_part_of_the_time_is_over_before_all_of_it():
    watch = Watch(1000.0, lambda *_: None)
    assert watch.late(1e-12)
    assert not watch.late()


def test_the_trace_has_what_was_noted_and_progress_what_was_told_too():
    shown = []
    watch = Watch(None, lambda *row: shown.append(row))
    watch.note(1.0, 5.0)
    watch.tell(1.0, 5.0)
    watch.note(2.0)
    assert [row[1] for row in watch.trace] == [1.0, 2.0]
    assert math.isnan(watch.trace[-1][2])
    assert [row[1] for row in shown] == [1.0, 1.0, 2.0]
    seconds = [row[0] for row in shown]
    assert seconds == sorted(seconds)
