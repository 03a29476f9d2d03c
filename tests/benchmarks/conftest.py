"""Puts what was measured beside what is aimed at, below the benchmark's own table."""

import pytest

ROWS = pytest.StashKey[list]()


@pytest.fixture
def table(request):
    """Rows of what, measured, aimed at, unit."""
    return request.config.stash.setdefault(ROWS, [])


def pytest_terminal_summary(terminalreporter, config):
    rows = config.stash.get(ROWS, [])
    width = max((len(what) for what, *_ in rows), default=0)
    if rows:
        terminalreporter.section("measured, and aimed at")
    for what, measured, aim, unit in sorted(rows):
        late = "" if measured <= aim else "  over"
        terminalreporter.write_line(f"{what:{width}}  {measured:8.3g}  {aim:5.3g} {unit}{late}")
