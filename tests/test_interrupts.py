"""Ctrl-C leaves whole what it stops, and everything usable after it."""

import signal
import subprocess
import sys
import textwrap

import pytest

from helixlab._interrupts import ctrl_c_at_once, deferred_ctrl_c, loaded


@pytest.fixture(autouse=True)
def as_in_a_terminal():
    """Python's own handler, also where the shell has the signal ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGINT, before)


def press():
    signal.raise_signal(signal.SIGINT)


def test_the_third_time_it_raises():
    with deferred_ctrl_c() as ctrl_c:
        assert not ctrl_c.pressed
        press()
        assert ctrl_c.pressed
        press()
        with pytest.raises(KeyboardInterrupt):
            press()


def test_inside_of_another_both_hear_of_it():
    with deferred_ctrl_c() as outer:
        with deferred_ctrl_c() as inner:
            press()
            assert inner.pressed
        assert outer.pressed


def test_a_handler_of_ones_own_stays():
    heard = []
    before = signal.signal(signal.SIGINT, lambda *where: heard.append(where))
    try:
        with deferred_ctrl_c() as ctrl_c:
            press()
        assert heard
        assert not ctrl_c.pressed
    finally:
        signal.signal(signal.SIGINT, before)


def module_of(monkeypatch, tmp_path, name, code):
    (tmp_path / f"{name}.py").write_text(textwrap.dedent(code))
    monkeypatch.syspath_prepend(tmp_path)
    return name


def test_modules_are_loaded_whole(monkeypatch, tmp_path):
    code = """\
        import signal
        for _ in range(5):
            signal.raise_signal(signal.SIGINT)
        done = True
    """
    name = module_of(monkeypatch, tmp_path, "interrupted_module", code)
    with pytest.raises(KeyboardInterrupt):
        loaded(name)
    assert sys.modules[name].done
    assert loaded(name).done


def test_what_takes_long_is_stopped_at_once(monkeypatch, tmp_path):
    code = """\
        import signal
        from helixlab._interrupts import ctrl_c_at_once
        with ctrl_c_at_once():
            signal.raise_signal(signal.SIGINT)
            raise SystemError("not reached")
    """
    with pytest.raises(KeyboardInterrupt):
        loaded(module_of(monkeypatch, tmp_path, "long_module", code))
    code = """\
        import signal
        from helixlab._interrupts import ctrl_c_at_once
        signal.raise_signal(signal.SIGINT)
        with ctrl_c_at_once():
            raise SystemError("not reached")
    """
    with pytest.raises(KeyboardInterrupt):
        loaded(module_of(monkeypatch, tmp_path, "longer_module", code))
    with ctrl_c_at_once(), pytest.raises(KeyboardInterrupt):
        press()


FIRST_CALL = """\
import os, signal, sys, threading
import helixlab as hx
signal.signal(signal.SIGINT, signal.default_int_handler)
system = (hx.load_cluster("small10"), hx.load_model("llama-1-30b"),
          hx.load_placement("small10/llama-1-30b/helix"))
calls = {
    "simulate": lambda: hx.simulate(*system, workload=hx.offline(warmup_s=0, duration_s=5)),
    "plan": lambda: hx.plan(*system[:2], method="paper-milp", time_limit_s=1),
}
threading.Timer(float(sys.argv[2]), lambda: os.kill(os.getpid(), signal.SIGINT)).start()
try:
    calls[sys.argv[1]]()
except KeyboardInterrupt:
    print("stopped")
print(calls[sys.argv[1]]() is not None)
"""


@pytest.mark.parametrize(
    ("what", "after_s"), [("simulate", 0.05), ("simulate", 0.15), ("plan", 0.2), ("plan", 0.6)]
)
def test_the_next_call_works(what, after_s):
    """Packages that are cut short while they are imported cannot be imported again."""
    arguments = [sys.executable, "-c", FIRST_CALL, what, str(after_s)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "True"


def test_the_command_line_while_it_is_loaded():
    code = """\
import sys
from helixlab import __main__
def stopped(name):
    raise KeyboardInterrupt
__main__.loaded = stopped
sys.exit(__main__.main())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "helixlab: interrupted\n")
