"""One test for each thing that can keep a placement from serving a model on a cluster."""

from dataclasses import replace

import pytest

import helixlab as hx
from helixlab.cluster import SINK, SOURCE, load_cluster, random_sparse
from helixlab.errors import ClusterError, PlacementError
from helixlab.model import load_model
from helixlab.placement import NodeLayers, Placement, check_placement, load_placement, placement_names

CLUSTER, MODEL = load_cluster("small10"), load_model("llama-1-30b")
CHAIN = tuple(NodeLayers(n, 6 * n, 6 * n + 6) for n in range(10))
LINKS = ((SOURCE, 0), *((n, n + 1) for n in range(9)), (9, SINK))
GOOD = Placement("mine", "small10", "llama-1-30b", "by hand", CHAIN, LINKS)


def refused(placement, cluster=CLUSTER, model=MODEL):
    with pytest.raises(PlacementError) as caught:
        check_placement(placement, cluster, model)
    return str(caught.value)


def changed(node, first, end):
    """The good placement with other layers on one node."""
    return replace(GOOD, layers=tuple(NodeLayers(node, first, end) if h.node == node else h for h in CHAIN))


def test_good():
    check_placement(GOOD, CLUSTER, MODEL)


@pytest.mark.parametrize("name", placement_names())
def test_bundled(name):
    placement = load_placement(name)
    check_placement(placement, load_cluster(name.split("/")[0]), load_model(placement.model))


def test_another_model():
    message = refused(GOOD, model=load_model("llama-2-70b"))
    assert message == "placement 'mine' is for model 'llama-1-30b', not 'llama-2-70b'; load that"


def test_another_cluster():
    message = refused(GOOD, cluster=load_cluster("single24"))
    assert "placement 'mine' is for cluster 'small10', not 'single24'; load that cluster" in message
    assert refused(load_placement("geo24/llama-2-70b/separate-a100"), load_cluster("single24")).endswith(
        "load cluster 'geo24-a100', or the whole it is named after"
    )


def test_no_layers_at_all():
    assert "gives no layers to any node" in refused(replace(GOOD, layers=(), links=()))


@pytest.mark.parametrize("node", [10, -1, 10**9])
def test_unknown_node(node):
    message = refused(replace(GOOD, layers=(*CHAIN, NodeLayers(node, 0, 1))))
    assert f"uses node {node}; cluster 'small10' has nodes 0 to 9" in message


def test_layers_that_the_model_has_not():
    assert refused(changed(9, 54, 61)) == "node 9 holds layers up to 61, llama-1-30b has 60; end there"


def test_more_than_was_measured():
    message = refused(changed(0, 0, 8))
    assert message.startswith("node 0 (T4) holds 8 layers of llama-1-30b, at most 7 are measured; hold fewer")


def test_no_room_for_a_token():
    message = refused(replace(GOOD, kv_capacity_token_layers={3: 5}))
    assert message.startswith(
        "node 3 has a KV capacity of 5 token-layers for 6 layers; it cannot hold one token"
    )
    check_placement(replace(GOOD, kv_capacity_token_layers={3: 6}), CLUSTER, MODEL)


def test_missing_layers():
    layers = tuple(held for held in CHAIN if held.node not in (2, 5, 6))
    links = tuple(link for link in LINKS if not set(link) & {2, 5, 6})
    message = refused(replace(GOOD, layers=layers, links=links))
    assert message == "placement 'mine' misses layers 12-17, 30-41 of llama-1-30b; give them to a node"
    assert "misses layers 0 of" in refused(changed(0, 1, 6))


def test_a_link_that_the_cluster_has_not():
    sparse = random_sparse({"L4": 4, "T4": 6}, degree=3, name="small10")
    with pytest.raises(ClusterError, match=r"cluster 'small10' has no link .* -> "):
        check_placement(GOOD, sparse, MODEL)
    with pytest.raises(ClusterError, match="no link 0 -> 77"):
        check_placement(replace(GOOD, links=(*LINKS, (0, 77))), CLUSTER, MODEL)
    with pytest.raises(ClusterError, match="no link 'sink' -> 'source'"):
        check_placement(replace(GOOD, links=(*LINKS, (SINK, SOURCE))), CLUSTER, MODEL)


@pytest.mark.parametrize("link", [(0, 18), (3, 0), (SOURCE, 0), (0, SINK)])
def test_a_link_to_a_node_without_layers(link):
    whole = load_placement("single24/llama-1-30b/swarm")  # nodes 4 and 21 hold what node 0 holds
    layers = tuple(held for held in whole.layers if held.node != 0)
    links = tuple(pair for pair in whole.links if 0 not in pair)
    message = refused(replace(whole, layers=layers, links=(*links, link)), load_cluster("single24"))
    assert message == f"link {link[0]} -> {link[1]} uses node 0, which holds no layers; drop the link"


@pytest.mark.parametrize(
    ("link", "layer"),
    [((0, 2), 6), ((1, 0), 12), ((SOURCE, 1), 0), ((0, SINK), 6), ((9, 0), 60), ((3, 2), 24)],
)
def test_a_link_that_leads_nowhere(link, layer):
    message = refused(replace(GOOD, links=(*LINKS, link)))
    assert message.startswith(
        f"link {link[0]} -> {link[1]} leads nowhere: layer {layer} is next after {link[0]}"
    )


def test_a_link_into_the_middle_of_a_node():
    partial = replace(changed(4, 23, 30), links=LINKS)
    check_placement(partial, CLUSTER, MODEL)
    message = refused(replace(partial, links=((SOURCE, 4), *LINKS)))
    assert "link source -> 4 leads nowhere" in message


@pytest.mark.parametrize("lost", LINKS)
def test_no_path(lost):
    message = refused(replace(GOOD, links=tuple(link for link in LINKS if link != lost)))
    assert message.startswith("placement 'mine' has no path from source to sink over its links")


def test_a_placement_on_the_same_nodes_under_another_name():
    other = replace(load_cluster("small10"), name="copy")
    assert "dataclasses.replace(placement, cluster=...)" in refused(GOOD, cluster=other)
    check_placement(replace(GOOD, cluster="copy"), other, MODEL)


class TestMemory:
    """GPU memory holds the weights and the KV cache of a node."""

    MACHINES = CLUSTER.machines

    @classmethod
    def with_memory(cls, gigabytes, name="T4"):
        machines = [replace(m, vram_bytes=gigabytes * 1e9) if m.name == name else m for m in cls.MACHINES]
        return replace(CLUSTER, machines=machines)

    def test_the_cache_of_the_profile(self):
        message = refused(GOOD, cluster=self.with_memory(8))
        assert message.startswith(
            "node 0 (T4) with 6 layers of llama-1-30b takes 6 GB for weights and 6.068 GB for the KV cache"
        )
        assert "more than its GPU memory of 8 GB; the KV cache is that of the profile," in message
        assert "kv_blocks" in message
        assert "\n" not in message

    def test_the_weights(self):
        message = refused(GOOD, cluster=self.with_memory(5))
        assert "its GPU memory of 5 GB; the KV cache is that of the profile, which is for 16 GB" in message
        assert "; give it fewer layers, and the model a profile with the kv_blocks of this memory" in message
        stated = refused(replace(GOOD, kv_capacity_token_layers={0: 99}), cluster=self.with_memory(5))
        assert stated.endswith("its GPU memory of 5 GB; give it fewer layers, or correct its vram_bytes")

    def test_a_profile_of_ones_own(self):
        profile = replace(MODEL.profile("T4"), kv_blocks=tuple(9 * n for n in MODEL.profile("T4").kv_blocks))
        message = refused(GOOD, model=MODEL.with_profile(profile))
        assert "is that of the profile, which is for another memory size" in message

    def test_a_stated_cache(self):
        room = int((16e9 - 6e9) / MODEL.kv_bytes_per_token_layer)
        check_placement(replace(GOOD, kv_capacity_token_layers={0: room}), CLUSTER, MODEL)
        message = refused(replace(GOOD, kv_capacity_token_layers={0: room + 1}))
        assert "more than its GPU memory of 16 GB; give it fewer layers, or state a smaller kv_cap" in message

    def test_an_unstated_size_of_the_cache(self):
        model = replace(MODEL, kv_bytes_per_token_layer=None)
        check_placement(GOOD, CLUSTER, model)  # two activations are right for LLaMA-1
        large = load_model("llama-2-70b")
        placement = load_placement("single24/llama-2-70b/helix")
        with pytest.raises(PlacementError, match="grouped-query attention also the model's kv_bytes_per"):
            check_placement(
                placement, load_cluster("single24"), replace(large, kv_bytes_per_token_layer=None)
            )

    def test_more_memory_is_not_used(self):
        with pytest.warns(UserWarning, match="has 32 GB of GPU memory, but the KV cache .* is for 16 GB"):
            check_placement(GOOD, self.with_memory(32), MODEL)
        blocks = tuple(2 * n for n in MODEL.profile("T4").kv_blocks)
        larger = replace(MODEL.profile("T4"), kv_blocks=blocks)
        check_placement(GOOD, self.with_memory(32), MODEL.with_profile(larger))

    @pytest.mark.parametrize(
        "use",
        [
            hx.max_flow,
            lambda *system: hx.simulate(*system, workload=hx.offline(warmup_s=0, duration_s=1)),
            lambda *system: hx.estimate(*system, workload=hx.offline(warmup_s=0, duration_s=1)),
            hx.predict,
            lambda *system: hx.predict(*system, flow=hx.max_flow(CLUSTER, *system[1:])),
            lambda *system: hx.rate_sweep(
                *system, rates_tokens_per_s=[5], objective=hx.Objective(1, 1), duration_s=20, warmup_s=0
            )["error"].map(raised),
            *(
                lambda *system, method=method: hx.plan(*system[:2], method=method, time_limit_s=1)
                for method in ("helix", "homogeneous", "paper-milp", "petals", "separate", "swarm")
            ),
        ],
    )
    def test_wherever_the_two_meet(self, use):
        with pytest.raises(PlacementError, match=r"(node 0 \(T4\)|type T4) with \d layers? of .* 8 GB;"):
            use(self.with_memory(8), MODEL, GOOD)


def raised(error):
    """Raise what the table of a sweep says went wrong."""
    raise PlacementError(error)
