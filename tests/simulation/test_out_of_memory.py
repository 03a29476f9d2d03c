"""Memory that runs out, and other errors of the process, are said as what they are."""

import importlib
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

import helixlab as hx
from helixlab import cli
from helixlab.errors import HelixlabError, OutOfMemoryError
from helixlab.planning import METHODS
from helixlab.simulation import driver

simulate = importlib.import_module(
    "helixlab.simulation.simulate"
)  # the package has the function by that name
NAMES = ["small10", "llama-1-30b", "small10/llama-1-30b/helix"]
SYSTEM = hx.load_cluster(NAMES[0]), hx.load_model(NAMES[1]), hx.load_placement(NAMES[2])
MODULES = {"driver": driver, "simulate": simulate}
SHORT = hx.offline(warmup_s=5, duration_s=20)


def too_much(*arguments, **options):
    np.zeros(10**15)


@pytest.fixture(params=["driver.advance", "driver.enlarged", "simulate.build_result", "simulate.new_state"])
def without_memory(request, monkeypatch):
    """Memory runs out somewhere in a run."""
    module, _, name = request.param.partition(".")
    monkeypatch.setattr(MODULES[module], name, too_much)


@pytest.mark.usefixtures("without_memory")
def test_a_run_that_has_not_enough():
    many = hx.offline(initial_requests=5000, warmup_s=5, duration_s=20)
    said = r"memory ran out while simulating \(Unable to allocate 7.11 PiB\); .*keep_iterations=False"
    with pytest.raises(OutOfMemoryError, match=said):
        hx.simulate(*SYSTEM, workload=many)
    row = hx.sweep({"placement": NAMES[2], "workload": many}, progress=False).iloc[0]
    assert row["error"].startswith(
        "OutOfMemoryError: memory ran out while simulating (Unable to allocate 7.11"
    )


@pytest.mark.parametrize("where", ["driver.advance", "simulate.build_result"])
def test_on_the_command_line(monkeypatch, capsys, tmp_path, where):
    module, _, name = where.partition(".")
    monkeypatch.setattr(MODULES[module], name, too_much)
    asked = ["--cluster", NAMES[0], "--model", NAMES[1], "--placement", NAMES[2], "--duration", "20"]
    assert cli.main(["simulate", *asked, "-o", str(tmp_path / "result"), "--json"]) == 2
    out, said = capsys.readouterr()
    assert out == ""
    assert said.startswith("helixlab: memory ran out while simulating (Unable to allocate 7.11 PiB); ")
    assert said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "error",
    [RecursionError("too deep"), OSError(28, "No space left on device"), KeyboardInterrupt(), SystemExit(3)],
)
def test_nobody_s_function_is_blamed_for_errors_of_the_process(monkeypatch, error):
    def fails(*arguments):
        raise error

    monkeypatch.setattr(driver, "advance", fails)
    with pytest.raises(type(error)) as raised:
        hx.simulate(*SYSTEM, workload=SHORT)
    assert raised.value is error


def test_a_plan_that_needs_too_much(monkeypatch):
    monkeypatch.setitem(METHODS, "petals", too_much)
    with pytest.raises(OutOfMemoryError, match="memory ran out while planning"):
        hx.plan(*SYSTEM[:2], method="petals")


def test_results_that_need_too_much(monkeypatch, tmp_path):
    result = hx.simulate(*SYSTEM, workload=SHORT)
    result.save(tmp_path / "whole")
    with monkeypatch.context() as patched:
        patched.setattr(pd.DataFrame, "to_parquet", too_much)
        with pytest.raises(OutOfMemoryError, match="memory ran out while writing the result"):
            result.save(tmp_path / "half")
        patched.setattr(pd, "read_parquet", too_much)
        with pytest.raises(OutOfMemoryError, match="memory ran out while reading a result"):
            hx.load_result(tmp_path / "whole")
        patched.setattr(pd.DataFrame, "groupby", too_much)
        patched.setattr(pd.DataFrame, "assign", too_much)
        patched.setattr(pd.DataFrame, "merge", too_much)
        patched.setattr(pd, "concat", too_much)
        with pytest.raises(OutOfMemoryError, match="memory ran out while comparing"):
            hx.compare([result, result])
        with pytest.raises(OutOfMemoryError, match="memory ran out while drawing"):
            result.plot_timeline()
    assert [each.name for each in tmp_path.iterdir()] == ["whole"]


def test_a_limit_of_the_shell():
    """With little more address space than it has, a run ends with one line, and the next one is possible."""
    code = """if True:
        import resource
        import helixlab as hx
        names = "small10", "llama-1-30b", "small10/llama-1-30b/helix"
        system = hx.load_cluster(names[0]), hx.load_model(names[1]), hx.load_placement(names[2])
        short = hx.offline(warmup_s=5, duration_s=20)
        hx.simulate(*system, workload=short)
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (40 << 20), used + (40 << 20)))
        try:
            hx.simulate(*system, workload=hx.offline(duration_s=1e6), progress=False)
        except hx.errors.OutOfMemoryError as error:
            print(error)
        print(hx.simulate(*system, workload=short) is not None)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said, usable = done.stdout.splitlines()
    assert said.startswith("memory ran out while simulating (Unable to allocate ")
    assert usable == "True"


def test_it_is_both_an_error_of_helixlab_and_one_of_memory():
    assert issubclass(OutOfMemoryError, HelixlabError)
    assert issubclass(OutOfMemoryError, MemoryError)
