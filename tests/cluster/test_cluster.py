"""Clusters made by hand: their invariants, look-ups, tables and graph."""

import pickle
from dataclasses import FrozenInstanceError, replace

import networkx as nx
import numpy as np
import pytest

from helixlab.cluster import SINK, SOURCE, Cluster, Coordinator, Link, Machine, Node
from helixlab.errors import ClusterError

HUGE = pytest.param(10**5000, id="huge")  # Python itself refuses to print it
MACHINE = Machine("H100", 80e9, 50e9, 40e9, 2e9)


def trio(**changes) -> Cluster:
    """Two H100 and a B200 in a row, there and back, with other figures on every link."""
    ends = [(SOURCE, 0), (SOURCE, 1), (2, SINK), (0, 1), (1, 0), (1, 2), (2, 1)]
    parts = {
        "name": "trio",
        "machines": [MACHINE, Machine("B200", 180e9, 50e9, 50e9, 4e9), Machine("spare", 1, 1, 1, 1)],
        "nodes": [Node(0, "H100", "west"), Node(1, "B200", "east"), Node(2, "H100", "west")],
        "links": [Link(*pair, 1e9 + place, 1e-3 * place) for place, pair in enumerate(ends)],
        "coordinator": Coordinator(10e9, 20e9),
    }
    return Cluster(**(parts | changes))


def with_link(sender, receiver, bandwidth=1e9, latency=0.0) -> list[Link]:
    return [*trio().links, Link(sender, receiver, bandwidth, latency)]


class TestLookUps:
    def test_sequences_become_tuples(self):
        cluster = trio()
        assert isinstance(cluster.machines, tuple)
        assert isinstance(cluster.nodes, tuple)
        assert isinstance(cluster.links, tuple)
        assert trio(links=iter(cluster.links)) == cluster

    def test_equal_clusters_have_equal_hashes(self):
        minus, plus = (trio(links=with_link(0, 2, latency=zero)) for zero in (-0.0, 0.0))
        assert minus == plus
        assert minus.content_hash == plus.content_hash

    def test_machine_of(self):
        cluster = trio()
        assert cluster.machine_of(0) is MACHINE
        assert cluster.machine_of(np.int64(1)).name == "B200"

    @pytest.mark.parametrize("index", [-1, 3, 1.0, "1", SOURCE, None, HUGE])
    def test_machine_of_no_node(self, index):
        with pytest.raises(ClusterError, match=r"has no node .*ask for 0 to 2"):
            trio().machine_of(index)

    def test_link(self):
        cluster = trio()
        assert cluster.link(SOURCE, 1) == Link(SOURCE, 1, 1e9 + 1, 1e-3)
        assert cluster.link(2, SINK).bandwidth_bytes_per_s == 1e9 + 2
        assert cluster.link(1, 2) != cluster.link(2, 1)
        for link in cluster.links:
            assert cluster.link(link.sender, link.receiver) is link

    @pytest.mark.parametrize("ends", [(0, 2), (SOURCE, 2), (0, SINK), (SINK, 0), (7, 8)])
    def test_no_such_link(self, ends):
        with pytest.raises(ClusterError, match=r"'trio' has no link .* links_table"):
            trio().link(*ends)

    def test_counts_in_the_order_of_machines_without_unused_ones(self):
        assert list(trio().machine_counts().items()) == [("H100", 2), ("B200", 1)]

    def test_regions_in_the_order_of_nodes(self):
        assert trio().regions == ("west", "east")
        assert trio(nodes=[Node(i, "H100") for i in range(3)]).regions == ("",)

    def test_repr_fits_a_line(self):
        assert repr(trio()) == "Cluster('trio': 3 nodes (2 H100, 1 B200), 7 links, 2 regions)"
        alone = trio(nodes=[Node(0, "H100")], links=[Link(SOURCE, 0, 1.0, 0), Link(0, SINK, 1.0, 0)])
        assert repr(alone) == "Cluster('trio': 1 node (1 H100), 2 links)"


class TestValue:
    def test_never_changes(self):
        with pytest.raises(FrozenInstanceError):
            trio().name = "other"
        with pytest.raises(FrozenInstanceError):
            MACHINE.vram_bytes = 1.0

    def test_equality_and_hash_by_content(self):
        assert trio() == trio()
        assert hash(trio()) == hash(trio())
        assert trio() != trio(name="quartet")

    def test_pickle(self):
        cluster = trio()
        cluster.link(0, 1)
        assert pickle.loads(pickle.dumps(cluster)) == cluster  # noqa: S301  # written one line above

    def test_replace_checks_again_and_forgets_look_ups(self):
        cluster = trio()
        assert cluster.link(0, 1).latency_s == pytest.approx(3e-3)
        slower = replace(cluster, links=[replace(link, latency_s=1.0) for link in cluster.links])
        assert slower.link(0, 1).latency_s == 1.0
        with pytest.raises(ClusterError):
            replace(cluster, nodes=())

    def test_links_keep_their_order(self):
        links = trio().links
        assert trio(links=links[::-1]).links == links[::-1]


class TestInvariants:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"name": ""}, "name of the cluster is ''; give it a printable"),
            ({"name": None}, "name of the cluster is None"),
            ({"name": "a\x1b[2J"}, "printable"),
            ({"nodes": []}, "0 nodes; give it at least one"),
            ({"nodes": None}, "nodes is None; give a sequence of Node"),
            ({"nodes": "ab"}, "nodes holds 'a'; give Node objects"),
            ({"nodes": [{"index": 0}]}, "nodes holds .*; give Node objects only"),
            ({"links": [(SOURCE, 0, 1.0, 0.0)]}, "links holds .*; give Link objects only"),
            ({"machines": 7}, "machines is 7; give a sequence of Machine"),
            ({"machines": ["H100"]}, "machines holds 'H100'; give Machine objects"),
            ({"coordinator": None}, "coordinator holds None; give Coordinator objects"),
        ],
    )
    def test_kinds_and_names(self, changes, message):
        with pytest.raises(ClusterError, match=message):
            trio(**changes)

    @pytest.mark.parametrize("index", [1, -1, 0.0, False, "0", None])
    def test_first_node_is_0(self, index):
        with pytest.raises(
            ClusterError, match=r"position 0 has index .*number the nodes 0 to 0 in their order"
        ):
            trio(nodes=[Node(index, "H100")], links=[])

    def test_nodes_out_of_order(self):
        with pytest.raises(ClusterError, match="position 1 has index 2; number the nodes 0 to 2"):
            trio(nodes=[Node(0, "H100"), Node(2, "H100"), Node(1, "H100")])

    @pytest.mark.parametrize("machine", ["A100", "h100", "", None, ["H100"]])
    def test_unknown_machine_type(self, machine):
        with pytest.raises(ClusterError, match=r"node 1 is of machine type .*use one of: H100, B200, spare"):
            trio(nodes=[Node(0, "H100"), Node(1, machine), Node(2, "H100")])

    def test_no_machine_types(self):
        with pytest.raises(ClusterError, match="none yet"):
            trio(machines=[])

    @pytest.mark.parametrize("region", [None, 3, "a\nb"])
    def test_region_is_text(self, region):
        with pytest.raises(ClusterError, match=r"node 0 is in region .*give a printable name"):
            trio(nodes=[Node(0, "H100", region), Node(1, "H100"), Node(2, "H100")])

    def test_machine_names_differ(self):
        with pytest.raises(ClusterError, match="two machine types are called 'H100'; rename or drop"):
            trio(machines=[MACHINE, *trio().machines])

    @pytest.mark.parametrize("name", ["", None, 3, "\n"])
    def test_machine_has_a_name(self, name):
        with pytest.raises(ClusterError, match="name of a machine type is"):
            trio(machines=[replace(MACHINE, name=name), *trio().machines])

    @pytest.mark.parametrize(
        "amount", ["vram_bytes", "nic_in_bytes_per_s", "nic_out_bytes_per_s", "disk_bytes_per_s"]
    )
    @pytest.mark.parametrize(
        "value", [0, -1.0, float("nan"), float("inf"), True, "80", None, 1e19, 10**400, HUGE]
    )
    def test_machine_amounts(self, amount, value):
        with pytest.raises(
            ClusterError, match=rf"{amount} of machine type 'H100' is .*above 0 and at most 1e\+18"
        ):
            trio(machines=[replace(MACHINE, **{amount: value}), *trio().machines[1:]])

    @pytest.mark.parametrize("amount", ["nic_in_bytes_per_s", "nic_out_bytes_per_s"])
    @pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), False, "1"])
    def test_coordinator_amounts(self, amount, value):
        with pytest.raises(ClusterError, match=rf"{amount} of the coordinator is .*above 0"):
            trio(coordinator=replace(trio().coordinator, **{amount: value}))

    @pytest.mark.parametrize("value", [0, -1.0, float("nan"), float("inf"), True, "1e9", None, HUGE])
    def test_bandwidth(self, value):
        with pytest.raises(ClusterError, match=r"bandwidth_bytes_per_s of link 0 -> 2 is .*above 0"):
            trio(links=with_link(0, 2, bandwidth=value))

    @pytest.mark.parametrize("value", [-1e-9, float("nan"), float("inf"), False, "0", None, HUGE])
    def test_latency(self, value):
        with pytest.raises(ClusterError, match=r"latency_s of link 0 -> 2 is .*0 or more"):
            trio(links=with_link(0, 2, latency=value))

    def test_figures_may_be_whole_numbers_or_numpy_floats(self):
        back = Link(2, 0, np.float64(1e9), np.float64(0.1))
        links = [*with_link(0, 2, bandwidth=10**9, latency=0), back]
        assert len(trio(links=links).links) == 9

    @pytest.mark.parametrize(
        "ends",
        [
            (0, 3), (-1, 0), (0.0, 2), (True, 2), (0, None), ("0", 2), (np.float64(0), 2),
            (SINK, 0), (0, SOURCE), (SOURCE, SINK), (SOURCE, SOURCE), ([0], 2),
            pytest.param((10**5000, 0), id="huge"),
        ],
    )  # fmt: skip
    def test_link_ends(self, ends):
        with pytest.raises(ClusterError, match=r"has no such ends; join nodes 0 to 2"):
            trio(links=with_link(*ends))

    def test_no_link_to_itself(self):
        with pytest.raises(ClusterError, match="link 1 -> 1 joins a node to itself; leave it out"):
            trio(links=with_link(1, 1))

    @pytest.mark.parametrize("ends", [(0, 1), (SOURCE, 0), (2, SINK)])
    def test_links_differ(self, ends):
        with pytest.raises(ClusterError, match=f"link {ends[0]} -> {ends[1]} is there twice"):
            trio(links=with_link(*ends))

    def test_coordinator_is_joined(self):
        links = trio().links
        with pytest.raises(ClusterError, match=r"no link leaves the coordinator; add Link\('source', node"):
            trio(links=[link for link in links if link.sender != SOURCE])
        with pytest.raises(ClusterError, match=r"no link returns to the coordinator; add Link\(node, 'sink'"):
            trio(links=[link for link in links if link.receiver != SINK])

    def test_messages_stay_on_a_line(self):
        with pytest.raises(ClusterError) as caught:
            trio(nodes=[Node(0, "x" * 10_000)])
        assert len(str(caught.value)) < 300


class TestTables:
    def test_nodes(self):
        table = trio().nodes_table()
        assert list(table["node"]) == [0, 1, 2]
        assert list(table["machine"]) == ["H100", "B200", "H100"]
        assert list(table["region"]) == ["west", "east", "west"]
        assert list(table["vram_bytes"]) == [80e9, 180e9, 80e9]
        assert list(table["nic_out_bytes_per_s"]) == [40e9, 50e9, 40e9]

    def test_links(self):
        cluster = trio()
        table = cluster.links_table()
        assert [Link(*row) for row in table.itertuples(index=False, name=None)] == list(cluster.links)
        assert list(table.columns) == ["sender", "receiver", "bandwidth_bytes_per_s", "latency_s"]
        assert table.dtypes["bandwidth_bytes_per_s"] == np.float64
        assert table.loc[table["sender"] == 1, "receiver"].tolist() == [0, 2]


class TestGraph:
    def test_says_all_that_the_cluster_does(self):
        cluster = trio()
        graph = cluster.to_networkx()
        assert isinstance(graph, nx.DiGraph)
        assert list(graph) == [SOURCE, SINK, 0, 1, 2]
        assert graph.nodes[1] == {"machine": "B200", "region": "east"}
        assert graph.nodes[SOURCE]["machine"] == "coordinator"
        for link in cluster.links:
            assert graph.edges[link.sender, link.receiver] == {
                "bandwidth_bytes_per_s": link.bandwidth_bytes_per_s,
                "latency_s": link.latency_s,
            }
        assert graph.number_of_edges() == len(cluster.links)

    def test_works_with_networkx(self):
        value, _ = nx.maximum_flow(trio().to_networkx(), SOURCE, SINK, capacity="bandwidth_bytes_per_s")
        assert value == 1e9 + 2
