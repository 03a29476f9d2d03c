"""The command line: what it prints, what it writes, and how it fails."""

import ctypes
import io
import json
import math
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import helixlab as hx
from helixlab import cli
from helixlab.__main__ import main
from helixlab.execution import EXECUTIONS
from helixlab.planning import METHODS
from helixlab.scheduling import SCHEDULERS

SUBJECT = ["--cluster", "small10", "--model", "llama-1-30b"]
PLACED = [*SUBJECT, "--placement", "small10/llama-1-30b/helix"]
SHORT = ["--warmup", "2", "--duration", "10"]

SIMULATE_KEYS = {
    "decode_tokens_per_s",
    *(f"{phase}_latency_{what}_s" for phase in ("prompt", "decode") for what in ("mean", "p5", "p25")),
    *(f"{phase}_latency_{what}_s" for phase in ("prompt", "decode") for what in ("p50", "p75", "p95")),
    "total_tokens_per_s",
    "requests_finished",
    "requests_in_flight",
    "requests_dropped",
    "requests_queued",
    "input_tokens_mean_accepted",
    "max_flow_tokens_per_s",
    "events",
    "wall_s",
    "peak_rss_mb",
    "provenance",
    "nodes",
}


def run(*arguments, **options):
    """The command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "helixlab", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        **options,
    )


def refuse_constant(token):
    raise ValueError(token)


@pytest.fixture
def answer(capsys):
    """Run in this process; give the JSON object that is all of stdout."""

    def call(*arguments):
        assert cli.main([*map(str, arguments), "--json"]) == 0
        captured = capsys.readouterr()
        content = json.loads(captured.out, parse_constant=refuse_constant)
        assert isinstance(content, dict)
        assert captured.err == ""
        return content

    return call


@pytest.fixture
def complaint(capsys):
    """Run in this process what must fail; give the one line on stderr."""

    def call(*arguments):
        assert cli.main(list(map(str, arguments))) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        lines = captured.err.splitlines()
        assert len(lines) == 1
        assert lines[0].startswith("helixlab: ")
        return lines[0]

    return call


@pytest.fixture
def file(tmp_path):
    """Write a file and give its path; `content` that is not text or bytes becomes JSON."""

    def write(name, content):
        path = tmp_path / name
        if not isinstance(content, str | bytes):
            content = json.dumps(content)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


@pytest.fixture
def small10(root):
    return json.loads((root / "data/clusters/small10.json").read_text(encoding="utf-8"))


@pytest.fixture
def chain(root):
    return json.loads((root / "data/placements/small10/llama-1-30b/helix.json").read_text(encoding="utf-8"))


# What it prints


def test_names_it_states_are_those_of_the_library():
    assert set(cli.SCHEDULER_NAMES) == set(SCHEDULERS)
    assert set(cli.EXECUTION_NAMES) == set(EXECUTIONS)


def test_list(capsys):
    assert cli.main(["list"]) == 0
    listed = capsys.readouterr().out.split("\n")
    sections = {line[:-1] for line in listed if line.endswith(":")}
    assert sections == {
        "clusters",
        "models",
        "placements",
        "traces",
        "schedulers",
        "execution policies",
        "planners",
    }
    names = {line.strip() for line in listed if line.startswith("  ")}
    bundled = [hx.cluster_names(), hx.model_names(), hx.placement_names(), hx.trace_names()]
    assert names == {name for known in [*bundled, SCHEDULERS, EXECUTIONS, METHODS] for name in known}


def test_list_loads_nothing_slow():
    code = (
        "import sys; from helixlab.cli import main; assert main(['list']) == 0;"
        "print({'numba', 'matplotlib', 'seaborn', 'papermill', 'cvxpy'} & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "set()"


@pytest.mark.parametrize("how", [["--objective", "flow"], ["--method", "paper-milp"]])
def test_solvers_print_nothing_of_their_own(how, capfd):
    assert cli.main(["plan", *SUBJECT, *how, "--time-limit", "1", "--json"]) == 0
    ctypes.CDLL(None).fflush(None)  # solvers print through the C library, which keeps text back
    assert json.loads(capfd.readouterr().out)["max_flow_tokens_per_s"] > 0


def test_plan_as_json(answer):
    content = answer("plan", *SUBJECT, "--method", "swarm")
    keys = {"max_flow_tokens_per_s", "upper_bound_tokens_per_s", "gap", "status", "wall_s", "nodes", "trace"}
    assert keys <= set(content)
    assert 0 < content["max_flow_tokens_per_s"] <= content["upper_bound_tokens_per_s"]
    ratio = content["upper_bound_tokens_per_s"] / content["max_flow_tokens_per_s"]
    assert math.isclose(content["gap"], ratio - 1)
    assert content["status"] == "heuristic"
    assert content["trace"] == []
    assert [row["node"] for row in content["nodes"]] == list(range(10))
    assert all(row["end_layer"] - row["first_layer"] == row["layers"] for row in content["nodes"])


def test_plan_writes_a_placement(answer, tmp_path):
    path = tmp_path / "new" / "mine.json"
    content = answer("plan", *SUBJECT, "--method", "petals", "--seed", "3", "-o", path)
    cluster, model = hx.load_cluster("small10"), hx.load_model("llama-1-30b")
    placement = hx.load_placement(path)
    assert placement == hx.plan(cluster, model, method="petals", rng=3)
    flow = answer("flow", *SUBJECT, "--placement", path)
    assert flow["value_tokens_per_s"] == content["max_flow_tokens_per_s"]
    assert list(path.parent.iterdir()) == [path]


def test_flow_as_json(answer):
    content = answer(
        "flow", "--cluster", "single24", "--model", "llama-2-70b",
        "--placement", "single24/llama-2-70b/example-ilp",
    )  # fmt: skip
    assert content["value_tokens_per_s"] == content["max_flow_tokens_per_s"]
    assert math.isclose(content["value_tokens_per_s"], 1289.5557702751464)
    cut = sum(row["capacity_tokens_per_s"] for row in content["bottlenecks"])
    assert math.isclose(cut, content["value_tokens_per_s"])
    into_sink = [row["flow_tokens_per_s"] for row in content["links"] if row["receiver"] == "sink"]
    assert math.isclose(sum(into_sink), content["value_tokens_per_s"])


def test_flow_that_gets_through(answer, capsys):
    system = ["--cluster", "hetero42", "--model", "llama-2-70b", "--placement", "hetero42/llama-2-70b/swarm"]
    whole, passing = answer("flow", *system), answer("flow", *system, "--small-links", "paper")
    assert "left_out" not in whole
    (link,) = passing["left_out"]
    assert (link["sender"], link["receiver"]) == (30, 37)
    used = {(row["sender"], row["receiver"]): row["flow_tokens_per_s"] for row in passing["links"]}
    assert used[30, 37] == 0
    assert cli.main(["flow", *system, "--small-links", "relative"]) == 0
    assert capsys.readouterr().out.endswith("links left out: 1, of 33.8 tokens/s in the maximum flow\n")


def test_flow_of_an_ini_placement(answer, file):
    rows = [f"compute_node_{n + 2}={list(range(6 * n, 6 * n + 6))}" for n in range(10)]
    path = file("mine.ini", "\n".join(["[Settings]", "offset=2", "[Solution]", *rows]))
    assert answer("flow", *SUBJECT, "--placement", path)["value_tokens_per_s"] > 0


def test_simulate_as_json(answer):
    content = answer("simulate", *PLACED, *SHORT)
    assert set(content) >= SIMULATE_KEYS
    assert [row["node"] for row in content["nodes"]] == list(range(10))
    for row in content["nodes"]:
        assert 0 <= row["kv_used_fraction"] <= 1
        assert 0 <= row["busy_fraction"] <= 1
    workload = content["provenance"]["workload"]
    assert (workload["warmup_s"], workload["duration_s"], workload["initial_requests"]) == (2, 10, 20)
    assert content["provenance"]["settings"]["on_full"] == "wait"
    assert content["provenance"]["scheduler"]["name"] == "helix"


def test_simulate_is_the_library_call(answer, tmp_path):
    options = ["--scheduler", "random", "--initial", "7", "--seed", "5", "--on-full", "drop"]
    options += ["--small-links", "paper"]
    content = answer("simulate", *PLACED, *SHORT, *options, "-o", tmp_path / "mine")
    cluster, model = hx.load_cluster("small10"), hx.load_model("llama-1-30b")
    placement = hx.load_placement("small10/llama-1-30b/helix")
    workload = hx.offline(initial_requests=7, warmup_s=2, duration_s=10, rng=5)
    how = {"scheduler": "random", "workload": workload, "on_full": "drop", "keep_breakdown": True}
    how["small_links"] = "paper"
    result = hx.simulate(cluster, model, placement, **how)
    saved = hx.load_result(tmp_path / "mine")
    pd.testing.assert_frame_equal(saved.iterations, result.iterations)
    measured = ["wall_s", "peak_rss_mb"]
    for key in result.summary.columns.difference(measured):
        value = result.summary[key].item()
        assert content[key] == (None if pd.isna(value) else pytest.approx(value))
    assert content["provenance"] == result.provenance


@pytest.mark.parametrize(("mode", "window_s"), [("offline", (60, 600)), ("online", (0, 1800))])
def test_windows_of_the_paper_by_default(mode, window_s, monkeypatch, capsys):
    asked = []

    def refuse(*arguments, workload, **options):
        asked.append(workload)
        raise hx.errors.SimulationError("not today")

    monkeypatch.setattr(hx, "simulate", refuse)
    rate = ["--rate", "100"] if mode == "online" else []
    assert cli.main(["simulate", *PLACED, "--mode", mode, *rate]) == 2
    assert capsys.readouterr().err == "helixlab: not today\n"
    assert (asked[0].warmup_s, asked[0].duration_s) == window_s


def test_simulate_online(answer):
    content = answer("simulate", *PLACED, "--mode", "online", "--rate", "100", "--duration", "20")
    assert content["mode"] == "online"
    assert content["requests_finished"] == content["requests_fed"]
    assert content["requests_in_flight"] == 0


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_requests_of_ones_own(answer, file, encoding):
    rows = "arrival_s,input_tokens,output_tokens\n0,10,5\n1.5,20,6\n"
    path = file("mine.csv", rows.encode(encoding))
    content = answer("simulate", *PLACED, "--mode", "online", "--duration", "10", "--requests", path)
    assert content["requests_finished"] == 2
    assert content["total_tokens"] == 10 + 20 + 5 + 6


@pytest.mark.parametrize(
    ("last_s", "asked", "duration_s"), [(90.5, [], 90.5), (2, [], 60), (90.5, ["--duration", "10"], 10)]
)
def test_the_window_of_requests_of_ones_own(answer, file, last_s, asked, duration_s):
    rows = f"arrival_s,input_tokens,output_tokens\n0,10,5\n{last_s},20,6\n"
    path = file("mine.csv", rows.encode())
    content = answer("simulate", *PLACED, "--mode", "online", *asked, "--requests", path)
    assert content["duration_s"] == duration_s
    assert content["requests_outside_window"] == (duration_s == 10)


def test_requests_in_a_compressed_file(answer, tmp_path):
    table = pd.DataFrame({"input_tokens": [10, 20], "output_tokens": [3, 4]})
    table.to_csv(tmp_path / "mine.csv.gz", index=False)
    content = answer("simulate", *PLACED, *SHORT, "--requests", tmp_path / "mine.csv.gz")
    assert content["requests_fed"] == content["requests_finished"] == 2


def test_requests_that_can_never_be_served_are_refused_not_fatal(answer, file):
    path = file("mine.csv", "input_tokens,output_tokens\n500000,5\n10,5\n")
    content = answer("simulate", *PLACED, "--scheduler", "random", *SHORT, "--requests", path)
    assert content["requests_refused"] == 1
    assert content["requests_finished"] == 1


@pytest.mark.parametrize(
    "arguments",
    [["plan", *SUBJECT, "--method", "swarm"], ["flow", *PLACED], ["simulate", *PLACED, *SHORT]],
    ids=lambda arguments: arguments[0],
)
def test_a_table_for_people(arguments, capsys):
    assert cli.main(arguments) == 0
    captured = capsys.readouterr()
    assert "tokens" in captured.out
    assert "machine" in captured.out or "kind" in captured.out
    assert captured.err == ""


# How it fails: the arguments


@pytest.mark.parametrize(
    ("arguments", "close"),
    [
        (["flow", *PLACED, "--cluster", "smal10"], "'small10'"),
        (["flow", *PLACED, "--model", "llama-1-3b"], "'llama-1-30b'"),
        (["flow", *SUBJECT, "--placement", "small10/llama-1-30b/helx"], "'small10/llama-1-30b/helix'"),
        (["plan", *SUBJECT, "--method", "petal"], "'petals'"),
        (["simulate", *PLACED, "--scheduler", "swarn"], "'swarm'"),
        (["simulate", *PLACED, "--execution", "greedi"], "'greedy'"),
    ],
    ids=["cluster", "model", "placement", "method", "scheduler", "execution"],
)
def test_unknown_names(arguments, close, complaint):
    line = complaint(*arguments)
    assert f"did you mean {close}" in line


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--duration", "0"], "duration_s"),
        (["--duration", "-5"], "duration_s"),
        (["--duration", "nan"], "duration_s"),
        (["--duration", "inf"], "duration_s"),
        (["--duration", "long"], "--duration"),
        (["--warmup", "-1"], "warmup_s"),
        (["--warmup", "nan"], "warmup_s"),
        (["--initial", "0"], "initial_requests"),
        (["--initial", "1.5"], "--initial"),
        (["--seed", "-1"], "rng"),
        (["--seed", "x"], "--seed"),
        (["--rate", "100"], "--mode online"),
        (["--mode", "online"], "rate_tokens_per_s"),
        (["--mode", "online", "--rate", "0"], "rate_tokens_per_s"),
        (["--mode", "online", "--rate", "-3"], "rate_tokens_per_s"),
        (["--mode", "online", "--rate", "nan"], "rate_tokens_per_s"),
        (["--mode", "online", "--rate", "many"], "--rate"),
        (["--mode", "online", "--rate", "9", "--initial", "3"], "--mode offline"),
        (["--mode", "online", "--rate", "9", "--requests", "mine.csv"], "exclude each other"),
        (["--mode", "sometimes"], "--mode"),
        (["--on-full", "panic"], "--on-full"),
        (["--on", "wait"], "--on"),
        (["--unheard-of"], "--unheard-of"),
    ],
    ids=" ".join,
)
def test_arguments_that_make_no_sense(options, named, complaint):
    assert named in complaint("simulate", *PLACED, *options)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], "VERB"),
        (["explode"], "explode"),
        (["flow"], "--cluster"),
        (["plan", *SUBJECT, "--method", "swarm", "--time-limit", "0"], "time_limit_s"),
        (["plan", *SUBJECT, "--method", "swarm", "--time-limit", "nan"], "time_limit_s"),
        (["plan", *SUBJECT, "--method", "swarm", "--seed", "-1"], "rng"),
        (["reproduce", "--scale", "vast"], "--scale"),
        (["reproduce", "--notebooks", "no-such-folder"], "no-such-folder"),
    ],
    ids=lambda part: " ".join(part) if isinstance(part, list) else "",
)
def test_other_verbs_with_arguments_that_make_no_sense(arguments, named, complaint):
    assert named in complaint(*arguments)


def test_help_and_version(capsys):
    for asked in (["--help"], ["simulate", "--help"], ["--version"]):
        with pytest.raises(SystemExit) as ended:
            cli.main(asked)
        assert ended.value.code == 0
        assert "helixlab" in capsys.readouterr().out


# How it fails: files


@pytest.mark.parametrize("option", ["--cluster", "--model", "--placement"])
@pytest.mark.parametrize("name", ["thing.json", "thing.ini"])
def test_files_that_are_something_else(option, name, complaint, file):
    """What else files may be is tested with their readers."""
    assert name in complaint("flow", *PLACED, option, file(name, '{"format": '))


def test_code_in_an_ini_file_is_not_run(complaint, file, tmp_path):
    trap = f"__import__('pathlib').Path({str(tmp_path / 'sprung')!r}).touch()"
    network = f"[NodeNames]\ntotal_compute_nodes={trap}\n[SourceNode]\nconnected_nodes={trap}\n"
    layers = f"[Settings]\noffset={trap}\n[Solution]\ncompute_node_2={trap}\n"
    assert "trap.ini" in complaint("flow", *PLACED, "--cluster", file("trap.ini", network))
    assert "trap2.ini" in complaint("flow", *PLACED, "--placement", file("trap2.ini", layers))
    assert not (tmp_path / "sprung").exists()


@pytest.mark.filterwarnings("ignore:.*calls its placement")
@pytest.mark.parametrize("verb", ["flow", "simulate"])
def test_a_placement_that_cannot_serve(verb, complaint, file, chain):
    path = file("mine.json", chain | {"links": chain["links"][1:]})
    assert "no path" in complaint(verb, *SUBJECT, "--placement", path)


@pytest.mark.parametrize("mode", ["offline", "online"])
def test_requests_that_make_no_sense(mode, complaint, file):
    path = file("mine.csv", "arrival_s,input_tokens,output_tokens\n0,0,5\n")
    assert "mine.csv, line 2, row 0" in complaint("simulate", *PLACED, "--mode", mode, "--requests", path)


# How it fails: output


def test_paths_that_cannot_be_written(complaint, file, tmp_path):
    in_the_way = file("file", "something else")
    used = tmp_path / "used"
    used.mkdir()
    (used / "notes.txt").write_text("keep")
    plan = ["plan", *SUBJECT, "--method", "swarm", "-o"]
    assert "file" in complaint(*plan, in_the_way / "mine.json")
    assert "used" in complaint(*plan, used)
    simulate = ["simulate", *PLACED, *SHORT, "-o"]
    assert "file" in complaint(*simulate, in_the_way / "mine")
    assert "file" in complaint(*simulate, in_the_way)
    assert "used" in complaint(*simulate, used)
    assert in_the_way.read_text() == "something else"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "notes.txt", "used"]


def test_full_disk():
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "helixlab", "list"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 2
    assert done.stderr == f"helixlab: {os.strerror(28)}\n"


def test_broken_pipe_is_silent():
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "helixlab", "list"],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize(("codec", "name"), [("ascii", r"Z\xfcrich"), ("cp1252", "Zürich")])
def test_names_that_the_output_has_no_characters_for(codec, name, file, small10, monkeypatch):
    path = file("zü.json", small10 | {"name": "Zürich 東京"})
    plan = ["plan", "--cluster", str(path), "--model", "llama-1-30b", "--method", "petals"]
    written = {stream: io.BytesIO() for stream in ("stdout", "stderr")}
    for stream, target in written.items():
        monkeypatch.setattr(sys, stream, io.TextIOWrapper(target, codec, errors="strict"))
    monkeypatch.setattr(sys, "argv", ["helixlab", *plan])
    assert main() == 0
    assert written["stderr"].getvalue() == b""
    assert name + r" \u6771\u4eac/llama-1-30b/petals" in written["stdout"].getvalue().decode(codec)


def test_a_locale_without_the_characters_of_a_path(file, tmp_path):
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    path = file("zü.csv", "input_tokens,output_tokens\n0,5\n")
    done = run("simulate", *PLACED, *SHORT, "--requests", path, env=os.environ | locale)
    assert (done.returncode, done.stdout) == (2, "")
    assert r"z\udcc3\udcbc.csv, line 2, row 0: input_tokens is 0" in done.stderr


@pytest.mark.parametrize(
    ("verb", "closed", "code"), [("list", "1>&- 2>&-", 0), ("list", "0<&- 2>&-", 0), ("explode", "2>&-", 2)]
)
def test_closed_streams(verb, closed, code):
    command = f"exec {sys.executable} -m helixlab {verb} {closed}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (code, "")
    assert bool(done.stdout) == (closed == "0<&- 2>&-")


def test_an_error_that_nobody_reads():
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "helixlab", "explode"], stdout=subprocess.PIPE, stderr=writer, check=False
    )
    os.close(writer)
    assert (done.returncode, done.stdout) == (2, b"")


def test_plans_show_whose_they_are(answer, tmp_path):
    path = tmp_path / "p.json"
    subject = ["--cluster", "single24", "--model", "llama-2-70b"]
    planned = answer("plan", *subject, "--method", "petals", "-o", str(path))
    placement = hx.load_placement(path)
    name = f"single24/llama-2-70b/petals@{placement.content_hash[:8]}"
    assert planned["placement"] == name
    assert answer("flow", *subject, "--placement", str(path))["placement"] == name


@pytest.mark.filterwarnings("default:interrupted")
def test_an_interrupted_plan(monkeypatch, capsys, tmp_path):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("helixlab.planning.helix.regions_of", interrupt)
    assert cli.main(["plan", *SUBJECT, "--objective", "flow", "-o", str(tmp_path / "p.json")]) == 130
    warning = "helixlab: warning: interrupted; the placement is the best that was found so far"
    output = capsys.readouterr()
    assert output.err.count(warning) == 1
    assert "small10/llama-1-30b/helix (interrupted)" in output.out
    assert hx.load_placement(tmp_path / "p.json").report.status == "interrupted"


def test_a_full_disk_costs_no_figures(tmp_path, capsys):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2048, hard))
    try:
        code = cli.main(["simulate", *PLACED, *SHORT, "--json", "-o", str(tmp_path / "mine")])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    captured = capsys.readouterr()
    assert code == 2
    assert json.loads(captured.out)["requests_finished"] >= 0
    assert captured.err.startswith(f"helixlab: the result cannot be written into {tmp_path / 'mine'} (")
    assert list(tmp_path.iterdir()) == []


def test_interrupt(monkeypatch, capsys):
    # Started in the background, Python ignores the signal.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    monkeypatch.setattr(cli, "trace_names", lambda: signal.raise_signal(signal.SIGINT))
    try:
        assert cli.main(["list"]) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert capsys.readouterr().err == "helixlab: interrupted\n"


def test_out_of_memory(monkeypatch, complaint):
    def exhausted():
        raise MemoryError

    monkeypatch.setattr(cli, "trace_names", exhausted)
    assert "memory" in complaint("list")


def test_as_a_process():
    good = run("simulate", *PLACED, *SHORT, "--json")
    assert good.returncode == 0
    assert json.loads(good.stdout)["scheduler"] == "helix"
    bad = run("flow", *PLACED, "--cluster", "no-such-cluster.json")
    assert (bad.returncode, bad.stdout, len(bad.stderr.splitlines())) == (2, "", 1)
    assert "Traceback" not in bad.stderr


@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-"])
def test_streams_that_are_closed(closed):
    command = f"exec {sys.executable} -m helixlab {' '.join(['flow', *PLACED, '--json', closed])}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert closed == "1>&-" or json.loads(done.stdout)["value_tokens_per_s"] > 0


def test_a_run_with_all_streams_closed(tmp_path):
    arguments = ["simulate", *PLACED, *SHORT, "-o", str(tmp_path / "mine")]
    command = f"exec {sys.executable} -m helixlab {' '.join(arguments)} 0<&- 1>&- 2>&-"
    assert subprocess.run(["bash", "-c", command], check=False).returncode == 0
    assert hx.load_result(tmp_path / "mine").metrics["requests_finished"] >= 0


# explain


def test_explain(tmp_path, capsys):
    assert cli.main(["simulate", *PLACED, *SHORT, "-o", str(tmp_path / "run")]) == 0
    capsys.readouterr()
    assert cli.main(["explain", str(tmp_path / "run")]) == 0
    printed = capsys.readouterr().out
    findings = hx.diagnose(hx.load_result(tmp_path / "run"))
    for at, finding in enumerate(findings, 1):
        assert f"{at}. {finding.cause} (cost {finding.cost:.1%})" in printed
    words = " ".join(printed.split())
    assert all(finding.text in words and finding.advice in words for finding in findings)
    assert "keep_breakdown" not in words, "what is kept can be explained"
    assert max(map(len, printed.splitlines())) <= 120


def test_explain_as_json(tmp_path, answer, capsys):
    assert cli.main(["simulate", *PLACED, *SHORT, "-o", str(tmp_path / "run")]) == 0
    capsys.readouterr()
    explained = answer("explain", tmp_path / "run", "--json")
    findings = hx.diagnose(hx.load_result(tmp_path / "run"))
    assert [finding["cause"] for finding in explained["findings"]] == [finding.cause for finding in findings]
    assert explained["findings"][0]["evidence"]["tokens_per_s"] > 0


def test_explain_what_is_no_result(tmp_path, capsys):
    assert cli.main(["explain", str(tmp_path)]) == 2
    assert "result.json" in capsys.readouterr().err


# Warnings


@pytest.mark.filterwarnings("default:.*is named after")
def test_warnings_are_one_line(tmp_path, capsys):
    hx.save_placement(hx.load_placement("single24/llama-2-70b/helix"), tmp_path / "petals.json")
    subject = ["--cluster", "single24", "--model", "llama-2-70b", "--placement"]
    assert cli.main(["flow", *subject, str(tmp_path / "petals.json"), "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["placement"] == "single24/llama-2-70b/helix"
    (line,) = captured.err.splitlines()
    assert line.startswith("helixlab: warning: ")
    assert "is named after 'single24/llama-2-70b/petals'" in line
