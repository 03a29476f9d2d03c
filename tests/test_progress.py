"""Progress bars: where someone looks, and only there."""

import io
import sys

import pytest

import helixlab as hx
from helixlab import _progress as progress

SUBJECT = (
    hx.load_cluster("small10"),
    hx.load_model("llama-1-30b"),
    hx.load_placement("small10/llama-1-30b/helix"),
)


class Screen(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def at_once(monkeypatch):
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    monkeypatch.setattr(progress, "DELAY_S", 0.0)


def seen(call, where=Screen, **how):
    """What a call writes to stderr, which pytest sets anew for every test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stderr", where())
        call(**how)
        return sys.stderr.getvalue()


def simulate(**how):
    hx.simulate(*SUBJECT, workload=hx.offline(warmup_s=0, duration_s=20), **how)


CALLS = {
    "simulating": simulate,
    "sweep": lambda **how: hx.sweep(
        {"placement": SUBJECT[2].name, "workload": hx.offline(warmup_s=0, duration_s=5)}, seeds=2, **how
    ),
    "helix": lambda **how: hx.plan(*SUBJECT[:2], objective="flow", time_limit_s=2, **how),
}


@pytest.mark.parametrize("what", CALLS)
def test_on_a_terminal_and_not_into_a_pipe(at_once, what):
    assert f"{what}:" in seen(CALLS[what])
    assert seen(CALLS[what], io.StringIO) == ""


def test_not_where_it_was_switched_off(at_once, monkeypatch):
    assert seen(simulate, progress=False) == ""
    monkeypatch.setenv("TQDM_DISABLE", "1")
    assert seen(simulate) == ""


def test_not_of_what_is_over_at_once():
    assert "simulating" not in seen(simulate)


def test_when_asked_for():
    assert "simulating:" in seen(simulate, io.StringIO, progress=True)


def test_without_any_stderr(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    simulate()


def test_a_table_takes_its_place(at_once):
    assert seen(simulate, progress_table_step_s=5) == ""
