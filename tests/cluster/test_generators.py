"""Generated clusters: what was asked for, reproducibly, and joined up."""

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, strategies as st

from helixlab.cluster import (
    SINK,
    SOURCE,
    Coordinator,
    Machine,
    bundled_coordinator,
    bundled_machines,
    geo_distributed,
    random_sparse,
    single_region,
)
from helixlab.errors import ClusterError

COUNTS = st.dictionaries(
    st.sampled_from([machine.name for machine in bundled_machines()]), st.integers(0, 6), max_size=4
).filter(lambda counts: sum(counts.values()) > 0)
SEEDS = st.integers(0, 2**32)


def assert_canonical_order(cluster):
    """Source links by node, sink links by node, then i -> j, j -> i for i < j, alike both ways."""
    ends = [(link.sender, link.receiver) for link in cluster.links]
    start = sum(sender == SOURCE for sender, _ in ends)
    stop = start + sum(receiver == SINK for _, receiver in ends)
    assert [sender for sender, _ in ends[:start]] == [SOURCE] * start
    assert [receiver for _, receiver in ends[start:stop]] == [SINK] * (stop - start)
    assert ends[:start] == sorted(ends[:start])
    assert ends[start:stop] == sorted(ends[start:stop])
    there, back = ends[stop::2], ends[stop + 1 :: 2]
    assert there == sorted(there)
    assert back == [(j, i) for i, j in there]
    assert all(i < j for i, j in there)
    for i, j in there:
        one, other = cluster.link(i, j), cluster.link(j, i)
        assert (one.bandwidth_bytes_per_s, one.latency_s) == (other.bandwidth_bytes_per_s, other.latency_s)


def assert_all_reached(cluster):
    graph = cluster.to_networkx()
    nodes = set(range(len(cluster.nodes)))
    assert nodes <= nx.descendants(graph, SOURCE)
    assert nodes <= nx.ancestors(graph, SINK)


class TestSingleRegion:
    @given(counts=COUNTS, seed=SEEDS, shuffle=st.booleans())
    def test_full_mesh_of_what_was_asked_for(self, counts, seed, shuffle):
        cluster = single_region(counts, shuffle=shuffle, rng=seed)
        size = sum(counts.values())
        assert {name: count for name, count in counts.items() if count} == cluster.machine_counts()
        assert {machine.name for machine in cluster.machines} == set(cluster.machine_counts())
        assert len(cluster.links) == 2 * size + size * (size - 1)
        assert_canonical_order(cluster)
        assert_all_reached(cluster)

    @given(
        mean=st.floats(1e3, 1e12),
        share=st.floats(0, 0.99),
        latency=st.floats(0, 1),
        latency_share=st.floats(0, 1),
        seed=SEEDS,
    )
    def test_figures_stay_inside_the_spread(self, mean, share, latency, latency_share, seed):
        cluster = single_region(
            {"T4": 4},
            bandwidth_bytes_per_s=mean,
            bandwidth_spread_bytes_per_s=share * mean,
            latency_s=latency,
            latency_spread_s=latency_share * latency,
            rng=seed,
        )
        table = cluster.links_table()
        assert (
            np.abs(table["bandwidth_bytes_per_s"] - mean) <= share * mean * (1 + 1e-9) + 1e-9 * mean
        ).all()
        assert (np.abs(table["latency_s"] - latency) <= latency_share * latency * (1 + 1e-9) + 1e-15).all()

    def test_without_spread_figures_are_exact(self):
        table = single_region({"T4": 3}, bandwidth_bytes_per_s=1.1e9, latency_s=1e-3).links_table()
        assert set(table["bandwidth_bytes_per_s"]) == {1.1e9}
        assert set(table["latency_s"]) == {1e-3}

    def test_spread_differs_between_links(self):
        table = single_region({"T4": 9}, latency_spread_s=1e-3).links_table()
        assert table["latency_s"].nunique() == 9 + 9 + 36

    def test_order_of_nodes(self):
        plain = single_region({"T4": 5, "A100": 5})
        assert [node.machine for node in plain.nodes] == ["T4"] * 5 + ["A100"] * 5
        mixed = single_region({"T4": 5, "A100": 5}, shuffle=True)
        assert [node.machine for node in mixed.nodes] != [node.machine for node in plain.nodes]
        assert mixed.machine_counts() == plain.machine_counts()

    def test_reproducible(self):
        def make(rng):
            return single_region({"T4": 5, "L4": 3}, latency_spread_s=5e-4, shuffle=True, rng=rng)

        assert make(3) == make(3) == make(np.random.default_rng(3))
        assert make(3) != make(4)
        assert single_region({"T4": 2}) == single_region({"T4": 2})

    def test_own_machine_and_coordinator(self):
        h100 = Machine("H100", 80e9, 50e9, 50e9, 2e9)
        cluster = single_region(
            {"H100": 2, "T4": np.int64(1)},
            machines=[*bundled_machines(), h100],
            coordinator=Coordinator(1e9, 2e9),
        )
        assert cluster.machine_of(0) == h100
        assert cluster.machine_of(2) in bundled_machines()
        assert cluster.coordinator.nic_out_bytes_per_s == 2e9
        assert single_region({"T4": 1}).coordinator == bundled_coordinator()

    @pytest.mark.parametrize(
        ("counts", "options", "message"),
        [
            ({}, {}, "0 nodes; ask for at least one"),
            ({"T4": 0}, {}, "0 nodes"),
            (["T4"], {}, "give a mapping"),
            (None, {}, "give a mapping"),
            ({"H100": 1}, {}, r"asks for machine type 'H100'; give it as a Machine .*A100, V100"),
            ({1: 1}, {}, "machine type 1"),
            ({"T4": -1}, {}, r"counts\['T4'\] is -1; give a whole number"),
            ({"T4": 1.5}, {}, "whole number"),
            ({"T4": True}, {}, "whole number"),
            ({"T4": 10**12}, {}, "whole number"),
            ({"T4": 10_000}, {}, "more than 10000000; ask for fewer nodes"),
            ({"T4": 1}, {"bandwidth_bytes_per_s": 0}, "bandwidth_bytes_per_s is 0; give a number, above 0"),
            ({"T4": 1}, {"bandwidth_bytes_per_s": float("nan")}, "bandwidth_bytes_per_s is nan"),
            ({"T4": 1}, {"bandwidth_spread_bytes_per_s": -1}, "bandwidth_spread_bytes_per_s is -1"),
            ({"T4": 1}, {"bandwidth_spread_bytes_per_s": 1.25e9}, "nothing falls to 0"),
            ({"T4": 1}, {"latency_s": -1}, "latency_s is -1"),
            ({"T4": 1}, {"latency_spread_s": 2e-3}, r"latency_spread_s is 0\.002 .* nothing falls below 0"),
            ({"T4": 1}, {"latency_s": "1ms"}, "latency_s is '1ms'"),
            ({"T4": 1}, {"rng": "zero"}, "rng is 'zero'; give a seed"),
            ({"T4": 1}, {"rng": -1}, "rng is -1"),
            ({"T4": 1}, {"name": ""}, "name of the cluster"),
            ({"T4": 1}, {"machines": ["T4"]}, "give Machine objects only"),
            ({"T4": 1}, {"machines": [*bundled_machines(), *bundled_machines()]}, "are called 'A100'"),
            ({"T4": 1}, {"coordinator": 3}, "give Coordinator objects"),
        ],
    )
    def test_wrong_arguments(self, counts, options, message):
        with pytest.raises(ClusterError, match=message):
            single_region(counts, **options)


class TestGeoDistributed:
    @given(regions=st.lists(COUNTS, min_size=1, max_size=4), seed=SEEDS)
    def test_fast_inside_slow_between(self, regions, seed):
        cluster = geo_distributed(
            regions,
            in_region_bandwidth_spread_bytes_per_s=125e6,
            cross_region_bandwidth_spread_bytes_per_s=2.5e6,
            cross_region_latency_spread_s=10e-3,
            rng=seed,
        )
        for link in cluster.links:
            if link.sender == SOURCE or link.receiver == SINK:
                far = True
            else:
                far = cluster.nodes[link.sender].region != cluster.nodes[link.receiver].region
            mean, spread = (12.5e6, 2.5e6) if far else (1.25e9, 125e6)
            assert abs(link.bandwidth_bytes_per_s - mean) <= spread * (1 + 1e-9)
            assert abs(link.latency_s - 50e-3) <= 10e-3 * (1 + 1e-9) if far else link.latency_s == 1e-3
        assert cluster.regions == tuple(f"region-{place}" for place in range(len(regions)))
        assert_canonical_order(cluster)
        assert_all_reached(cluster)

    def test_names_of_regions(self):
        cluster = geo_distributed({"us": {"A100": 2}, "eu": {"T4": 3, "L4": 1}})
        assert [node.region for node in cluster.nodes] == ["us"] * 2 + ["eu"] * 4
        assert [node.machine for node in cluster.nodes] == ["A100"] * 2 + ["T4"] * 3 + ["L4"]

    def test_coordinator_in_a_region(self):
        cluster = geo_distributed({"us": {"A100": 1}, "eu": {"T4": 1}}, coordinator_region="eu")
        assert cluster.link(SOURCE, 1).latency_s == cluster.link(1, SINK).latency_s == 1e-3
        assert cluster.link(SOURCE, 0).latency_s == cluster.link(0, SINK).latency_s == 50e-3

    def test_one_region_with_the_coordinator_is_a_single_region(self):
        counts = {"A100": 2, "T4": 4}
        geo = geo_distributed([counts], coordinator_region="region-0", in_region_latency_spread_s=5e-4, rng=5)
        single = single_region(counts, latency_spread_s=5e-4, rng=5)
        assert geo.links == single.links

    def test_reproducible(self):
        def make(rng):
            return geo_distributed([{"T4": 2}, {"L4": 2}], cross_region_latency_spread_s=1e-2, rng=rng)

        assert make(1) == make(1) != make(2)

    @pytest.mark.parametrize(
        ("regions", "options", "message"),
        [
            ([], {}, "regions is .*; give one mapping"),
            ("us", {}, "regions is 'us'"),
            (3, {}, "regions is 3"),
            ([{"T4": 1}, {}], {}, "region 'region-1' is {}, which is 0 nodes"),
            ([{"T4": 1}, ["T4"]], {}, "region 'region-1' is .*give a mapping"),
            ({"us": {"H100": 1}}, {}, "region 'us' asks for machine type 'H100'"),
            ([{"T4": 1}], {"coordinator_region": "mars"}, "'mars'; use None or one of: region-0"),
            (
                [{"T4": 1}],
                {"cross_region_bandwidth_bytes_per_s": -1},
                "cross_region_bandwidth_bytes_per_s is -1",
            ),
            ([{"T4": 1}], {"in_region_latency_spread_s": 1}, "in_region_latency_spread_s is 1 around"),
            ({3: {"T4": 1}}, {}, "region 3"),
        ],
    )
    def test_wrong_arguments(self, regions, options, message):
        with pytest.raises(ClusterError, match=message):
            geo_distributed(regions, **options)


class TestRandomSparse:
    @given(counts=COUNTS, data=st.data(), seed=SEEDS, shuffle=st.booleans())
    def test_sparse_yet_joined(self, counts, data, seed, shuffle):
        size = sum(counts.values())
        pairs = data.draw(st.integers(size - 1, size * (size - 1) // 2), "pairs")
        reached = data.draw(st.integers(1, size), "coordinator_degree")
        cluster = random_sparse(
            counts, degree=2 * pairs / size, coordinator_degree=reached, shuffle=shuffle, rng=seed
        )
        assert len(cluster.links) == 2 * reached + 2 * pairs
        assert {name: count for name, count in counts.items() if count} == cluster.machine_counts()
        assert_canonical_order(cluster)
        assert_all_reached(cluster)

    def test_coordinator_has_links_to_all_by_default(self):
        cluster = random_sparse({"T4": 30}, degree=3)
        assert sum(link.sender == SOURCE for link in cluster.links) == 30
        assert sum(link.receiver == SINK for link in cluster.links) == 30
        assert len(cluster.links) == 30 + 30 + 30 * 3

    def test_reproducible(self):
        def make(rng):
            return random_sparse({"T4": 20}, degree=4, coordinator_degree=3, rng=rng)

        assert make(1) == make(1) == make(np.random.default_rng(1))
        assert make(1) != make(2)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"degree": 1.5}, r"degree is 1\.5 for 10 nodes; give 1\.8 \(a tree\) to 9 \(all links\)"),
            ({"degree": 9.5}, "give 1.8"),
            ({"degree": float("nan")}, "degree is nan"),
            ({"degree": "3"}, "degree is '3'"),
            ({"degree": 3, "coordinator_degree": 0}, "coordinator_degree is 0; give 1 to 10"),
            ({"degree": 3, "coordinator_degree": 11}, "give 1 to 10"),
            ({"degree": 3, "coordinator_degree": 2.0}, "give 1 to 10"),
        ],
    )
    def test_wrong_arguments(self, options, message):
        with pytest.raises(ClusterError, match=message):
            random_sparse({"T4": 10}, **options)
