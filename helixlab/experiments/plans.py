"""Plans side by side: their flows, bounds, prices of layers and searches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import pandas as pd

from helixlab._data import read_table
from helixlab.cluster import Cluster, load_cluster
from helixlab.errors import HelixlabError
from helixlab.execution import Execution
from helixlab.flow import max_flow, upper_bound
from helixlab.model import Model, load_model
from helixlab.placement import Placement, load_placement
from helixlab.planning import plan, planning_throughput, problem_size
from helixlab.planning.prices import layer_prices

__all__ = [
    "PUBLISHED_PROGRAMS",
    "NamedPlan",
    "compare_flows",
    "coverage",
    "distinct_plans",
    "flow_nodes",
    "layers_of_nodes",
    "plan_reports",
    "plans_beside_published",
    "prices_of_layers",
    "program_sizes",
    "relaxed_bounds",
    "search_progress",
    "seconds_to_published",
    "split_estimates",
    "throughput_plans",
]

TRACE_COLUMNS: Final = ["seconds", "incumbent_tokens_per_s", "bound_tokens_per_s"]
PUBLISHED_PROGRAMS: Final[dict[str, tuple[str, str, int | None]]] = {
    "small10": ("small10", "llama-1-30b", None),
    "single24": ("single24", "llama-2-70b", None),
    "geo24-pruned": ("geo24", "llama-2-70b", 12),
    "geo24-no-prune": ("geo24", "llama-2-70b", None),
    "hetero42-pruned": ("hetero42", "llama-2-70b", 12),
    "hetero42-no-prune": ("hetero42", "llama-2-70b", None),
}
"""Cluster, model and number of links that each node keeps, by the name of a published search."""
SMALLEST: Final = "small10"
"""Cluster whose published program is of the smaller model."""
EQUAL: Final = 1e-9
"""Relative difference up to which a flow and a cover are the same."""


class NamedPlan(NamedTuple):
    """Placement with the name of its file, and what it was planned for.

    Parameters
    ----------
    plan : str
        ``"published"``, or the aim of the search: ``"for-flow"``, ``"for-greedy"`` ...
    name : str
        Name of the placement, with the cluster in front: ``"single24/llama-2-70b/helix"``.
    placement : Placement
        The placement.
    """

    plan: str
    name: str
    placement: Placement

    @property
    def cluster(self) -> str:
        """Name of the cluster."""
        return self.name.split("/")[0]


def distinct_plans(published: Mapping[str, Placement]) -> list[NamedPlan]:
    """Published plans whose speed is known, the first of equal ones.

    Placements that hold more layers on a node than were measured state their KV cache; nothing is known of
    their speed.

    Parameters
    ----------
    published : mapping of str to Placement
        Placements by name, with the cluster in front.

    Examples
    --------
    >>> import helixlab as hx
    >>> placement = hx.load_placement("small10/llama-1-30b/helix")
    >>> [plan.name for plan in distinct_plans({"small10/a": placement, "small10/b": placement})]
    ['small10/a']
    """
    plans = {
        (each.cluster, each.model, each.layers, frozenset(each.links)): NamedPlan("published", name, each)
        for name, each in reversed(list(published.items()))
        if not each.kv_capacity_token_layers
    }
    return list(reversed(plans.values()))


def throughput_plans(
    systems: Iterable[tuple[str, str]],
    policies: Mapping[str, str | Execution],
    *,
    replan: bool = False,
    **options: Any,
) -> list[NamedPlan]:
    """Plans of bundled clusters for throughput, one for each execution policy.

    Parameters
    ----------
    systems : iterable of (str, str)
        Names of clusters and models.
    policies : mapping of str to str or Execution
        Execution policies, by name.
    replan : bool, default False
        Search anew instead of loading the bundled plans.
    **options
        Further arguments of `helixlab.plan` for the searches.

    Examples
    --------
    >>> [plan.name for plan in throughput_plans([("single24", "llama-2-70b")], {"greedy": "greedy"})]
    ['single24/llama-2-70b/for-greedy']
    """
    plans = []
    for cluster, model in systems:
        for policy, execution in policies.items():
            name = f"{cluster}/{model}/for-{policy}"
            if replan:
                system = load_cluster(cluster), load_model(model)
                placement = plan(*system, objective="throughput", execution=execution, **options)
            else:
                placement = load_placement(name)
            plans.append(NamedPlan(f"for-{policy}", name, placement))
    return plans


def compare_flows(
    cluster: Cluster, model: Model, sources: Mapping[str, Mapping[str, Sequence[Placement]]]
) -> pd.DataFrame:
    """Compare placements of several methods and sources by their maximum flow.

    Parameters
    ----------
    cluster : Cluster
        Cluster of the placements.
    model : Model
        Model of the placements.
    sources : mapping of str to mapping of str to sequence of Placement
        Placements of a method, by source and method. Several placements are parts whose flows add up.

    Returns
    -------
    DataFrame
        One row a source and method: method, source, max_flow_tokens_per_s, nodes_used,
        upper_bound_tokens_per_s (of any placement), share_of_bound.

    Examples
    --------
    >>> import helixlab as hx
    >>> cluster, model = hx.load_cluster("small10"), hx.load_model("llama-1-30b")
    >>> plans = {"published": {"helix": [hx.load_placement("small10/llama-1-30b/helix")]}}
    >>> compare_flows(cluster, model, plans)["max_flow_tokens_per_s"].round(1).tolist()
    [286.6]
    """
    table = pd.DataFrame(
        [
            {
                "method": method,
                "source": source,
                "max_flow_tokens_per_s": sum(
                    max_flow(cluster, model, part).value_tokens_per_s for part in parts
                ),
                "nodes_used": sum(len(part.layers) for part in parts),
            }
            for source, methods in sources.items()
            for method, parts in methods.items()
        ]
    )
    table["upper_bound_tokens_per_s"] = upper_bound(cluster, model)
    table["share_of_bound"] = table["max_flow_tokens_per_s"] / table["upper_bound_tokens_per_s"]
    return table


def flow_nodes(cluster: Cluster, model: Model, placements: Mapping[str, Placement]) -> pd.DataFrame:
    """List the nodes of several placements with the part of their throughput that the maximum flow uses.

    Parameters
    ----------
    cluster : Cluster
        Cluster of the placements.
    model : Model
        Model of the placements.
    placements : mapping of str to Placement
        Placements, by title.

    Returns
    -------
    DataFrame
        Tables `Flow.nodes` below each other, with title, placement and placement_hash.

    Examples
    --------
    >>> import helixlab as hx
    >>> cluster, model = hx.load_cluster("small10"), hx.load_model("llama-1-30b")
    >>> nodes = flow_nodes(cluster, model, {"Helix": hx.load_placement("small10/llama-1-30b/helix")})
    >>> len(nodes), nodes["title"].unique().tolist()
    (10, ['Helix'])
    """
    return pd.concat(
        [
            max_flow(cluster, model, placement).nodes.assign(
                title=title, placement=placement.name, placement_hash=placement.content_hash
            )
            for title, placement in placements.items()
        ]
    )


def layers_of_nodes(cluster: Cluster, placements: Mapping[str, Placement]) -> pd.DataFrame:
    """List the layers on each node for placements of several methods.

    Parameters
    ----------
    cluster : Cluster
        Cluster of the placements.
    placements : mapping of str to Placement
        Placements, by method.

    Returns
    -------
    DataFrame
        Tables of `Placement.to_frame` below each other, with method and placement_hash.

    Examples
    --------
    >>> import helixlab as hx
    >>> placement = hx.load_placement("small10/llama-1-30b/helix")
    >>> len(layers_of_nodes(hx.load_cluster("small10"), {"helix": placement}))
    10
    """
    return pd.concat(
        [
            placement.to_frame(cluster).assign(method=method, placement_hash=placement.content_hash)
            for method, placement in placements.items()
        ]
    )


def program_sizes(runs: Iterable[str] = PUBLISHED_PROGRAMS) -> pd.DataFrame:
    """Size of the paper's program beside the published one.

    Parameters
    ----------
    runs : iterable of str
        Names of published runs, from `PUBLISHED_PROGRAMS`; all of them by default.

    Returns
    -------
    DataFrame
        One row a run: run, rows, columns, nonzeros, and the published ones with ``_published``.

    Examples
    --------
    >>> sizes = program_sizes(["small10"])
    >>> bool((sizes["rows"] == sizes["rows_published"]).all())
    True
    """
    sizes = [
        {"run": run, **problem_size(load_cluster(name), load_model(model), keep_links_per_node=kept)}
        for run, (name, model, kept) in ((run, PUBLISHED_PROGRAMS[run]) for run in runs)
    ]
    published = read_table("published/problem_sizes.csv")
    return pd.DataFrame(sizes).merge(published, on="run", suffixes=("", "_published"))


def plan_reports(plans: Mapping[str, Placement]) -> pd.DataFrame:
    """Status, incumbent, bound and time of searches.

    Parameters
    ----------
    plans : mapping of str to Placement
        Planned placements, by the name of the cluster.

    Returns
    -------
    DataFrame
        One row a placement: cluster, status, incumbent_tokens_per_s, bound_tokens_per_s, gap, seconds.

    Examples
    --------
    >>> import helixlab as hx
    >>> cluster, model = hx.load_cluster("small10"), hx.load_model("llama-1-30b")
    >>> plan_reports({"small10": hx.plan(cluster, model, objective="flow", rng=0)})["status"].tolist()
    ['optimal']
    """
    reports = {name: placement.report for name, placement in plans.items() if placement.report is not None}
    return pd.DataFrame(
        [
            {
                "cluster": name,
                "status": report.status,
                "incumbent_tokens_per_s": report.objective_tokens_per_s,
                "bound_tokens_per_s": report.upper_bound_tokens_per_s,
                "gap": report.gap,
                "seconds": report.wall_s,
            }
            for name, report in reports.items()
        ]
    )


def relaxed_bounds(cluster: Cluster, model: Model, placement: Placement) -> pd.DataFrame:
    """Put the bounds of a search with the paper's program beside what they come from.

    Parameters
    ----------
    cluster : Cluster
        Cluster of the search.
    model : Model
        Model of the search.
    placement : Placement
        Placement of the search, with its report.

    Returns
    -------
    DataFrame
        Columns what and tokens_per_s: the heuristic start, the incumbent, the first and the last bound, all
        nodes with one layer each, and `helixlab.upper_bound`.

    Raises
    ------
    HelixlabError
        The placement has no report with a trace.
    """
    report = placement.report
    if report is None or not report.trace:
        raise HelixlabError(f"{placement!r} has no trace of its search; plan it with method='paper-milp'")
    alone = planning_throughput(cluster, model)
    one_layer = sum(count * alone[machine][1] for machine, count in cluster.machine_counts().items())
    values = {
        "heuristic placement that the search began with": next(
            best for _, best, _ in report.trace if best > 0
        ),
        "best placement": report.objective_tokens_per_s,
        "first bound": next(bound for _, _, bound in report.trace if bound > 0),
        "last bound": report.upper_bound_tokens_per_s,
        "all nodes with one layer each": one_layer,
        "bound of section 4, by amounts": upper_bound(cluster, model),
    }
    return pd.DataFrame(values.items(), columns=["what", "tokens_per_s"])


def coverage(placements: Mapping[str, Placement]) -> pd.DataFrame:
    """Compare the maximum flow of placements with the throughput of the layer that has least of it.

    Parameters
    ----------
    placements : mapping of str to Placement
        Placements by name, with the cluster in front: ``"single24/llama-2-70b/helix"``.

    Returns
    -------
    DataFrame
        One row a placement: placement, max_flow_tokens_per_s, least_cover_tokens_per_s, least_layer, bound_by
        (kinds of bottlenecks), equal.

    Examples
    --------
    >>> import helixlab as hx
    >>> name = "small10/llama-1-30b/helix"
    >>> coverage({name: hx.load_placement(name)})["equal"].item()
    True
    """
    rows = []
    for name, placement in placements.items():
        flow = max_flow(load_cluster(name.split("/")[0]), load_model(placement.model), placement)
        ends = flow.nodes[["first_layer", "end_layer"]].itertuples(index=False)
        layers = pd.Series([list(range(*each)) for each in ends], index=flow.nodes.index)
        by_layer = flow.nodes.assign(layer=layers).explode("layer").groupby("layer")
        cover = by_layer["capacity_tokens_per_s"].sum()
        rows.append(
            {
                "placement": name,
                "max_flow_tokens_per_s": flow.value_tokens_per_s,
                "least_cover_tokens_per_s": cover.min(),
                "least_layer": cover.idxmin(),
                "bound_by": ", ".join(sorted(set(flow.bottlenecks["kind"]))),
            }
        )
    table = pd.DataFrame(rows)
    least = table["least_cover_tokens_per_s"]
    table["equal"] = (least - table["max_flow_tokens_per_s"]).abs() <= EQUAL * least
    return table


def prices_of_layers(cluster: Cluster, model: Model, tokens_per_s: float) -> tuple[pd.DataFrame, float]:
    """Price the layers of all blocks for a flow, and count the layers that the nodes can pay for.

    Parameters
    ----------
    cluster : Cluster
        Nodes that are to serve the flow.
    model : Model
        Model to serve.
    tokens_per_s : float
        Flow that every layer must have.

    Returns
    -------
    bill : DataFrame
        One row a block, a machine with a number of layers: machine, layers, throughput_tokens_per_s,
        price_per_layer, layers_paid_for.
    most_layers : float
        Largest number of layers that all nodes can pay for; where it is below the model's, no placement
        serves that flow.

    Examples
    --------
    >>> import helixlab as hx
    >>> cluster, model = hx.load_cluster("small10"), hx.load_model("llama-1-30b")
    >>> bill, most_layers = prices_of_layers(cluster, model, 292.3)
    >>> most_layers < model.layers
    True
    """
    alone, counts = planning_throughput(cluster, model), cluster.machine_counts()
    machines = list(counts)
    prices = layer_prices([alone[machine] for machine in machines], list(counts.values()), tokens_per_s)
    bill = pd.DataFrame(
        {
            "machine": [machines[kind] for kind in prices.kind],
            "layers": prices.layers,
            "throughput_tokens_per_s": prices.speed,
            "price_per_layer": prices.price,
            "layers_paid_for": prices.layers * prices.price,
        }
    )
    return bill, float(prices.most_layers)


def plans_beside_published(plans: Mapping[tuple[str, str], Placement]) -> pd.DataFrame:
    """Put plans for flow beside what the published searches had found when they were stopped.

    Parameters
    ----------
    plans : mapping of (str, str) to Placement
        Planned placements, by cluster and model.

    Returns
    -------
    DataFrame
        One row a plan: cluster, model, max_flow_tokens_per_s, bound_tokens_per_s, gap, status, seconds,
        bound_by_amounts_tokens_per_s; of the published search published_run, published_seconds,
        published_flow_tokens_per_s, published_bound_tokens_per_s and published_gap; and over_published, the
        ratio of the flows.

    Examples
    --------
    >>> import helixlab as hx
    >>> plan = hx.plan(hx.load_cluster("small10"), hx.load_model("llama-1-30b"), objective="flow", rng=0)
    >>> plans_beside_published({("small10", "llama-1-30b"): plan})["over_published"].round(3).tolist()
    [1.0]
    """
    traces = read_table("published/solver_traces.csv")
    ends = traces[~traces["run"].str.endswith("raw-start")].groupby("run").last().reset_index()
    ends["cluster"] = ends["run"].str.split("-").str[0]
    ends = ends.sort_values("incumbent_tokens_per_s").drop_duplicates("cluster", keep="last")
    ends["model"] = ends["cluster"].map({SMALLEST: "llama-1-30b"}).fillna("llama-2-70b")
    ends["published_gap"] = ends["bound_tokens_per_s"] / ends["incumbent_tokens_per_s"] - 1
    names = {
        "incumbent_tokens_per_s": "published_flow_tokens_per_s",
        "bound_tokens_per_s": "published_bound_tokens_per_s",
        "seconds": "published_seconds",
        "run": "published_run",
    }
    rows = []
    for (name, of), placement in plans.items():
        cluster, model, report = load_cluster(name), load_model(of), placement.report
        rows.append(
            {
                "cluster": name,
                "model": of,
                "max_flow_tokens_per_s": max_flow(cluster, model, placement).value_tokens_per_s,
                "bound_tokens_per_s": report and report.upper_bound_tokens_per_s,
                "gap": report and report.gap,
                "status": report and report.status,
                "seconds": report and report.wall_s,
                "bound_by_amounts_tokens_per_s": upper_bound(cluster, model),
            }
        )
    table = pd.DataFrame(rows).merge(ends.rename(columns=names), on=["cluster", "model"], how="left")
    table["over_published"] = table["max_flow_tokens_per_s"] / table["published_flow_tokens_per_s"]
    return table


def split_estimates(cluster: Cluster, model: Model, parts: Mapping[str, Placement]) -> pd.DataFrame:
    """Estimate pipelines of one machine type each, alone and as parts of the whole cluster.

    Parameters
    ----------
    cluster : Cluster
        Cluster of all parts.
    model : Model
        Model to serve.
    parts : mapping of str to Placement
        Pipelines, by machine type.

    Returns
    -------
    DataFrame
        One row a part: machine, layers (the most on one node), alone_tokens_per_s, in_the_mix_tokens_per_s.

    Examples
    --------
    >>> import helixlab as hx
    >>> cluster, model = hx.load_cluster("single24"), hx.load_model("llama-1-30b")
    >>> parts = {"A100": hx.load_placement("single24/llama-1-30b/helix-a100")}
    >>> split_estimates(cluster, model, parts)["machine"].tolist()
    ['A100']
    """
    mixed = planning_throughput(cluster, model)
    rows = []
    for machine, placement in parts.items():
        layers = max(on_node.count for on_node in placement.layers)
        alone = max_flow(cluster, model, placement).nodes["capacity_tokens_per_s"].min()
        rows.append(
            {
                "machine": machine,
                "layers": layers,
                "alone_tokens_per_s": alone,
                "in_the_mix_tokens_per_s": mixed[machine][layers],
            }
        )
    return pd.DataFrame(rows)


def search_progress(
    runs: Mapping[str, str], plans: Mapping[tuple[str, str], Placement], programs: Mapping[str, Placement]
) -> pd.DataFrame:
    """Incumbents and bounds over time: helixlab's searches, the published ones, and the paper's program here.

    Parameters
    ----------
    runs : mapping of str to str
        Names of the published runs, by cluster.
    plans : mapping of (str, str) to Placement
        Plans for flow, by cluster and model.
    programs : mapping of str to Placement
        Placements found with the paper's program here, by cluster.

    Returns
    -------
    DataFrame
        One row an event: cluster, run, seconds, incumbent_tokens_per_s, bound_tokens_per_s. Published times
        are whole seconds; those before 1 s are set to 1 s.

    Examples
    --------
    >>> search_progress({"small10": "small10"}, {}, {})["run"].unique().tolist()
    ['paper, Gurobi']
    """
    traces = read_table("published/solver_traces.csv")
    pieces = []
    for name, run in runs.items():
        model = "llama-1-30b" if name == SMALLEST else "llama-2-70b"
        own = plans.get((name, model))
        if own is not None and own.report is not None:
            report = own.report
            last = (report.wall_s, report.objective_tokens_per_s, report.upper_bound_tokens_per_s)
            trace = pd.DataFrame([*report.trace, last], columns=TRACE_COLUMNS)
            pieces.append(trace.assign(run="helixlab", cluster=name))
        published = traces[traces["run"] == run].assign(run="paper, Gurobi", cluster=name)
        pieces.append(published.assign(seconds=published["seconds"].clip(lower=1)))
        if name in programs and (program := programs[name].report) is not None:
            trace = pd.DataFrame(program.trace, columns=TRACE_COLUMNS)
            pieces.append(trace.assign(run="paper, HiGHS", cluster=name))
    return pd.concat(pieces)[["cluster", "run", *TRACE_COLUMNS]]


def seconds_to_published(progress: pd.DataFrame) -> pd.DataFrame:
    """Time after which helixlab's search had a placement as good as the published search at its end.

    Parameters
    ----------
    progress : DataFrame
        Table of `search_progress`.

    Returns
    -------
    DataFrame
        One row a cluster where it came so far: cluster, seconds, published_seconds.
    """
    rows = []
    for name, events in progress.groupby("cluster", sort=False):
        published = events[events["run"] == "paper, Gurobi"].iloc[-1]
        own = events[events["run"] == "helixlab"]
        good = own[own["incumbent_tokens_per_s"] >= (1 - 1e-6) * published["incumbent_tokens_per_s"]]
        if len(good):
            rows.append((name, good["seconds"].iloc[0], published["seconds"]))
    return pd.DataFrame(rows, columns=["cluster", "seconds", "published_seconds"])
