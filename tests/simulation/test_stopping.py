"""Ctrl-C ends a run with what there is, marked as partial."""

import importlib
import signal
import threading

import matplotlib.pyplot as plt
import pandas as pd
import pytest

import helixlab as hx
from helixlab import cli
from helixlab.simulation import driver as driving, progress_table as printing

running = importlib.import_module("helixlab.simulation.simulate")  # the package has the function by that name
SYSTEM = (
    hx.load_cluster("small10"),
    hx.load_model("llama-1-30b"),
    hx.load_placement("small10/llama-1-30b/helix"),
)
OFFLINE = hx.offline(warmup_s=20, duration_s=60, rng=0)
ONLINE = hx.online(rate_tokens_per_s=200, duration_s=60, rng=0)


@pytest.fixture
def stop_at(monkeypatch):
    """Press Ctrl-C when a run gets there, so many simulated seconds after its start."""

    def set_time(time_s):
        show = printing.ProgressTable.show

        def press(self, state, now_s):
            show(self, state, now_s)
            if now_s - self._start_s == time_s:
                signal.raise_signal(signal.SIGINT)

        monkeypatch.setattr(printing.ProgressTable, "show", press)
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        monkeypatch.setattr(signal, "_before_test", before, raising=False)

    yield set_time
    signal.signal(signal.SIGINT, getattr(signal, "_before_test", signal.SIG_DFL))


@pytest.mark.parametrize(
    ("workload", "time_s", "window_s"),
    [
        (OFFLINE, 10, (0, 10)),  # during the warm-up: the whole run so far
        (OFFLINE, 50, (20, 50)),
        (ONLINE, 30, (0, 30)),
        (ONLINE, 70, (0, 60)),  # after the window, while the last requests end
    ],
)
def test_what_there_is(stop_at, workload, time_s, window_s, capsys):
    stop_at(time_s)
    how = {"workload": workload, "sample_step_s": 1.0, "keep_breakdown": True}
    result = hx.simulate(*SYSTEM, **how, progress_table_step_s=5)
    row = result.metrics
    assert row["partial"]
    assert repr(result).startswith("Partial result(")
    start_s = row["start_s"]
    assert row["window_start_s"] == start_s + window_s[0]
    assert row["window_end_s"] == pytest.approx(start_s + window_s[1], abs=5)
    whole = hx.simulate(*SYSTEM, **how)
    assert not whole.metrics["partial"]
    assert repr(whole).startswith("Result(")
    pd.testing.assert_frame_equal(result.iterations, whole.iterations.iloc[: len(result.iterations)])
    assert 0 < len(result.iterations) < len(whole.iterations)
    assert (result.nodes["busy_fraction"] <= 1 + 1e-9).all()
    counted = result.iterations["end_s"].between(row["window_start_s"], row["window_end_s"])
    decodes = (counted & (result.iterations["iteration"] > 0)).sum()
    assert row["decode_tokens_per_s"] == pytest.approx(
        decodes / (row["window_end_s"] - row["window_start_s"])
    )
    findings = {finding.cause: finding for finding in hx.diagnose(result)}
    assert "Simulated: " in findings["stopped early"].text
    assert "stopped early" not in {finding.cause for finding in hx.diagnose(whole)}


def test_it_can_be_saved_and_drawn(stop_at, tmp_path, capsys):
    stop_at(50)
    result = hx.simulate(*SYSTEM, workload=OFFLINE, progress_table_step_s=5)
    again = hx.load_result(result.save(tmp_path / "run"))
    assert again.metrics["partial"]
    figure = again.plot_timeline()[0, 0].figure
    assert "partial run" in figure.get_suptitle()
    texts = [text.get_text() for ax in figure.axes for text in ax.texts]
    assert "partial run" in texts
    plt.close(figure)


def test_raising_if_asked(stop_at, capsys):
    stop_at(50)
    with pytest.raises(KeyboardInterrupt):
        hx.simulate(*SYSTEM, workload=OFFLINE, progress_table_step_s=5, partial=False)


@pytest.mark.filterwarnings("default:interrupted")
def test_the_command_line(stop_at, tmp_path, capsys):
    stop_at(10)
    arguments = ["--cluster", "small10", "--model", "llama-1-30b", "--placement", SYSTEM[2].name]
    how = ["--warmup", "5", "--duration", "20", "--progress-table", "5", "-o", str(tmp_path / "run")]
    assert cli.main(["simulate", *arguments, *how]) == 130
    warning = "helixlab: warning: interrupted; the metrics are of the part that was simulated"
    assert warning in capsys.readouterr().err
    assert hx.load_result(tmp_path / "run").metrics["partial"]


def test_while_the_result_is_put_together(stop_at, monkeypatch, capsys):
    """An impatient second time, or a first one when all is done: nothing is lost."""
    build, presses = running.build_result, iter([True, True, True, False, True])

    def pressed(*what):
        if next(presses, False):
            signal.raise_signal(signal.SIGINT)
        return build(*what)

    monkeypatch.setattr(running, "build_result", pressed)
    stop_at(50)
    result = hx.simulate(*SYSTEM, workload=OFFLINE, progress_table_step_s=5)
    assert result.metrics["partial"]
    assert len(result.iterations)
    whole = hx.simulate(*SYSTEM, workload=OFFLINE)
    assert not whole.metrics["partial"]
    with pytest.raises(KeyboardInterrupt):
        hx.simulate(*SYSTEM, workload=OFFLINE, partial=False)
    with pytest.warns(UserWarning, match="sweep interrupted"):
        runs = hx.sweep({"placement": SYSTEM[2].name, "workload": OFFLINE}, seeds=3)
    assert runs["error"].tolist() == [None, *["not run: interrupted"] * 2]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_in_other_threads_nothing_is_touched():
    results = []
    thread = threading.Thread(target=lambda: results.append(hx.simulate(*SYSTEM, workload=OFFLINE)))
    thread.start()
    thread.join()
    assert not results[0].metrics["partial"]


# The progress table


def test_printing_a_table_changes_nothing(capsys):
    for workload in (OFFLINE, ONLINE):
        for scheduler in ("helix", "random"):
            how = {"workload": workload, "scheduler": scheduler, "sample_step_s": 7.0}
            printed, whole = (
                hx.simulate(*SYSTEM, **how, progress_table_step_s=step_s) for step_s in (3.0, 0.0)
            )
            for table in ("iterations", "requests", "nodes", "links", "timeline", "node_timeline"):
                pd.testing.assert_frame_equal(
                    getattr(printed, table), getattr(whole, table), check_exact=True
                )


def printed(capsys):
    """Return what a run printed: the explanation, the two lines of the heading, and the rows."""
    lines = capsys.readouterr().out.splitlines()
    above = next(at for at, line in enumerate(lines) if line.split()[0] == "in")
    heads, rows = lines[above : above + 2], lines[above + 2 :]
    assert len({len(line) for line in (*heads, *rows)}) == 1, "aligned"
    assert max(map(len, lines)) <= 80, "an ordinary terminal"
    return " ".join(lines[:above]), heads, rows


def test_the_table_it_prints(capsys):
    result = hx.simulate(*SYSTEM, workload=OFFLINE, progress_table_step_s=10, sample_step_s=10.0)
    explained, heads, rows = printed(capsys)
    assert explained.startswith(
        "Every 10 s: simulated seconds since the start; requests in flight (queued ones included), queued"
    )
    assert [" ".join(words) for words in zip(heads[0].split()[1:], heads[1].split()[6:], strict=True)] == [
        "KV max", "KV mean", "KV exp.", "busy max", "busy mean",
    ]  # fmt: skip
    times = [int(row.split()[0]) for row in rows]
    assert times == [10, 20, 30, 40, 50, 60, 70, 80]
    timeline = result.timeline.set_index("time_s")
    for row in rows:
        time, in_flight, queued, finished, prompts, decodes, *_, expected, _, _ = row.split()
        known = timeline.loc[result.metrics["start_s"] + int(time)] if int(time) < 80 else None
        if known is not None:
            assert [int(in_flight), int(queued), int(finished)] == known[
                ["in_flight", "queued", "finished"]
            ].tolist()
            assert float(prompts) == pytest.approx(known["prompt_tokens_per_s"], abs=0.06)
            assert float(decodes) == pytest.approx(known["decode_tokens_per_s"], abs=0.06)
            assert float(expected[:-1]) == pytest.approx(
                100 * known["bottleneck_kv_expected_fraction"], abs=0.51
            )


def test_a_step_that_makes_no_sense():
    with pytest.raises(hx.errors.SimulationError, match=r"progress_table_step_s is .*; give 0"):
        hx.simulate(*SYSTEM, workload=OFFLINE, progress_table_step_s=-1)
    assert driving.EVENTS_PER_CALL <= 1_000_000, "Ctrl-C is handled soon"


def test_the_table_shows_parts_of_seconds(capsys):
    workload = hx.offline(warmup_s=0, duration_s=2, rng=0)
    hx.simulate(*SYSTEM, workload=workload, progress_table_step_s=0.5)
    *_, rows = printed(capsys)
    assert [row.split()[0] for row in rows] == ["0.5", "1.0", "1.5", "2.0"]


@pytest.mark.parametrize(
    ("duration_s", "step_s", "times"),
    [
        (0.002, 0.0005, ["0.0005", "0.0010", "0.0015", "0.0020"]),
        (2.25, 0.5, ["0.50", "1.00", "1.50", "2.00", "2.25"]),
        (25, 10, ["10", "20", "25"]),
        (5, 10, ["5"]),
        (1, 1 / 3, ["0.3333", "0.6667", "1.0000"]),
        (0.3, 0.1, ["0.1", "0.2", "0.3"]),
        (40_000, 33_333.25, ["33333.25", "40000.00"]),
    ],
)
def test_the_times_of_the_rows(capsys, duration_s, step_s, times):
    workload = hx.offline(warmup_s=0, duration_s=duration_s, rng=0)
    hx.simulate(*SYSTEM, workload=workload, progress_table_step_s=step_s, keep_iterations=False)
    explained, _, rows = printed(capsys)
    assert [row.split()[0] for row in rows] == times
    assert explained.startswith(f"Every {step_s:.10g} s: ")


def test_what_comes_after_the_last_row_has_one(capsys):
    result = hx.simulate(*SYSTEM, workload=ONLINE, progress_table_step_s=7)
    *_, rows = printed(capsys)
    *times, end = (int(row.split()[0]) for row in rows)
    assert times == list(range(7, 7 * len(rows), 7))
    ended_s = result.metrics["last_finish_s"] - result.metrics["start_s"]
    assert times[-1] < ended_s
    assert end == round(ended_s)
    assert rows[-1].split()[1:3] == ["0", "0"], "all have left"
    assert int(rows[-1].split()[3]) == result.metrics["requests_finished"]
