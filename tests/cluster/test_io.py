"""Bundled clusters, cluster files, and everything that can be wrong with one."""

import copy
import json
import re
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from helixlab.cluster import (
    SINK,
    SOURCE,
    Cluster,
    Coordinator,
    Link,
    Machine,
    Node,
    bundled_coordinator,
    bundled_machines,
    cluster_names,
    load_cluster,
    save_cluster,
    single_region,
)
from helixlab.cluster.io import cluster_to_json
from helixlab.errors import ClusterError, FileFormatError, HelixlabError, UnknownNameError
from helixlab.placement import load_placement


class TestBundled:
    def test_names(self):
        assert cluster_names() == [
            "geo24", "geo24-a100", "geo24-l4", "geo24-t4", "hetero42",
            "single24", "single24-a100", "single24-l4", "single24-t4", "small10",
        ]  # fmt: skip

    @pytest.mark.parametrize(
        ("name", "counts", "links"),
        [
            ("geo24", {"A100": 4, "L4": 8, "T4": 12}, 600),
            ("geo24-a100", {"A100": 4}, 20),
            ("geo24-l4", {"L4": 8}, 72),
            ("geo24-t4", {"T4": 12}, 156),
            ("hetero42", {"A100": 4, "V100": 6, "L4": 8, "L4x2": 4, "T4": 10, "T4x2": 6, "T4x4": 4}, 1806),
            ("single24", {"A100": 4, "L4": 8, "T4": 12}, 600),
            ("single24-a100", {"A100": 4}, 20),
            ("single24-l4", {"L4": 8}, 72),
            ("single24-t4", {"T4": 12}, 156),
            ("small10", {"L4": 4, "T4": 6}, 110),
        ],
    )
    def test_what_is_in_them(self, name, counts, links):
        cluster = load_cluster(name)
        assert cluster.name == name
        assert cluster.machine_counts() == counts
        assert [machine.name for machine in cluster.machines] == list(counts)
        assert len(cluster.links) == links
        assert cluster.coordinator == bundled_coordinator()
        assert set(cluster.machines) <= set(bundled_machines())

    def test_single24(self):
        cluster = load_cluster("single24")
        order = "L4 T4 T4 L4 T4 L4 A100 T4 T4 A100 A100 L4 T4 T4 L4 T4 T4 A100 L4 T4 T4 L4 T4 L4"
        assert [node.machine for node in cluster.nodes] == order.split()
        assert {(link.bandwidth_bytes_per_s, link.latency_s) for link in cluster.links} == {(1e9, 1e-3)}
        pairs = {frozenset((link.sender, link.receiver)) for link in cluster.links}
        assert len(pairs) == 24 + 24 + 276 == 324
        assert cluster.machine_of(6).vram_bytes == 40e9
        assert cluster.machine_of(6).nic_in_bytes_per_s == 10e9

    def test_geo24(self):
        cluster = load_cluster("geo24")
        assert cluster.regions == ("region-0", "region-1", "region-2")
        assert [node.region for node in cluster.nodes] == (
            ["region-0"] * 4 + ["region-1"] * 10 + ["region-2"] * 10
        )
        assert cluster.link(SOURCE, 0) == Link(SOURCE, 0, 14.2e6, 0.055)
        assert cluster.link(0, SINK) == Link(0, SINK, 11.2e6, 0.059)
        assert cluster.link(22, 23) == Link(22, 23, 1204e6, 0.001)
        for link in cluster.links:
            assert len(repr(link.latency_s)) <= 5

    @pytest.mark.parametrize("kind", ["a100", "l4", "t4"])
    def test_parts_of_geo24(self, kind):
        whole, part = load_cluster("geo24"), load_cluster(f"geo24-{kind}")
        place = [node.index for node in whole.nodes if node.machine.lower() == kind]
        for node in part.nodes:
            assert node.region == whole.nodes[place[node.index]].region
        for link in part.links:
            sender = link.sender if link.sender == SOURCE else place[link.sender]
            receiver = link.receiver if link.receiver == SINK else place[link.receiver]
            assert whole.link(sender, receiver) == Link(
                sender, receiver, link.bandwidth_bytes_per_s, link.latency_s
            )

    def test_link_order(self):
        for name in cluster_names():
            cluster = load_cluster(name)
            size = len(cluster.nodes)
            ends = [(SOURCE, i) for i in range(size)] + [(i, SINK) for i in range(size)]
            for i in range(size):
                for j in range(i + 1, size):
                    ends += [(i, j), (j, i)]
            assert [(link.sender, link.receiver) for link in cluster.links] == ends

    def test_machine_types(self):
        vram = {machine.name: machine.vram_bytes for machine in bundled_machines()}
        assert vram == {
            "A100": 40e9, "V100": 16e9, "L4": 24e9, "L4x2": 48e9, "T4": 16e9, "T4x2": 32e9, "T4x4": 64e9,
        }  # fmt: skip

    @pytest.mark.parametrize(
        "name", ["singel24", "", "Single24", "../clusters/single24", "single24.txt", "/", 24, None]
    )
    def test_unknown_name(self, name):
        with pytest.raises(UnknownNameError, match="single24"):
            load_cluster(name)

    def test_unknown_name_says_what_is_close(self):
        with pytest.raises(UnknownNameError, match="did you mean 'single24'"):
            load_cluster("singel24")

    def test_other_endings(self):
        with pytest.raises(
            UnknownNameError, match=r"unknown cluster \(of files, \.json and \.ini are read\)"
        ):
            load_cluster("my/single24.txt")


@st.composite
def clusters(draw) -> Cluster:
    """Small clusters of all kinds: links both ways or one way, alike or not, in any order."""
    amount = st.floats(1e-3, 1e18) | st.integers(1, 10**15)
    latency = st.floats(0, 1e3) | st.integers(0, 5)
    name = st.text(st.characters(codec="utf-8", categories=["L", "N", "P"]), min_size=1, max_size=5)
    names = draw(st.lists(name, min_size=1, max_size=3, unique=True))
    machines = [Machine(name, *(draw(amount) for _ in range(4))) for name in names]
    size = draw(st.integers(1, 4))
    nodes = [Node(i, draw(st.sampled_from(names)), draw(st.just("") | name)) for i in range(size)]
    ends = [(SOURCE, i) for i in range(size)] + [(i, SINK) for i in range(size)]
    if draw(st.booleans()):
        ends += [pair for i in range(size) for j in range(i) for pair in ((i, j), (j, i))]
        same = draw(amount), draw(latency)
        links = [Link(*pair, *same) for pair in ends]
    else:
        ends += [(i, j) for i in range(size) for j in range(size) if i != j and draw(st.booleans())]
        links = [Link(*pair, draw(amount), draw(latency)) for pair in draw(st.permutations(ends))]
    return Cluster(draw(name), machines, nodes, links, Coordinator(draw(amount), draw(amount)))


class TestRoundTrip:
    @given(cluster=clusters())
    def test_any_cluster(self, cluster, tmp_path_factory):
        path = tmp_path_factory.mktemp("clusters") / "one.json"
        save_cluster(cluster, path)
        assert load_cluster(path) == cluster

    @pytest.mark.parametrize("name", cluster_names())
    def test_bundled_ones(self, name, tmp_path):
        save_cluster(load_cluster(name), tmp_path / "one.json")
        assert load_cluster(str(tmp_path / "one.json")) == load_cluster(name)

    def test_pairs_are_listed_once_and_one_a_line(self, tmp_path):
        path = tmp_path / "one.json"
        save_cluster(single_region({"T4": 3}), path)
        text = path.read_text()
        assert json.loads(text)["links"]["both_ways"] is True
        assert text.count("1250000000, 0.001]") == 3 + 3 + 3
        assert max(len(line) for line in text.splitlines()) < 200

    def test_one_way_links_are_all_listed(self, tmp_path):
        path = tmp_path / "one.json"
        cluster = single_region({"T4": 2})
        one_way = Cluster("one-way", cluster.machines, cluster.nodes, cluster.links[:-1], cluster.coordinator)
        save_cluster(one_way, path)
        assert json.loads(path.read_text())["links"]["both_ways"] is False
        assert load_cluster(path) == one_way

    def test_saving_leaves_nothing_else_behind(self, tmp_path):
        save_cluster(single_region({"T4": 2}), tmp_path / "new" / "one.json")
        assert [path.name for path in tmp_path.rglob("*.json")] == ["one.json"]
        assert len(list((tmp_path / "new").iterdir())) == 1

    @pytest.mark.parametrize("name", ["one.ini", "one", "one.json.gz"])
    def test_ending(self, name, tmp_path):
        with pytest.raises(FileFormatError, match=r"call the file one.*\.json"):
            save_cluster(single_region({"T4": 2}), tmp_path / name)


@pytest.fixture
def content(tmp_path) -> dict:
    save_cluster(single_region({"T4": 2}), tmp_path / "good.json")
    return json.loads((tmp_path / "good.json").read_text())


def write(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def start(value: object) -> str:
    """Enough of a long value to name the test."""
    return repr(value)[:30]


def complaint(path: Path) -> str:
    """The message of the one error that loading may raise; empty where there is none."""
    try:
        load_cluster(path)
    except HelixlabError as error:
        return str(error)
    return ""


def changed(content: dict, keys: tuple, value: object) -> dict:
    """A copy in which the item under the keys is another one."""
    content = copy.deepcopy(content)
    inner = content
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    return content


class TestStrictness:
    @pytest.mark.parametrize(
        ("keys", "value", "message"),
        [
            (("format",), "other", "has format 'other'; a cluster file has 'helixlab-cluster'"),
            (("version",), 2, "is of version 2; this helixlab reads version 1"),
            (("version",), True, "is of version True"),
            (("extra",), 1, "unknown key 'extra'; leave it out"),
            (("name",), 5, "name of the cluster is 5"),
            (("coordinator",), None, "coordinator of .* is None; give an object"),
            (("coordinator", "nic"), 1, "coordinator of .* has the unknown key 'nic'"),
            (("coordinator", "nic_in_bytes_per_s"), "1e9", "nic_in_bytes_per_s of the coordinator is '1e9'"),
            (("machines",), {}, "machines of .* is {}; give a list"),
            (("machines", 0), "T4", "machine type 0 of .* is 'T4'; give an object"),
            (("machines", 0, "gpus"), 2, "machine type 0 of .* has the unknown key 'gpus'"),
            (("machines", 0, "name"), 4, "name of a machine type is 4"),
            (("machines", 0, "vram_bytes"), -1, "vram_bytes of machine type 'T4' is -1"),
            (("machines", 0, "vram_bytes"), True, "vram_bytes of machine type 'T4' is True"),
            (("machines", 0, "vram_bytes"), None, "vram_bytes of machine type 'T4' is None"),
            (("machines", 0, "vram_bytes"), 10**400, "vram_bytes of machine type 'T4' is 1000"),
            (("nodes",), 2, "nodes of .* is 2; give a list"),
            (("nodes", 0), [0, "T4"], "node 0 of .* give an object"),
            (("nodes", 0, "index"), 1, "position 0 has index 1"),
            (("nodes", 0, "index"), 0.0, "position 0 has index 0.0"),
            (("nodes", 0, "index"), False, "position 0 has index False"),
            (("nodes", 0, "machine"), ["T4"], "node 0 is of machine type"),
            (("nodes", 0, "region"), None, "node 0 is in region None"),
            (("nodes", 0, "rack"), 1, "node 0 of .* has the unknown key 'rack'"),
            (("links",), [], r"links of .* is \[\]; give an object"),
            (("links", "columns"), ["a", "b"], "columns of the links .*give .*sender"),
            (("links", "columns"), None, "columns of the links"),
            (("links", "both_ways"), 1, "both_ways of the links of .* is 1; give true or false"),
            (("links", "rows"), {}, "rows of the links of .* give a list"),
            (("links", "rows", 0), [0, 1, 1e9], "row 0 of the links"),
            (("links", "rows", 0), "source", "row 0 of the links"),
            (("links", "rows", 0), ["source", 2, 1e9, 0], "link 'source' -> 2 has no such ends"),
            (("links", "rows", 0), [[0], 1, 1e9, 0], r"link \[0\] -> 1 has no such ends"),
            (("links", "rows", 0), [None, {}, 1e9, 0], "has no such ends"),
            (("links", "rows", 0), [True, 0, 1e9, 0], "link True -> 0 has no such ends"),
            (("links", "rows", 0, 2), 0, "bandwidth_bytes_per_s of link source -> 0 is 0"),
            (("links", "rows", 0, 2), "fast", "bandwidth_bytes_per_s of link source -> 0 is 'fast'"),
            (("links", "rows", 0, 3), -1, "latency_s of link source -> 0 is -1"),
            (("links", "rows", 1), ["source", 0, 1e9, 0], "is there twice"),
            (("links", "rows"), [], "no link leaves the coordinator"),
        ],
        ids=start,
    )
    def test_one_wrong_item(self, content, tmp_path, keys, value, message):
        path = write(tmp_path / "bad.json", changed(content, keys, value))
        with pytest.raises((FileFormatError, ClusterError), match=message) as caught:
            load_cluster(path)
        assert "bad.json" in str(caught.value)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        "keys",
        [
            ("version",), ("name",), ("coordinator",), ("machines",), ("nodes",), ("links",),
            ("coordinator", "nic_out_bytes_per_s"), ("machines", 0, "disk_bytes_per_s"),
            ("nodes", 0, "machine"), ("links", "columns"), ("links", "both_ways"), ("links", "rows"),
        ],
    )  # fmt: skip
    def test_one_missing_item(self, content, tmp_path, keys):
        inner = content
        for key in keys[:-1]:
            inner = inner[key]
        del inner[keys[-1]]
        with pytest.raises(FileFormatError, match=f"has no '{keys[-1]}'; add it|is of version None"):
            load_cluster(write(tmp_path / "bad.json", content))

    @pytest.mark.parametrize(
        "number", ["NaN", "Infinity", "-Infinity", "1e400", "9" * 5000, "1e19"], ids=start
    )
    def test_numbers_that_are_none(self, content, tmp_path, number):
        text = json.dumps(content).replace("16000000000", number)
        with pytest.raises((FileFormatError, ClusterError)):
            load_cluster(write(tmp_path / "bad.json", text))

    @pytest.mark.parametrize(
        "text", ["", "[]", "3", '"x"', "null", "{", "{}", "[" * 100_000, "\x00", "format: x"], ids=start
    )
    def test_no_cluster_at_all(self, tmp_path, text):
        with pytest.raises(FileFormatError, match=r"bad\.json"):
            load_cluster(write(tmp_path / "bad.json", text))

    def test_cut_off_anywhere(self, content, tmp_path):
        text = json.dumps(content)
        for length in range(0, len(text), 17):
            with pytest.raises(FileFormatError):
                load_cluster(write(tmp_path / "bad.json", text[:length]))

    def test_not_text(self, tmp_path):
        (tmp_path / "bad.json").write_bytes(b"\xff\xfe\x00")
        with pytest.raises(FileFormatError, match="not a UTF-8 text file"):
            load_cluster(tmp_path / "bad.json")

    def test_no_file(self, tmp_path):
        with pytest.raises(FileFormatError, match="cannot read"):
            load_cluster(tmp_path / "none.json")

    @settings(max_examples=50)
    @given(data=st.data())
    def test_whatever_an_item_is_replaced_by(self, data, tmp_path_factory):
        """Any JSON value anywhere gives a cluster or one error of ours."""
        content = json.loads(cluster_to_json(single_region({"T4": 2})))
        scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3)
        value = data.draw(
            st.recursive(
                scalars,
                lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
                max_leaves=5,
            )
        )
        keys: list = []
        inner = content
        while isinstance(inner, dict | list) and inner and (not keys or data.draw(st.booleans())):
            keys.append(
                data.draw(st.sampled_from(sorted(inner) if isinstance(inner, dict) else range(len(inner))))
            )
            inner = inner[keys[-1]]
        path = write(tmp_path_factory.getbasetemp() / "fuzz.json", changed(content, tuple(keys), value))
        assert len(complaint(path)) < 600


class TestNamesOfOthers:
    WARNING = (
        "calls its cluster {!r}, but its content is not that of the bundled one; rename it, or results are"
        " taken for those of another cluster"
    )

    @pytest.mark.parametrize("name", ["single24", "Single24", "single24 ", "single24-t4"])
    def test_a_file_that_bears_the_name_of_a_bundled_one(self, tmp_path, name):
        save_cluster(replace(load_cluster("small10"), name=name), tmp_path / "mine.json")
        with pytest.warns(UserWarning, match=re.escape(f"mine.json {self.WARNING.format(name)}")):
            load_cluster(tmp_path / "mine.json")

    def test_those_that_are_what_they_say(self, tmp_path):
        small = load_cluster("small10")
        part = load_placement("single24/llama-2-70b/separate-t4").part
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for cluster in (small, replace(small, name="Small10"), replace(small, name="mine"), part):
                save_cluster(cluster, tmp_path / "mine.json")
                assert load_cluster(tmp_path / "mine.json") == cluster
