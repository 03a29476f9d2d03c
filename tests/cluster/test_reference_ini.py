"""Readers for the Helix simulator's own files: both kinds of clusters, machine profiles, placements."""

from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from helixlab.cluster import (
    SINK,
    SOURCE,
    Coordinator,
    Link,
    Machine,
    bundled_coordinator,
    load_cluster,
    read_complete_cluster,
    read_layers_ini,
    read_machine_profiles,
    read_simulator_cluster,
)
from helixlab.errors import ClusterError, FileFormatError, HelixlabError

COMPLETE = """\
# three nodes, one of them reached through the others only
[NodeNames]
total_compute_nodes=3

[SourceNode]
connected_nodes=[0, 2]

[SinkNode]
connected_nodes=[2]

[ComputeNode-0]
type=A100
connected_nodes=['source', 1, 2]

[ComputeNode-1]
type=T4
connected_nodes=[0]

[ComputeNode-2]
type=A100
connected_nodes=['source', 0, 'sink']

[Link-source-0]
bandwidth=12.6 * mbps
latency=59 * MilliSec

[Link-source-2]
bandwidth=1 * gbps
latency=0.5 * Sec

[Link-2-sink]
bandwidth=2500 * kbps
latency=0 * MilliSec

[Link-0-2]
bandwidth=1250.0 * mbps
latency=1.0 * MilliSec

[Link-0-1]
bandwidth=1000000
latency=0.25
"""

PROFILES = """\
[SourceNode]
inbound_nic_speed = -1
outbound_nic_speed = 10 * gbps
disk_speed = -1
vram_size = -1

[SinkNode]
inbound_nic_speed = 5 * gbps
outbound_nic_speed = -1
disk_speed = -1
vram_size = -1

[A100]
inbound_nic_speed = 3 * gbps
outbound_nic_speed = 4 * gbps
disk_speed = 500 * mbps
vram_size = 80 * GB

[T4]
inbound_nic_speed = 1 * gbps
outbound_nic_speed = 1 * gbps
disk_speed = 1 * gbps
vram_size = 16000 * MB
"""

SIMULATOR = """\
[Coordinator]
inbound_nic_speed=10000.0 * mbps
outbound_nic_speed=9000.0 * mbps

[MachineTypes]
types=['T4', 'L4', 'A100']

[ComputeNodes]
names=['compute_node_12', 'compute_node_7', "compute_node_3"]

[compute_node_12]
vram_size=40000.0 * MB
inbound_nic_speed=10000.0 * mbps
outbound_nic_speed=8000.0 * mbps
disk_speed=1000.0 * mbps
machine_type="A100"
kv_cache_capacity=4630752
activation_backup_capacity=0

[compute_node_7]
vram_size=16000.0 * MB
inbound_nic_speed=10000.0 * mbps
outbound_nic_speed=10000.0 * mbps
disk_speed=1000.0 * mbps
machine_type='T4'
kv_cache_capacity=1124224

[compute_node_3]
vram_size=16000.0 * MB
inbound_nic_speed=10000.0 * mbps
outbound_nic_speed=10000.0 * mbps
disk_speed=1000.0 * mbps
machine_type=T4
kv_cache_capacity=0
activation_backup_capacity=0

[Links]
names=['first', 'link_compute_node_12_sink', 'link_compute_node_3_compute_node_12', 'side', 'back']

[link_compute_node_12_sink]
in=compute_node_12
out=sink
latency=1.0 * MilliSec
bandwidth=1000.0 * mbps

[first]
in=source
out=compute_node_3
latency=2.0 * MilliSec
bandwidth=1000.0 * mbps

[link_compute_node_3_compute_node_12]
in=compute_node_3
out=compute_node_12
latency=3.0 * MilliSec
bandwidth=1000.0 * mbps

[side]
in=compute_node_3
out=compute_node_7
latency=4.0 * MilliSec
bandwidth=1000.0 * mbps

[back]
in=compute_node_7
out=compute_node_3
latency=5.0 * MilliSec
bandwidth=1000.0 * mbps
"""

LAYERS = """\
[Settings]
offset=2

[Solution]
compute_node_4=[0, 1, 2]
compute_node_3=[]
compute_node_2=[7, 8]
compute_node_15=[79]
"""


@pytest.fixture
def written(tmp_path):
    def write(text: str, old: str = "", new: str = "", name: str = "my-file.ini"):
        assert old in text
        path = tmp_path / name
        path.write_text(text.replace(old, new, 1) if old else text)
        return path

    return write


def complaint(path: Path) -> str:
    """The message of the one error that loading may raise; empty where there is none."""
    try:
        load_cluster(path)
    except HelixlabError as error:
        return str(error)
    return ""


def start(value: object) -> str:
    """Enough of a long value to name the test."""
    return repr(value)[:30]


class TestCompleteCluster:
    def test_links_serve_both_directions_in_the_order_of_the_file(self, written):
        cluster = load_cluster(written(COMPLETE))
        assert cluster.links == (
            Link(SOURCE, 0, 12.6e6, 0.059),
            Link(SOURCE, 2, 1e9, 0.5),
            Link(2, SINK, 2.5e6, 0.0),
            Link(0, 2, 1.25e9, 0.001),
            Link(2, 0, 1.25e9, 0.001),
            Link(0, 1, 1e6, 0.25),
            Link(1, 0, 1e6, 0.25),
        )
        assert [node.machine for node in cluster.nodes] == ["A100", "T4", "A100"]
        assert cluster.name == "my-file"

    def test_bundled_machine_types_by_default(self, written):
        cluster = load_cluster(written(COMPLETE))
        assert cluster.machine_of(0).vram_bytes == 40e9
        assert [machine.name for machine in cluster.machines] == ["A100", "T4"]
        assert cluster.coordinator == bundled_coordinator()

    def test_machine_profiles(self, written):
        profiles = read_machine_profiles(written(PROFILES, name="profiles.ini"))
        machines, coordinator = profiles
        assert machines == (Machine("A100", 80e9, 3e9, 4e9, 5e8), Machine("T4", 16e9, 1e9, 1e9, 1e9))
        assert coordinator == Coordinator(nic_in_bytes_per_s=5e9, nic_out_bytes_per_s=10e9)
        cluster = read_complete_cluster(written(COMPLETE), *profiles)
        assert cluster.machine_of(2).vram_bytes == 80e9
        assert cluster.coordinator == coordinator

    def test_a_file_survives_saving(self, written, tmp_path):
        from_json = load_cluster(written(COMPLETE))
        assert read_complete_cluster(tmp_path / "my-file.ini") == from_json

    @pytest.mark.parametrize(
        ("old", "new", "error", "message"),
        [
            ("total_compute_nodes=3", "total_compute_nodes=4", FileFormatError, "write 3, or add"),
            ("total_compute_nodes=3", "total_compute_nodes=999999999999", FileFormatError, "write 3, or add"),
            ("total_compute_nodes=3", "total_compute_nodes=-3", FileFormatError, "whole number"),
            (
                "total_compute_nodes=3",
                "nodes=3",
                FileFormatError,
                r"\[NodeNames\] has no key 'total_compute_nodes'",
            ),
            ("[SinkNode]", "[Sink]", FileFormatError, r"no section \[SinkNode\]"),
            (
                "[ComputeNode-1]",
                "[ComputeNode-5]",
                FileFormatError,
                r"write 1, or add the sections \[ComputeNode-1\]",
            ),
            ("[Link-0-1]", "[Link-0-1-2]", FileFormatError, r"section \[Link-0-1-2\] has no meaning here"),
            ("[Link-0-1]", "[DEFAULT]", FileFormatError, r"section \[DEFAULT\] has no meaning here"),
            ("[Link-0-1]", "[Link-sink-1]", FileFormatError, r"\[Link-sink-1\] has no meaning"),
            (
                "[Link-0-1]",
                "[Link-0-2]",
                FileFormatError,
                "not a readable .ini file.*'Link-0-2' already exists",
            ),
            ("[Link-0-1]", "[Link-2-0]", FileFormatError, "make it agree with the .Link"),
            ("[Link-0-1]", "[Link-1-9]", FileFormatError, "make it agree"),
            (
                "[0, 2]",
                "[0]",
                FileFormatError,
                r"\[SourceNode\], key 'connected_nodes', .* 2 is in one of them",
            ),
            ("['source', 1, 2]", "['source', 1]", FileFormatError, r"\[ComputeNode-0\]"),
            ("latency=0.25", "latency=0.25\nlatency=0.25", FileFormatError, "'latency' .*already exists"),
            (
                "latency=0.25",
                "latency=0.25\nspeed=3",
                FileFormatError,
                "key 'speed', value '3': leave out this key",
            ),
            ("latency=0.25", "", FileFormatError, "no key 'latency'; add it"),
            ("latency=0.25", "latency", FileFormatError, "not a readable .ini file"),
            ("[NodeNames]", "", FileFormatError, "not a readable .ini file"),
            ("latency=0.25", "latency=-0.25", ClusterError, r"latency_s of link 0 -> 1 is -0\.25"),
            (
                "bandwidth=1000000",
                "bandwidth=0",
                ClusterError,
                r"bandwidth_bytes_per_s of link 0 -> 1 is 0\.0",
            ),
            ("bandwidth=1000000", "bandwidth=1e30", ClusterError, r"at most 1e\+18"),
            ("type=T4", "type=H100", ClusterError, r"node 1 is of machine type 'H100'.*use one of: A100"),
        ],
    )
    def test_wrong_files(self, written, old, new, error, message):
        with pytest.raises(error, match=message) as caught:
            load_cluster(written(COMPLETE, old, new))
        assert "my-file.ini" in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_link_there_twice(self, written):
        text = COMPLETE + "[Link-2-0]\nbandwidth=1\nlatency=0\n"
        with pytest.raises(ClusterError, match="link 2 -> 0 is there twice"):
            load_cluster(written(text))

    @pytest.mark.parametrize(
        ("old", "new", "message"),
        [
            ("vram_size = 80 * GB", "vram_size = -1", "vram_bytes of machine type 'A100' is -1"),
            (
                "inbound_nic_speed = 5 * gbps",
                "inbound_nic_speed = -1",
                "nic_in_bytes_per_s of the coordinator",
            ),
            ("vram_size = 80 * GB", "vram_size = 80 * gbps", "write a number and a unit"),
            ("[SourceNode]", "[Source]", "no section .SourceNode"),
        ],
    )
    def test_wrong_profiles(self, written, old, new, message):
        with pytest.raises((FileFormatError, ClusterError), match=message):
            read_machine_profiles(written(PROFILES, old, new))


class TestSimulatorCluster:
    def test_nodes_are_numbered_in_the_order_of_their_numbers(self, written):
        cluster, capacity = read_simulator_cluster(written(SIMULATOR))
        assert [node.machine for node in cluster.nodes] == ["T4", "T4", "A100"]
        assert capacity == {0: 0, 1: 1124224, 2: 4630752}

    def test_directed_links_in_the_order_of_the_list(self, written):
        cluster, _ = read_simulator_cluster(written(SIMULATOR))
        assert cluster.links == (
            Link(SOURCE, 0, 1e9, 0.002),
            Link(2, SINK, 1e9, 0.001),
            Link(0, 2, 1e9, 0.003),
            Link(0, 1, 1e9, 0.004),
            Link(1, 0, 1e9, 0.005),
        )

    def test_machines_are_those_of_the_file(self, written):
        cluster, _ = read_simulator_cluster(written(SIMULATOR))
        assert cluster.machines == (
            Machine("T4", 16e9, 10e9, 10e9, 1e9),
            Machine("A100", 40e9, 10e9, 8e9, 1e9),
        )
        assert cluster.coordinator == Coordinator(10e9, 9e9)

    def test_load_cluster_gives_the_cluster(self, written):
        path = written(SIMULATOR)
        assert load_cluster(str(path)) == read_simulator_cluster(path)[0]

    @pytest.mark.parametrize(
        ("old", "new", "error", "message"),
        [
            ("'compute_node_7'", "'compute_node_8'", FileFormatError, r"no section \[compute_node_8\]"),
            ("'compute_node_7'", "'compute_node_07'", FileFormatError, r"no section \[compute_node_07\]"),
            ("'compute_node_7'", "'node_7'", FileFormatError, "item 'node_7': call each node compute_node_N"),
            ("'compute_node_7'", "'compute_node_3'", FileFormatError, "each N once"),
            ("'compute_node_7'", "7", FileFormatError, "item '7': call each node"),
            (
                ", 'compute_node_7'",
                "",
                FileFormatError,
                r"\[compute_node_7\] is named by no other|write 'sink'",
            ),
            (
                "in=compute_node_7",
                "in=compute_node_9",
                FileFormatError,
                "value 'compute_node_9': write 'source'",
            ),
            ("in=compute_node_7", "in=sink", FileFormatError, "value 'sink': write 'source'"),
            ("out=compute_node_7", "out=source", FileFormatError, "value 'source': write 'sink'"),
            ("in=compute_node_7", "in=compute_node_3", ClusterError, "joins a node to itself"),
            (
                "in=compute_node_7\nout=compute_node_3",
                "in=compute_node_3\nout=compute_node_7",
                ClusterError,
                "twice",
            ),
            ("'side', 'back'", "'side', 'side'", FileFormatError, "name each link once"),
            ("'side', 'back'", "'side'", FileFormatError, r"section \[back\] is named by no other"),
            ("'side', 'back'", "'side', 'front'", FileFormatError, r"no section \[front\]"),
            ("types=['T4', 'L4', 'A100']", "types=['L4', 'A100']", FileFormatError, "add it to the types"),
            (
                "vram_size=16000.0 * MB",
                "vram_size=15000.0 * MB",
                FileFormatError,
                "earlier node .* other values",
            ),
            ("kv_cache_capacity=1124224", "kv_cache_capacity=1e6", FileFormatError, "whole number"),
            ("kv_cache_capacity=1124224", "kv_cache_capacity=-1", FileFormatError, "whole number"),
            ("kv_cache_capacity=1124224", "", FileFormatError, "no key 'kv_cache_capacity'"),
            (
                "disk_speed=1000.0 * mbps",
                "disk_speed=0",
                ClusterError,
                "disk_bytes_per_s of machine type 'A100'",
            ),
            ("outbound_nic_speed=9000.0 * mbps", "outbound_nic_speed=-1", ClusterError, "of the coordinator"),
            ("[Links]", "[Arcs]", FileFormatError, r"no section \[Links\]"),
        ],
    )
    def test_wrong_files(self, written, old, new, error, message):
        with pytest.raises(error, match=message) as caught:
            read_simulator_cluster(written(SIMULATOR, old, new))
        assert "my-file.ini" in str(caught.value)


class TestLayers:
    def test_layers_by_node(self, written):
        held = read_layers_ini(written(LAYERS))
        assert list(held.items()) == [(2, (0, 3)), (0, (7, 9)), (13, (79, 80))]

    @pytest.mark.parametrize(
        ("old", "new", "message"),
        [
            ("[0, 1, 2]", "[0, 2]", "consecutive layers"),
            ("[0, 1, 2]", "[2, 1, 0]", "consecutive layers"),
            ("[0, 1, 2]", "[0, 0, 1]", "consecutive layers"),
            ("[0, 1, 2]", "[-1, 0]", "consecutive layers"),
            ("[0, 1, 2]", "['source', 1]", "consecutive layers"),
            ("[0, 1, 2]", "[0, 1.0]", "write item '1.0' as a whole number"),
            ("[0, 1, 2]", "range(3)", "write a list"),
            ("[0, 1, 2]", "[0, 1, 2,]", "write item '' as"),
            ("[0, 1, 2]", "[[0], [1]]", "write item"),
            ("[0, 1, 2]", f"[{'0,' * 1_000_000}0]", "at most 1000000 items"),
            ("compute_node_15", "compute_node_1", "N not below the offset, 2"),
            ("compute_node_15", "node_15", "call the node compute_node_N"),
            ("compute_node_15", "Compute_Node_15", "call the node compute_node_N"),
            ("compute_node_15", "compute_node_4", "already exists"),
            ("compute_node_15", "compute_node_04", "name each node once"),
            ("offset=2", "offset=two", "whole number"),
            ("offset=2", "shift=2", "no key 'offset'"),
            ("[Solution]", "[Layers]", "no section .Solution"),
            ("[Settings]", "[More]\na=1\n[Settings]", "section .More. has no meaning here"),
        ],
        ids=start,
    )
    def test_wrong_files(self, written, old, new, message):
        with pytest.raises(FileFormatError, match=message) as caught:
            read_layers_ini(written(LAYERS, old, new))
        assert len(str(caught.value)) < 500

    def test_is_no_cluster(self, written):
        with pytest.raises(FileFormatError, match="holds a placement; give a file with a section"):
            load_cluster(written(LAYERS))
        with pytest.raises(FileFormatError, match="holds no cluster"):
            load_cluster(written(PROFILES))


HOSTILE = [
    "__import__('os').system('touch HACKED')",
    "9**9**9",
    "9 ** 9",
    "2 * * 3",
    "1250.0 * mbps * mbps",
    "1 * 1 * 1 * 1 * 1 * 1",
    "mbps.__class__.__mro__",
    "().__class__.__bases__[0].__subclasses__()",
    "%(bandwidth)s",
    "${NodeNames:total_compute_nodes}",
    "[0] * 10000000000",
    "[i for i in range(10)]",
    "[" * 10_000,
    "9" * 1_000_000,
    "1e999999999",
    "0x10 * mbps",
    "1_000 * mbps",
    "\u0661 * mbps",
    "nan",
    "inf",
    "1 * MilliSec",
    "1 mbps",
    "1 / 0",
    "lambda: 0",
    "",
    "'1' * mbps",
]


class TestHostileValues:
    @pytest.mark.parametrize("value", HOSTILE, ids=start)
    def test_number(self, written, tmp_path, value, monkeypatch):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(FileFormatError, match=r"write a number and a unit") as caught:
            load_cluster(written(COMPLETE, "12.6 * mbps", value))
        assert "my-file.ini: section [Link-source-0], key 'bandwidth', value" in str(caught.value)
        assert len(str(caught.value)) < 500
        assert not (tmp_path / "HACKED").exists()

    @pytest.mark.parametrize(
        "value", [*HOSTILE, "['source', 1, 2] + [3]", "['source', 1, 2].__class__", "('source',)"], ids=start
    )
    def test_list(self, written, value):
        with pytest.raises(FileFormatError, match=r"section \[ComputeNode-0\], key 'connected_nodes', value"):
            load_cluster(written(COMPLETE, "['source', 1, 2]", value))

    @pytest.mark.parametrize("value", HOSTILE, ids=start)
    def test_name(self, written, value):
        with pytest.raises((FileFormatError, ClusterError)):
            load_cluster(written(COMPLETE, "type=T4", f"type={value}"))

    @settings(max_examples=50)
    @given(value=st.text(max_size=40))
    def test_any_text_for_a_number(self, value, tmp_path_factory):
        path = tmp_path_factory.getbasetemp() / "fuzz.ini"
        path.write_text(COMPLETE.replace("12.6 * mbps", value, 1), encoding="utf-8")
        message = complaint(path)
        assert not message or "fuzz.ini" in message

    @given(value=st.text(st.sampled_from("0123456789.eE+-* mbpsgk[]',\"\n=#;"), max_size=30), data=st.data())
    def test_any_text_anywhere(self, value, data, tmp_path_factory):
        path = tmp_path_factory.getbasetemp() / "fuzz.ini"
        text = data.draw(st.sampled_from([COMPLETE, SIMULATOR]))
        place = data.draw(st.integers(0, len(text)))
        path.write_text(text[:place] + value + text[place:], encoding="utf-8")
        assert len(complaint(path)) < 600
