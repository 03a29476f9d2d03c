"""What a user of `simulate` can rely on, whatever the scheduler."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings, strategies as st

import helixlab as hx
from helixlab.errors import (
    FileFormatError,
    PlacementError,
    SchedulingError,
    SimulationError,
    UnknownNameError,
)
from helixlab.placement import usable_links
from helixlab.scheduling import NONE, SCHEDULERS

CHAIN = (
    hx.load_cluster("small10"),
    hx.load_model("llama-1-30b"),
    hx.load_placement("small10/llama-1-30b/helix"),
)
WIDE = (
    hx.load_cluster("single24"),
    hx.load_model("llama-2-70b"),
    hx.load_placement("single24/llama-2-70b/swarm"),
)
TABLES = ("summary", "iterations", "requests", "nodes", "links", "timeline", "node_timeline")
MEASURED = ["wall_s", "peak_rss_mb"]  # of this machine, not of the simulated one

every_scheduler = pytest.mark.parametrize("scheduler", sorted(SCHEDULERS))


def short(seed=0, **changes):
    return hx.offline(**{"warmup_s": 5, "duration_s": 20, "rng": seed, **changes})


def own(input_tokens, output_tokens, arrival_s=None, duration_s=30):
    """An online workload of these requests, all at once or at these times."""
    requests = pd.DataFrame({"input_tokens": input_tokens, "output_tokens": output_tokens})
    requests.insert(0, "arrival_s", 0.0 if arrival_s is None else arrival_s)
    return hx.online(requests=requests, duration_s=duration_s)


def with_kv(placement, tokens):
    """The placement with KV caches of so many tokens in every layer."""
    return replace(placement, kv_capacity_token_layers={h.node: h.count * tokens for h in placement.layers})


def check_accounts(result):
    """Nothing is lost, nothing is counted twice, no cache holds more than it can."""
    row, requests, iterations = result.metrics, result.requests, result.iterations
    ended = requests["outcome"].value_counts()
    assert row["requests_fed"] == len(requests) + row["requests_in_flight"]
    for outcome in ("finished", "dropped", "refused"):
        assert row[f"requests_{outcome}"] == ended.get(outcome, 0)
    assert set(ended.index) <= {"finished", "dropped", "refused"}
    assert requests["request"].is_unique
    assert row["total_tokens"] == iterations["tokens"].sum()
    assert not iterations.duplicated(["request", "iteration"]).any()
    assert (iterations.loc[iterations["iteration"] > 0, "tokens"] == 1).all()
    assert (iterations["latency_s"] > 0).all()

    done = iterations.groupby("request")["iteration"].agg(["size", "max"])
    finished = requests[requests["outcome"] == "finished"].set_index("request")
    assert (done.loc[finished.index, "size"] == finished["output_tokens"] + 1).all()
    assert (done["size"] == done["max"] + 1).all()
    prompts = iterations[iterations["iteration"] == 0].set_index("request")
    known = prompts.index.intersection(finished.index)
    assert (prompts.loc[known, "tokens"] == finished.loc[known, "input_tokens"]).all()
    assert (finished["arrival_s"] < finished["prompt_done_s"]).all()
    assert (finished["prompt_done_s"] < finished["end_s"]).all()

    assert result.nodes["kv_used_fraction"].between(0, 1).all()
    assert result.nodes["busy_fraction"].between(0, 1 + 1e-9).all()
    assert (result.links["busy_fraction"] >= 0).all()
    if len(result.node_timeline):
        assert result.node_timeline["kv_used_fraction"].between(0, 1).all()


def check_all_done(result):
    check_accounts(result)
    assert result.metrics["requests_in_flight"] == 0
    assert (result.nodes["kv_used_token_layers"] == 0).all()


# Accounts


@every_scheduler
@pytest.mark.parametrize("system", [CHAIN, WIDE], ids=["chain", "wide"])
def test_offline(system, scheduler):
    result = hx.simulate(*system, scheduler=scheduler, workload=short())
    check_accounts(result)
    row = result.metrics
    assert row["decode_tokens_per_s"] > 0
    if scheduler != "helix":
        assert row["requests_fed"] - len(result.requests) == row["requests_in_flight"] <= 20


@every_scheduler
@pytest.mark.parametrize("system", [CHAIN, WIDE], ids=["chain", "wide"])
def test_online_ends_when_all_is_served(system, scheduler):
    workload = hx.online(rate_tokens_per_s=300, duration_s=20, rng=3)
    result = hx.simulate(*system, scheduler=scheduler, workload=workload)
    check_all_done(result)
    asked = next(workload.batches())
    assert result.metrics["requests_finished"] == len(asked)
    served = result.requests.sort_values("request")
    np.testing.assert_array_equal(served[["input_tokens", "output_tokens"]], asked[:, 1:])
    np.testing.assert_allclose(served["arrival_s"] - result.metrics["start_s"], asked[:, 0])
    assert result.metrics["total_tokens"] == asked[:, 1:].sum()


def test_each_iteration_starts_when_the_one_before_ends():
    result = hx.simulate(*CHAIN, workload=own([100, 50, 70], [5, 9, 2]))
    for _, own_iterations in result.iterations.groupby("request"):
        ordered = own_iterations.sort_values("iteration")
        np.testing.assert_array_equal(ordered["start_s"].iloc[1:], ordered["end_s"].iloc[:-1])


def test_an_online_run_without_any_request():
    result = hx.simulate(*CHAIN, workload=hx.online(rate_tokens_per_s=1e-6, duration_s=10))
    check_all_done(result)
    assert result.metrics["requests_fed"] == 0
    assert np.isnan(result.metrics["prompt_latency_mean_s"])
    assert result.metrics["decode_tokens_per_s"] == 0
    assert result.to_dict()["prompt_latency_mean_s"] is None


def test_without_iterations_and_samples():
    result = hx.simulate(*CHAIN, workload=short(), keep_iterations=False, sample_step_s=0)
    whole = hx.simulate(*CHAIN, workload=short())
    assert len(result.iterations) == len(result.timeline) == len(result.node_timeline) == 0
    same = ["requests_fed", "requests_in_flight", "total_tokens", "total_tokens_per_s"]
    assert result.metrics[same].tolist() == whole.metrics[same].tolist()


# The same again


@every_scheduler
def test_same_seed_same_result(scheduler):
    first, second = (hx.simulate(*WIDE, scheduler=scheduler, workload=short(seed=5)) for _ in range(2))
    for name in TABLES:
        tables = [getattr(result, name) for result in (first, second)]
        if name == "summary":
            tables = [table.drop(columns=MEASURED) for table in tables]
        pd.testing.assert_frame_equal(*tables, check_exact=True)
    assert first.provenance == second.provenance


@every_scheduler
def test_another_seed_another_result(scheduler):
    first, second = (hx.simulate(*WIDE, scheduler=scheduler, workload=short(seed=seed)) for seed in (1, 2))
    assert not first.iterations.equals(second.iterations)
    assert first.provenance["workload"]["seed"] != second.provenance["workload"]["seed"]


@pytest.mark.parametrize("scheduler", ["random", "shortest-queue"])
def test_the_seed_draws_for_schedulers_too(scheduler):
    lengths = pd.DataFrame({"input_tokens": [300] * 40, "output_tokens": [20] * 40})
    one, other = (
        hx.simulate(*WIDE, scheduler=scheduler, workload=short(seed=seed, requests=lengths))
        for seed in (1, 2)
    )
    assert not one.iterations.equals(other.iterations)


# Metrics


@every_scheduler
def test_window_metrics_are_those_of_the_iterations(scheduler):
    result = hx.simulate(*CHAIN, scheduler=scheduler, workload=short())
    row = result.metrics
    assert row["window_start_s"] == row["start_s"] + 5
    assert row["window_end_s"] == row["window_start_s"] + 20
    inside = result.iterations["end_s"].between(row["window_start_s"], row["window_end_s"])
    window = result.iterations[inside]
    for phase, rows in (("prompt", window["iteration"] == 0), ("decode", window["iteration"] > 0)):
        ordered = np.sort((window["end_s"] - window["start_s"])[rows])
        assert row[f"{phase}_latency_mean_s"] == pytest.approx(ordered.mean())
        for percent in (5, 25, 50, 75, 95):
            assert row[f"{phase}_latency_p{percent}_s"] == ordered[int(len(ordered) * percent / 100)]
    assert row["decode_tokens_per_s"] == (window["iteration"] > 0).sum() / 20
    assert row["prompts_finished_in_window"] == (window["iteration"] == 0).sum()
    assert row["last_finish_s"] == result.iterations["end_s"].max()
    assert row["total_tokens_per_s"] == pytest.approx(row["total_tokens"] / row["last_finish_s"])
    assert row["max_flow_tokens_per_s"] == hx.max_flow(*CHAIN).value_tokens_per_s


@every_scheduler
def test_timeline_is_that_of_the_iterations(scheduler):
    result = hx.simulate(*CHAIN, scheduler=scheduler, workload=short(), sample_step_s=1.0)
    timeline, iterations = result.timeline, result.iterations
    np.testing.assert_allclose(timeline["time_s"].diff().dropna(), 1)
    assert timeline["time_s"].iloc[0] == result.metrics["start_s"]
    for column, rows in (
        ("prompt_tokens", iterations[iterations["iteration"] == 0]),
        ("decode_tokens", iterations[iterations["iteration"] > 0]),
        ("finished", result.requests[result.requests["outcome"] == "finished"].assign(tokens=1)),
    ):
        # What ends in the very instant of a sample may count on either side of it.
        for side, compare in (("left", np.less_equal), ("right", np.greater_equal)):
            tokens = np.concatenate([[0], rows.sort_values("end_s")["tokens"].cumsum()])
            known = tokens[np.searchsorted(np.sort(rows["end_s"]), timeline["time_s"], side=side)]
            assert compare(known, timeline[column]).all()
    rates = timeline["decode_tokens_per_s"].dropna()
    np.testing.assert_allclose(rates, timeline["decode_tokens"].diff().dropna())
    assert len(result.node_timeline) == len(timeline) * len(CHAIN[0].nodes)


def test_flow_and_links():
    result = hx.simulate(*CHAIN, workload=short())
    flow = hx.max_flow(*CHAIN)
    asked = {
        (row["sender"], row["receiver"]): row["flow_tokens_per_s"] for row in result.links.to_dict("records")
    }
    assert asked == flow.on_link


def test_links_carry_every_token_once():
    result = hx.simulate(*CHAIN, workload=own([200] * 8, [30] * 8, [0.5] * 8, duration_s=100))
    check_all_done(result)
    assert result.metrics["last_finish_s"] < result.metrics["window_end_s"]
    np.testing.assert_allclose(result.links["tokens_per_s"], 8 * (200 + 30) / 100)
    assert (result.nodes["tokens"] == 8 * (200 + 30)).all()


def test_loading_the_layers_comes_first():
    result = hx.simulate(*CHAIN, workload=short())
    slowest = max(
        held.count * CHAIN[1].layer_bytes / CHAIN[0].machine_of(held.node).disk_bytes_per_s
        for held in CHAIN[2].layers
    )
    assert result.metrics["start_s"] == np.ceil(slowest) + 1
    assert result.iterations["start_s"].min() == result.metrics["start_s"]


# Little KV cache


def test_without_free_kv_cache_requests_wait_or_are_dropped():
    system = (*CHAIN[:2], with_kv(CHAIN[2], 8000))
    workload = short(duration_s=120)
    waited, dropped = (hx.simulate(*system, workload=workload, on_full=rule) for rule in ("wait", "drop"))
    for result in (waited, dropped):
        check_accounts(result)
        assert result.metrics["decode_tokens_per_s"] > 0
    assert waited.metrics["requests_queued"] > 0
    assert waited.metrics["requests_dropped"] == 0
    assert dropped.metrics["requests_dropped"] > 0
    assert dropped.metrics["requests_queued"] == 0
    means = [result.metrics["input_tokens_mean_accepted"] for result in (dropped, waited)]
    assert means[0] < means[1], "dropping favours short requests"
    assert (dropped.requests["outcome"] == "dropped").sum() == dropped.metrics["requests_dropped"]


def test_those_who_wait_keep_their_order():
    system = (*CHAIN[:2], with_kv(CHAIN[2], 8000))
    rng = np.random.default_rng(4)
    workload = own(rng.integers(100, 2000, 30), rng.integers(5, 30, 30), np.arange(30) * 0.01)
    result = hx.simulate(*system, workload=workload)
    check_all_done(result)
    assert result.metrics["requests_queued"] > 0
    assert result.metrics["requests_finished"] == 30
    prompts = result.iterations[result.iterations["iteration"] == 0].sort_values("request")
    assert (prompts["start_s"] == result.requests.sort_values("request")["arrival_s"].to_numpy()).all(), (
        "latency counts from arrival"
    )


@pytest.mark.parametrize("scheduler", ["swarm", "random", "shortest-queue"])
@pytest.mark.parametrize("system", [CHAIN, WIDE], ids=["chain", "wide"])
def test_a_tiny_cache_slows_down_but_serves_all(system, scheduler):
    rng = np.random.default_rng(1)
    workload = own(rng.integers(20, 400, 80), rng.integers(1, 120, 80), np.sort(rng.uniform(0, 20, 80)))
    tight = hx.simulate(*system[:2], with_kv(system[2], 550), scheduler=scheduler, workload=workload)
    ample = hx.simulate(*system, scheduler=scheduler, workload=workload)
    for result in (tight, ample):
        check_all_done(result)
        assert result.metrics["requests_finished"] == 80
    assert tight.metrics["prompts_waited_for_kv"] > 0
    assert ample.metrics["prompts_waited_for_kv"] == ample.metrics["requests_preempted"] == 0
    assert tight.metrics["last_finish_s"] > ample.metrics["last_finish_s"]
    assert tight.node_timeline["kv_used_fraction"].max() > 0.5


@pytest.mark.parametrize("scheduler", ["swarm", "random", "shortest-queue"])
def test_decodes_that_find_no_free_kv_cache_preempt_the_youngest(scheduler):
    # All prompts fit together, what they generate does not.
    result = hx.simulate(
        *CHAIN[:2],
        with_kv(CHAIN[2], 500),
        scheduler=scheduler,
        workload=own([60] * 8, [150] * 8, np.arange(8) / 10),
    )
    check_all_done(result)
    assert result.metrics["requests_finished"] == 8
    assert result.metrics["requests_preempted"] > 0
    assert result.requests["request"].iloc[0] == 0, "the oldest gets on"


@every_scheduler
def test_a_request_that_can_never_fit_is_refused(scheduler):
    system = (*CHAIN[:2], with_kv(CHAIN[2], 8000))
    result = hx.simulate(
        *system, scheduler=scheduler, workload=own([100, 9000, 100], [10, 10, 10], [0, 1, 2])
    )
    check_all_done(result)
    outcomes = result.requests.set_index("request")["outcome"]
    assert outcomes.to_dict() == {0: "finished", 1: "refused", 2: "finished"}
    assert result.metrics["requests_refused"] == 1


@every_scheduler
def test_a_prompt_larger_than_any_batch_is_refused(scheduler):
    held = CHAIN[2].layers_of(7)
    limit = CHAIN[1].profile("T4").batch_limits(held.count).prompt_tokens
    result = hx.simulate(
        *CHAIN, scheduler=scheduler, workload=own([100, limit + 1, 100], [10, 1, 10], [0, 1, 2])
    )
    check_all_done(result)
    outcomes = result.requests.set_index("request")["outcome"]
    assert outcomes.to_dict() == {0: "finished", 1: "refused", 2: "finished"}


@every_scheduler
def test_only_requests_that_can_never_fit(scheduler):
    requests = pd.DataFrame({"input_tokens": [9000] * 30, "output_tokens": [5] * 30})
    system = (*CHAIN[:2], with_kv(CHAIN[2], 8000))
    result = hx.simulate(*system, scheduler=scheduler, workload=short(requests=requests))
    check_accounts(result)
    assert result.metrics["requests_refused"] == len(result.requests) > 0


@every_scheduler
def test_requests_of_one_token(scheduler):
    result = hx.simulate(*WIDE, scheduler=scheduler, workload=own([1] * 50, [1] * 50))
    check_all_done(result)
    assert result.metrics["total_tokens"] == 100


# Schedulers and execution policies of one's own


def first_link(state, sender, request):
    return state.nodes[sender].first_link


def test_a_scheduler_of_ones_own():
    result = hx.simulate(*WIDE, scheduler=hx.Scheduler("first", first_link), workload=own([50] * 5, [3] * 5))
    check_all_done(result)
    assert result.metrics["scheduler"] == "first"
    used = result.links[result.links["tokens_per_s"] > 0]
    assert used["sender"].is_unique
    assert len(used) == len(hx.Placement.to_frame(WIDE[2], WIDE[0])["first_layer"].unique()) + 1


def test_a_scheduler_of_ones_own_that_plans_ahead_and_keeps_books():
    def lightest(state, sender, request):
        node = state.nodes[sender]
        best = node.first_link
        for row in range(node.first_link, node.first_link + node.links):
            if state.links[row].load < state.links[best].load:
                best = row
        return best

    def book(state, request):
        if state.requests[request].iteration == 0:
            for hop in range(state.requests[request].hops):
                state.links[state.pipelines[request, hop]].load += state.parameters[0]

    scheduler = hx.Scheduler("lightest", lightest, on_start=book, plans_ahead=True, parameters=(2.0,))
    result = hx.simulate(*WIDE, scheduler=scheduler, workload=own([50] * 12, [1] * 12))
    check_all_done(result)
    # The coordinator's four first links get three prompts and three decodes each.
    first = result.links[result.links["sender"] == "source"]
    assert first["tokens_per_s"].nunique() == 1
    source = result.provenance["scheduler"]
    assert (source["name"], source["parameters"], source["plans_ahead"]) == ("lightest", [2.0], True)


@pytest.mark.parametrize("link", [NONE - 1, 10**6, 0])
def test_a_scheduler_that_chooses_what_is_not_there(link):
    def wrong(state, sender, request):
        return link

    for plans_ahead in (False, True):
        scheduler = hx.Scheduler("wrong", wrong, plans_ahead=plans_ahead)
        with pytest.raises(SchedulingError, match="scheduler 'wrong' chose a link that does not leave"):
            hx.simulate(*WIDE, scheduler=scheduler, workload=short())


def test_functions_that_do_not_compile():
    def reads_a_file(state, sender, request):
        return len(open("links.txt").read())

    def makes_a_list(node, request):
        return [node, request].sort()

    with pytest.raises(SchedulingError, match="choose of scheduler 'mine' does not compile"):
        hx.simulate(*CHAIN, scheduler=hx.Scheduler("mine", reads_a_file), workload=short())
    with pytest.raises(SchedulingError, match="admits of execution policy 'mine' does not compile"):
        hx.simulate(*CHAIN, execution=hx.Execution("mine", makes_a_list), workload=short())
    with pytest.raises(SchedulingError, match="on_finish of scheduler 'mine' does not compile"):
        hx.simulate(*CHAIN, scheduler=hx.Scheduler("mine", first_link, on_finish=lambda: 0), workload=short())


def test_an_execution_policy_of_ones_own():
    def alone(node, request):
        return node.batch_prompts + node.batch_decode_tokens == 0

    workload = own([200] * 40, [30] * 40)
    results = [
        hx.simulate(*CHAIN, execution=e, workload=workload) for e in (hx.Execution("alone", alone), "greedy")
    ]
    for result in results:
        check_all_done(result)
    assert results[0].metrics["execution"] == "alone"
    batches = [result.nodes["batches"].sum() for result in results]
    assert batches[0] > batches[1]
    assert results[0].metrics["last_finish_s"] > results[1].metrics["last_finish_s"]


# What makes no sense


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"scheduler": "swarn"}, UnknownNameError, "did you mean 'swarm'"),
        ({"scheduler": 3}, SchedulingError, "a scheduler is a name or a Scheduler, not 3"),
        ({"execution": "greed"}, UnknownNameError, "did you mean 'greedy'"),
        ({"execution": None}, SchedulingError, "not None"),
        ({"on_full": "panic"}, SimulationError, "'panic'"),
        ({"sample_step_s": -1}, SimulationError, "sample_step_s"),
        ({"kv_high_water_mark": 0}, SimulationError, "kv_high_water_mark"),
        ({"kv_high_water_mark": float("nan")}, SimulationError, "kv_high_water_mark"),
        ({"expected_output_ratio": -0.1}, SimulationError, "expected_output_ratio"),
    ],
)
def test_arguments_that_make_no_sense(options, error, message):
    with pytest.raises(error, match=message):
        hx.simulate(*CHAIN, workload=short(), **options)


def test_a_placement_for_something_else():
    with pytest.raises(PlacementError, match="is for model 'llama-1-30b', not 'llama-2-70b'"):
        hx.simulate(CHAIN[0], WIDE[1], CHAIN[2])
    with pytest.raises(PlacementError, match="'small10'"):
        hx.simulate(WIDE[0], CHAIN[1], CHAIN[2])


def test_a_placement_on_part_of_a_cluster():
    placement = hx.load_placement("single24/llama-1-30b/separate-a100")
    result = hx.simulate(WIDE[0], CHAIN[1], placement, workload=short())
    check_accounts(result)
    assert set(result.nodes["machine"]) == {"A100"}


# Results on disk


def test_a_result_comes_back(tmp_path):
    result = hx.simulate(*WIDE, workload=short())
    assert result.save(tmp_path / "new" / "mine") == tmp_path / "new" / "mine"
    loaded = hx.load_result(tmp_path / "new" / "mine")
    for name in TABLES:
        pd.testing.assert_frame_equal(getattr(loaded, name), getattr(result, name), check_exact=True)
    assert loaded.provenance == result.provenance
    assert loaded.to_dict() == result.to_dict()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["mine"]


def test_a_result_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    folder = tmp_path / "mine"
    old, new = (hx.simulate(*CHAIN, workload=short(seed=seed)) for seed in (1, 2))
    old.save(folder)
    written = pd.DataFrame.to_parquet

    def crash(table, path, **options):
        if "node_timeline" in str(path):
            raise OSError(28, "No space left on device")
        return written(table, path, **options)

    with monkeypatch.context() as patched:
        patched.setattr(pd.DataFrame, "to_parquet", crash)
        with pytest.raises(SimulationError, match="mine \\(No space left on device\\); give another path"):
            new.save(folder)
    assert list(tmp_path.iterdir()) == [folder]
    pd.testing.assert_frame_equal(hx.load_result(folder).iterations, old.iterations)
    new.save(folder)
    assert list(tmp_path.iterdir()) == [folder]
    pd.testing.assert_frame_equal(hx.load_result(folder).iterations, new.iterations)


def test_other_things_are_never_replaced(tmp_path):
    result = hx.simulate(*CHAIN, workload=short())
    (tmp_path / "notes.txt").write_text("keep")
    for path in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(SimulationError, match="exists and is not a result folder"):
            result.save(path)
    assert (tmp_path / "notes.txt").read_text() == "keep"


def test_a_folder_that_the_locale_has_no_characters_for(tmp_path):
    result = hx.simulate(*CHAIN, workload=short())
    assert hx.load_result(result.save(tmp_path / "r\udcfcn")).summary.equals(result.summary)


def test_folders_that_are_no_results(tmp_path):
    with pytest.raises(FileFormatError):
        hx.load_result(tmp_path / "missing")
    result = hx.simulate(*CHAIN, workload=short())
    for name, content in [
        ("result.json", "{"),
        ("result.json", "[]"),
        ("result.json", '{"format": "helixlab-result", "version": 99}'),
        ("requests.parquet", "rubbish"),
        ("requests.parquet", None),
    ]:
        folder = result.save(tmp_path / "mine")
        if content is None:
            (folder / name).unlink()
        else:
            (folder / name).write_text(content)
        with pytest.raises(FileFormatError):
            hx.load_result(folder)


# Whatever the cluster


@st.composite
def systems(draw):
    """A small cluster, a model, a planned placement, perhaps with little KV cache."""
    counts = draw(
        st.dictionaries(
            st.sampled_from(["A100", "V100", "L4", "T4"]), st.integers(2, 6), min_size=1, max_size=3
        )
    )
    cluster = hx.single_region(
        counts,
        bandwidth_bytes_per_s=draw(st.sampled_from([1e7, 1.25e8, 1.25e9])),
        latency_s=draw(st.sampled_from([0.0, 1e-3, 0.05])),
        shuffle=True,
        rng=draw(st.integers(0, 99)),
    )
    model = hx.load_model("llama-1-30b")
    try:
        placement = hx.plan(cluster, model, method=draw(st.sampled_from(["petals", "swarm", "homogeneous"])))
    except PlacementError:
        assume(False)
    if draw(st.booleans()):
        placement = with_kv(placement, draw(st.integers(200, 3000)))
    return cluster, model, placement


@settings(max_examples=60)
@given(
    system=systems(),
    scheduler=st.sampled_from(sorted(SCHEDULERS)),
    requests=st.lists(
        st.tuples(st.floats(0, 10), st.integers(1, 2000), st.integers(1, 40)), min_size=1, max_size=25
    ),
    on_full=st.sampled_from(["wait", "drop"]),
)
def test_everything_is_served_or_refused_on_any_cluster(system, scheduler, requests, on_full):
    arrival_s, input_tokens, output_tokens = map(list, zip(*sorted(requests), strict=True))
    if scheduler == "helix":
        assume(hx.max_flow(*system).value_tokens_per_s > 0)
    workload = own(input_tokens, output_tokens, arrival_s)
    result = hx.simulate(*system, scheduler=scheduler, workload=workload, on_full=on_full, sample_step_s=0.5)
    check_all_done(result)
    assert result.metrics["requests_fed"] == len(requests)
    if not system[2].kv_capacity_token_layers:
        assert result.metrics["requests_finished"] == len(requests)
    finished = result.requests[result.requests["outcome"] == "finished"]
    tokens = finished["input_tokens"].sum() + finished["output_tokens"].sum()
    assert result.metrics["total_tokens"] == tokens


# Where things go wrong


def test_hundreds_of_requests_lose_their_cache_at_one_instant():
    """A burst of preemptions is survived, whatever it sets in motion at once."""
    model = hx.load_model("llama-2-70b")
    profile = model.profile("A100")
    wide = {"max_prompt_requests": (100,) * 12, "max_decode_tokens": (1000,) * 12}
    quick = replace(
        profile,
        prompt_batch_tokens=(0, 300_000),
        prompt_layer_s=(0.0, 0.02),
        decode_batch_tokens=(0, 1000),
        decode_layer_s=(0.0, 0.001),
        **wide,
    )
    model = replace(model, profiles={"A100": quick})
    cluster = hx.single_region({"A100": 20}, latency_s=0.0, name="chain")
    layers = tuple(hx.NodeLayers(node, 4 * node, 4 * node + 4) for node in range(20))
    placement = hx.Placement(
        "chain", "chain", model.name, "by hand", layers, usable_links(cluster, layers, 80), {0: 4 * 403}
    )
    result = hx.simulate(
        cluster, model, placement, scheduler="swarm", workload=own([1] * 400, [10] * 400, duration_s=600)
    )
    check_all_done(result)
    assert result.metrics["requests_preempted"] > 100
    assert result.metrics["requests_finished"] == 400


@pytest.mark.parametrize("initial", [1, 20])
def test_refused_requests_let_others_in(initial):
    """Offline, a request that can never be served does not take its place in flight with it."""
    requests = pd.DataFrame({"input_tokens": [7000] * 20 + [100] * 30, "output_tokens": [3] * 50})
    for scheduler in SCHEDULERS:
        workload = short(initial_requests=initial, requests=requests, duration_s=60)
        result = hx.simulate(*CHAIN, scheduler=scheduler, workload=workload)
        check_accounts(result)
        assert result.metrics["requests_refused"] == 20, scheduler
        assert result.metrics["requests_finished"] == 30, scheduler
        refused = result.requests[result.requests["outcome"] == "refused"]
        assert refused["reason"].str.len().min() > 10
        assert refused["prompt_done_s"].isna().all()
        assert (result.requests.loc[result.requests["outcome"] == "finished", "reason"] == "").all()
        assert result.metrics["input_tokens_mean_accepted"] == 100


@pytest.mark.parametrize("scheduler", ["swarm", "random"])
def test_as_many_in_flight_as_asked_though_some_are_queued(scheduler):
    cluster, model, placement = CHAIN
    result = hx.simulate(
        cluster,
        model,
        with_kv(placement, 3000),
        scheduler=scheduler,
        workload=short(initial_requests=20, duration_s=200),
    )
    check_accounts(result)
    assert result.metrics["requests_preempted"] > 0
    in_flight = result.timeline.loc[result.timeline["time_s"] > result.metrics["window_start_s"], "in_flight"]
    # A finished request is replaced 0.1 s later; what waits meanwhile for a queued one to start is few.
    assert in_flight.min() >= 15


def test_throughput_without_iterations():
    whole, bare = (
        hx.simulate(*CHAIN, workload=short(), keep_iterations=keep).metrics for keep in (True, False)
    )
    for figure in ("decode_tokens_per_s", "prompts_finished_in_window"):
        assert bare[figure] == whole[figure] > 0
    assert np.isnan(bare["decode_latency_mean_s"])


def test_batches_are_kept_if_asked_for():
    result = hx.simulate(*CHAIN, workload=short(), keep_batches=True)
    assert hx.simulate(*CHAIN, workload=short()).batches.empty
    batches = result.batches
    assert (batches["end_s"] > batches["start_s"]).all()
    assert ((batches["prompts"] > 0) | (batches["decodes"] > 0)).all()
    for _, own_batches in batches.groupby("node"):
        ordered = own_batches.sort_values("start_s")
        assert (ordered["start_s"].iloc[1:].to_numpy() >= ordered["end_s"].iloc[:-1].to_numpy()).all()


@pytest.mark.parametrize("row", [10**7, -(10**7)])
def test_a_scheduler_that_reads_outside_its_tables(row):
    def astray(state, sender, request):
        return state.links[row].sender

    with pytest.raises(SchedulingError, match="a function of the scheduler or execution policy failed"):
        hx.simulate(*CHAIN, scheduler=hx.Scheduler("astray", astray), workload=short())


@pytest.mark.parametrize(
    ("argument", "value", "message"),
    [
        (0, "single24", "cluster must be a Cluster, got 'single24'; load it with load_cluster"),
        (1, "llama-2-70b", "model must be a Model, got 'llama-2-70b'; load it with load_model"),
        (2, "petals", "placement must be a Placement, got 'petals'; load it with load_placement"),
    ],
)
def test_names_instead_of_objects(argument, value, message):
    system = [*CHAIN]
    system[argument] = value
    with pytest.raises(SimulationError, match=message):
        hx.simulate(*system)
