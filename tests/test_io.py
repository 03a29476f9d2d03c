"""Files of every kind: read right or refused in one line, whatever happened to them."""

import csv
import gzip
import json
import math
import re
import resource
from dataclasses import replace
from datetime import datetime

import pytest
from hypothesis import given, settings, strategies as st

import helixlab as hx
from helixlab._io import DEEPEST, parse_json, read_json, read_text
from helixlab.cluster import (
    read_complete_cluster,
    read_layers_ini,
    read_machine_profiles,
    read_simulator_cluster,
)
from helixlab.cluster.io import cluster_to_json
from helixlab.errors import FileFormatError, HelixlabError
from helixlab.experiments.runner import Store
from helixlab.model.io import model_to_dict
from helixlab.placement import read_placement_ini
from helixlab.placement.io import placement_to_dict
from helixlab.placement.placement import PlanReport
from helixlab.reproduce.notebooks import read_notebook
from helixlab.workload import read_requests

# Text and JSON


def test_a_byte_order_mark_is_no_text(tmp_path):
    (tmp_path / "marked.json").write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_text(tmp_path / "marked.json") == '{"a": 1}'
    assert read_json(tmp_path / "marked.json") == {"a": 1}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('{"a": "é"}'.encode("utf-16"), "it is text in UTF-16"),
        ('{"a": "é"}'.encode("utf-32"), "it is text in UTF-32"),
        ('{"a": "é"}'.encode("latin-1"), "byte 7 is not valid UTF-8"),
        (gzip.compress(b"{}", mtime=0), "it is compressed by gzip"),
        (b"PK\x03\x04\xff", "it is a zip archive"),
    ],
)
def test_text_in_other_encodings(tmp_path, content, reason):
    path = tmp_path / "mine.json"
    path.write_bytes(content)
    with pytest.raises(
        FileFormatError, match=f"mine.json is not a UTF-8 text file .{reason}.*; save it as UTF-8"
    ):
        read_text(path)


def test_paths_that_cannot_be():
    with pytest.raises(FileFormatError, match="cannot read a\0b: embedded null byte; check the path"):
        read_text("a\0b")


def test_json_with_a_key_twice():
    with pytest.raises(FileFormatError, match="mine has the key 'a' twice in one object; keep one of them"):
        parse_json('[{"b": {"a": 1, "a": 1}}]', "mine")


@pytest.mark.parametrize(("opened", "closed"), ["[]", ('{"a":[', "]}"), ('{"a":', "}")])
def test_json_that_is_nested_deep(opened, closed):
    deepest = (
        DEEPEST // opened.count("[") // (1 + ("[" in opened and "{" in opened)) if "[" in opened else DEEPEST
    )
    for depth in range(1, 1200, 13):
        text = opened * depth + "1" + closed * depth
        if depth <= deepest:
            assert json.dumps(parse_json(text, "mine")).replace(" ", "") == text
        else:
            with pytest.raises(FileFormatError, match="mine is"):
                parse_json(text, "mine")


# Files that are something else than their reader expects


def placement(path):
    if path.suffix != ".ini":
        return hx.load_placement(path)
    return read_placement_ini(path, hx.load_cluster("small10"), hx.load_model("llama-1-30b"))


@pytest.mark.parametrize("read", [hx.load_cluster, hx.load_model, placement])
@pytest.mark.parametrize("ending", [".json", ".ini", ".txt", ""])
@pytest.mark.parametrize(
    "content", [None, "folder", "", b"\x00\xff\x80\x01" * 99, '{"format": ', "[]", "NaN", "[" * 100_000]
)
def test_files_that_are_something_else(read, ending, content, tmp_path):
    path = tmp_path / f"thing{ending}"
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(HelixlabError, match="thing") as refused:
        read(path)
    assert len(str(refused.value).splitlines()) == 1


# Valid files of all kinds, and how each is read

CLUSTER = hx.single_region({"T4": 2, "L4": 1}, name="three")
LLAMA = hx.load_model("llama-1-30b")
MODEL = replace(LLAMA, name="mine", profiles={"T4": LLAMA.profile("T4")})
PLACEMENT = replace(
    hx.load_placement("small10/llama-1-30b/helix"),
    name="a plan",
    cluster="three",
    part=CLUSTER,
    kv_capacity_token_layers={0: 1000},
    report=PlanReport("optimal", 1.5, None, 0.25, ((0.0, 1.0, float("nan")),)),
)

COMPLETE_INI = """\
# one node
[NodeNames]
total_compute_nodes=1
[SourceNode]
connected_nodes=[0]
[SinkNode]
connected_nodes=[0]
[ComputeNode-0]
type=A100
connected_nodes=['source', 'sink']
[Link-source-0]
bandwidth=12.6 * mbps
latency=59 * MilliSec
[Link-0-sink]
bandwidth=2500 * kbps
latency=0 * MilliSec
"""
PROFILES_INI = "".join(
    f"[{name}]\ninbound_nic_speed={into}\noutbound_nic_speed={out}\ndisk_speed=2 * gbps\nvram_size=8 * GB\n"
    for name, into, out in [
        ("SourceNode", "-1", "10 * gbps"), ("SinkNode", "5 * gbps", "-1"), ("A100", "3 * gbps", "4 * gbps")
    ]
)  # fmt: skip
SIMULATOR_INI = """\
[Coordinator]
inbound_nic_speed=10000.0 * mbps
outbound_nic_speed=9000.0 * mbps
[MachineTypes]
types=['T4', 'A100']
[ComputeNodes]
names=['compute_node_7']
[compute_node_7]
vram_size=40000.0 * MB
inbound_nic_speed=10000.0 * mbps
outbound_nic_speed=8000.0 * mbps
disk_speed=1000.0 * mbps
machine_type="A100"
kv_cache_capacity=4630752
activation_backup_capacity=0
[Links]
names=['link_a', 'link_b']
[link_a]
in='source'
out='compute_node_7'
latency=1.0 * MilliSec
bandwidth=1250.0 * mbps
[link_b]
in='compute_node_7'
out='sink'
latency=1.0 * MilliSec
bandwidth=1250.0 * mbps
"""
LAYERS_INI = (
    "[Settings]\noffset=2\n[Solution]\ncompute_node_2=[0, 1, 2]\ncompute_node_3=[3, 4]\ncompute_node_4=[]\n"
)
OFFLINE_CSV = 'input_tokens,note,output_tokens\n400,a,50\n300,"b, c",40\n1e2,,7.0\n'
ONLINE_CSV = "arrival_s,input_tokens,output_tokens\n0.0,400,50\n1.5,300,40\n2,9,1\n"
DATES_CSV = (
    ONLINE_CSV.replace("0.0", "2024-03-04 09:00:10.2500000")
    .replace("1.5", "2024-03-04 09:00:11")
    .replace("\n2,", "\n2024-03-05T00:00:00,")
)
NOTEBOOK = {
    "cells": [
        {
            "cell_type": "code",
            "metadata": {"tags": ["parameters"]},
            "source": ["seed = 1\n", "figures = ['5a']"],
        }
    ],
    "metadata": {},
    "nbformat": 4,
}


def same(one, other):
    """Whether plain data are equal, numbers by value but truth values only among themselves."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def plain(path):
    return json.loads(path.read_text(encoding="utf-8-sig"))


def check_cluster(path):
    cluster = hx.load_cluster(path)
    hx.save_cluster(cluster, path.with_name("again.json"))
    again = hx.load_cluster(path.with_name("again.json"))
    assert again == cluster
    assert again.content_hash == cluster.content_hash
    if path.suffix == ".json":
        stated, kept = plain(path), json.loads(cluster_to_json(cluster))
        for content in (stated, kept):
            for node in content["nodes"]:
                node.setdefault("region", "")
        if stated["links"]["both_ways"] != kept["links"]["both_ways"]:
            del stated["links"], kept["links"]
        assert same(stated, kept)


def check_model(path):
    model = hx.load_model(path)
    kept, stated = json.loads(json.dumps(model_to_dict(model))), plain(path)
    if stated["kv_bytes_per_token_layer"] is None:
        del stated["kv_bytes_per_token_layer"], kept["kv_bytes_per_token_layer"]
    assert same(stated, kept)
    hx.save_model(model, path.with_name("again.json"))
    assert hx.load_model(path.with_name("again.json")) == model


def check_placement(path):
    placement = hx.load_placement(path)
    hx.save_placement(placement, path.with_name("again.json"))
    again = hx.load_placement(path.with_name("again.json"))
    assert again == placement
    assert repr(again.report) == repr(placement.report)
    kept, stated = plain(path.with_name("again.json")), plain(path)
    for key in ("part", "report", "source", "kv_capacity_token_layers"):
        if not stated.get(key) or key == "part":
            stated.pop(key, None)
            kept.pop(key, None)
    assert same(stated, kept)


def product(text):
    """The value of an expression of numbers and units of seconds."""
    units = {"Sec": 1.0, "MilliSec": 1e-3}
    return math.prod(units.get(factor.strip()) or float(factor) for factor in text.split("*"))


def check_ini_cluster(read):
    def check(path):
        cluster = read(path)
        hx.save_cluster(cluster, path.with_name("again.json"))
        assert hx.load_cluster(path.with_name("again.json")) == cluster
        stated = re.findall(r"^latency *=(.*)$", path.read_text("utf-8-sig"), re.MULTILINE)
        for link in cluster.links:
            assert any(link.latency_s == pytest.approx(product(latency)) for latency in stated)

    return check


def check_profiles(path):
    machines, coordinator = read_machine_profiles(path)
    amounts = [coordinator.nic_in_bytes_per_s, coordinator.nic_out_bytes_per_s]
    for machine in machines:
        amounts += [machine.vram_bytes, machine.nic_in_bytes_per_s, machine.disk_bytes_per_s]
    assert all(0 < amount <= 1e18 for amount in amounts)


def check_layers(path):
    held = read_layers_ini(path)
    text = path.read_text("utf-8-sig")
    listed = [json.loads(row) for row in re.findall(r"^compute_node_[0-9]+ *= *(\[.*\])", text, re.MULTILINE)]
    assert [list(range(*layers)) for layers in held.values()] == [row for row in listed if row]


def check_requests(path):
    online = b"arrival_s" in path.read_bytes().split(b"\n")[0]
    table = read_requests(path, with_arrivals=online)
    text = path.read_text(encoding="utf-8-sig")
    rows = [
        [cell.strip() for cell in row] for row in csv.reader(text.split("\n"), skipinitialspace=True) if row
    ]
    header, *rows = rows[next(at for at, row in enumerate(rows) if "input_tokens" in row) :]
    for column in ("input_tokens", "output_tokens"):
        assert table[column].tolist() == [float(row[header.index(column)]) for row in rows]
        assert table[column].between(1, 1_000_000).all()
    if online:
        cells = [row[header.index("arrival_s")] for row in rows]
        times = [
            float(cell) if re.fullmatch(r"[-+.\deE]+", cell) else datetime.fromisoformat(cell)
            for cell in cells
        ]
        dates = isinstance(times[0], datetime)
        seconds = [(time - times[0]).total_seconds() if dates else time for time in times]
        assert table["arrival_s"].tolist() == pytest.approx(seconds, abs=1e-6)
        assert table["arrival_s"].is_monotonic_increasing


def check_store(path):
    store, known = Store(path.parent), {"events": 7, "wall_s": None, "trace": [[0, 1.5]]}
    assert store.load(path.stem) in (None, known)


def check_notebook(path):
    notebook = read_notebook(path, ["seed"])
    assert set(notebook.figures) <= set(re.findall(r"\w+", path.read_text("utf-8-sig")))


def indented(text):
    """The same JSON with one value a line, so that a change of lines is one of keys and items."""
    return json.dumps(json.loads(text), indent=1)


def placement_json():
    content = placement_to_dict(PLACEMENT) | {"report": {
        "status": "optimal", "objective_tokens_per_s": 1.5, "upper_bound_tokens_per_s": None, "wall_s": 0.25,
        "trace": [[0, 1.0, None]],
    }}  # fmt: skip
    return json.dumps(content, indent=1)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A saved result."""
    system = hx.load_cluster("small10"), LLAMA, hx.load_placement("small10/llama-1-30b/helix")
    result = hx.simulate(*system, workload=hx.offline(duration_s=5, warmup_s=0))
    return result.save(tmp_path_factory.mktemp("run") / "saved"), result


def stored(folder):
    """The file of a finished run."""
    Store(folder).save("run", {"events": 7, "wall_s": None, "trace": [[0, 1.5]]}, {"scheduler": "helix"})
    return (folder / "run.json").read_text(encoding="utf-8")


KINDS = {
    "cluster.json": (lambda _: indented(cluster_to_json(CLUSTER)), check_cluster),
    "model.json": (lambda _: json.dumps(model_to_dict(MODEL), indent=1), check_model),
    "placement.json": (lambda _: placement_json(), check_placement),
    "complete.ini": (lambda _: COMPLETE_INI, check_ini_cluster(read_complete_cluster)),
    "simulator.ini": (
        lambda _: SIMULATOR_INI,
        check_ini_cluster(lambda path: read_simulator_cluster(path)[0]),
    ),
    "profiles.ini": (lambda _: PROFILES_INI, check_profiles),
    "layers.ini": (lambda _: LAYERS_INI, check_layers),
    "offline.csv": (lambda _: OFFLINE_CSV, check_requests),
    "online.csv": (lambda _: ONLINE_CSV, check_requests),
    "dates.csv": (lambda _: DATES_CSV, check_requests),
    "run.json": (stored, check_store),
    "notebook.ipynb": (lambda _: json.dumps(NOTEBOOK, indent=1), check_notebook),
}

TOKENS = (
    *(
        "0",
        "-0.0",
        "1.0",
        "1.5",
        "-1",
        "1e400",
        "1e300",
        "NaN",
        "Infinity",
        "nan",
        "inf",
        "9" * 30,
        "9" * 5000,
    ),
    *(
        "true",
        "null",
        '"1"',
        '"x"',
        "[]",
        "{}",
        "''",
        "['a', 1]",
        '""',
        "1,000",
        "0x10",
        "1_0",
        "٣",
        "é",
        "\0",
    ),
    *(
        "\ufeff",
        "\ud7ff",
        "\u2028",
        '"\\ud800"',
        "[" * 2000,
        '{"a":' * 300,
        "(" * 300,
        "#",
        ";",
        ",",
        '"',
        "=",
        "%(a)s",
    ),
    *(
        "1 * mbps",
        "1 * Sec",
        "2024-03-04 09:00:10",
        "2024-03-04",
        "2024-03-04 09:00:60",
        "2024-03-04T09:00:11Z",
    ),
)
TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[-+.\w]+')


@st.composite
def spoiled(draw, text):
    """What is left of a file after one, two or three accidents."""
    for _ in range(draw(st.sampled_from([1, 1, 1, 2, 3]))):
        accident = draw(
            st.sampled_from(["token", "token", "token", "line", "line", "cut", "splice", "bytes"])
        )
        if accident == "token":
            found = list(TOKEN.finditer(text)) or [re.search("", text)]
            at = draw(st.sampled_from(found))
            other = draw(st.sampled_from(TOKENS) | st.sampled_from([token.group() for token in found]))
            text = text[: at.start()] + other + text[at.end() :]
        elif accident == "line":
            lines = text.split("\n")
            at, to = (draw(st.integers(0, len(lines) - 1)) for _ in range(2))
            how = draw(st.sampled_from(["drop", "double", "move"]))
            line = lines[at] if how == "double" else lines.pop(at)
            text = "\n".join(lines if how == "drop" else [*lines[:to], line, *lines[to:]])
        elif accident == "cut":
            text = text[: draw(st.integers(0, len(text)))]
        else:
            at = draw(st.integers(0, len(text)))
            text = text[:at] + draw(st.text(max_size=4)) + text[at + draw(st.integers(0, 3)) :]
    codec = draw(st.sampled_from(["utf-8"] * 20 + ["utf-8-sig", "utf-16", "latin-1"]))
    content = text.encode(codec, "replace")
    if draw(st.integers(0, 19)) == 19:
        at = draw(st.integers(0, len(content)))
        content = content[:at] + draw(st.binary(max_size=8)) + content[at:]
    return draw(st.binary(max_size=60)) if draw(st.integers(0, 29)) == 29 else content


def check_error(error, path):
    message = str(error)
    assert path.name in message
    assert len(message.splitlines()) == 1
    assert len(message.replace(str(path.parent), "")) < 1000


def one_file(kind, data, folder):
    """Read a spoiled file: an error of ours, or what is right. Gives which it was."""
    make, check = KINDS[kind]
    valid, path = make(folder), folder / kind
    path.write_bytes(data.draw(spoiled(valid)))
    try:
        check(path)
    except HelixlabError as error:
        check_error(error, path)
        return "refused"
    return "read"


def peak_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


@pytest.mark.parametrize("kind", KINDS)
def test_valid_files_are_read(kind, tmp_path):
    make, check = KINDS[kind]
    for codec in ("utf-8", "utf-8-sig"):
        (tmp_path / kind).write_text(make(tmp_path), encoding=codec)
        check(tmp_path / kind)


@pytest.mark.filterwarnings("ignore:.*calls its")
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=24)
@given(data=st.data())
def test_spoiled_files_are_read_right_or_refused(kind, data, tmp_path_factory):
    before = peak_mb()
    one_file(kind, data, tmp_path_factory.mktemp("spoiled"))
    assert peak_mb() - before < 200


def spoiled_run(data, run, folder):
    """Load a saved result one of whose files is spoiled: refused, or the result."""
    saved, result = run
    name = data.draw(st.sampled_from(["result.json"] * 3 + [path.name for path in sorted(saved.iterdir())]))
    for path in saved.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    content = (saved / name).read_bytes()
    text = spoiled(content.decode("utf-8", "replace")) if name == "result.json" else st.binary(max_size=60)
    (folder / name).write_bytes(data.draw(text | st.just(content)))
    try:
        assert hx.load_result(folder).summary.equals(result.summary)
    except HelixlabError as error:
        check_error(error, folder)


@settings(max_examples=12)
@given(data=st.data())
def test_spoiled_results_are_refused(data, run, tmp_path_factory):
    spoiled_run(data, run, tmp_path_factory.mktemp("run"))
