"""Placement program of the Helix paper, stated in CVXPY (Mei et al., ASPLOS 2025, section 4)."""

from __future__ import annotations

import math
import warnings
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, Final

import cvxpy as cp
import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray

from helixlab._validation import as_whole
from helixlab.cluster import SINK, SOURCE, Cluster, Link
from helixlab.errors import PlacementError, SolverError
from helixlab.model import Model
from helixlab.placement import NodeLayers, Placement, usable_links
from helixlab.placement.placement import End
from helixlab.planning.layout import (
    SearchStatus,
    most_layers_by_machine,
    planning_throughput,
    require_capacity,
)
from helixlab.planning.solver import NO_LIMITS, Limits, Program, Solution, solve

__all__ = ["PaperProgram", "keep_fastest_links", "problem_size", "solve_problem"]


def keep_fastest_links(cluster: Cluster, count: int) -> Cluster:
    """Prune a cluster to the links that are among the fastest of one of their ends.

    Every node ranks its links with other nodes by bandwidth, inbound and outbound links separately. So does
    the coordinator.

    Parameters
    ----------
    cluster : Cluster
        Cluster to prune.
    count : int
        Number of links that each end keeps in either direction; the paper's study keeps 12.

    Returns
    -------
    Cluster
        Cluster of the same name, with the remaining links in their order.

    Raises
    ------
    PlacementError
        `count` is not 1 or more.

    Notes
    -----
    Mei et al., ASPLOS 2025, section 4. Among links with equal bandwidth (all links in ``hetero42``), the
    coordinator keeps those of the nodes with the greatest indices, and a node keeps those whose ends, the
    smaller index first, are greatest *as text*. With this rule, the programs have the published sizes, and
    the placements that were published with pruning keep all their links.

    Examples
    --------
    >>> from helixlab.cluster import load_cluster
    >>> geo24 = load_cluster("geo24")
    >>> len(geo24.links), len(keep_fastest_links(geo24, 12).links)
    (600, 350)
    """
    mend = "1 or more, or None for all links"
    count = as_whole(count, "keep_links_per_node", least=1, mend=mend, error=PlacementError)
    ranked: dict[Hashable, list[Link]] = defaultdict(list)
    for link in sorted(cluster.links, key=_speed, reverse=True):
        # A node does not rank its links with the coordinator.
        if link.receiver != SINK:
            ranked["from", link.sender].append(link)
        if link.sender != SOURCE:
            ranked["to", link.receiver].append(link)
    kept = {link for links in ranked.values() for link in links[:count]}
    return replace(cluster, links=tuple(link for link in cluster.links if link in kept))


def _speed(link: Link) -> tuple[float, tuple[str, ...]]:
    """Return the key by which links are ranked: bandwidth, with ties broken as in the published study."""
    ends = [end for end in (link.sender, link.receiver) if isinstance(end, int)]
    # Numbers padded to one width sort as text in the order of numbers.
    names = [f"{ends[0]:09}"] if len(ends) == 1 else [str(end) for end in sorted(ends)]
    return link.bandwidth_bytes_per_s, tuple(names)


def solve_problem(
    problem: cp.Problem,
    *,
    start: Mapping[cp.Variable, ArrayLike] | None = None,
    limits: Limits = NO_LIMITS,
    on_progress: Callable[[float, float, float], None] | None = None,
) -> Solution:
    """Solve a linear problem of CVXPY, and set its variables to the best solution.

    `problem.solve` neither starts from a solution nor keeps one when it is stopped; this function does both.
    It returns no dual values.

    Parameters
    ----------
    problem : cvxpy.Problem
        Problem to solve. Its variables are set to the solution, or to None if there is none.
    start : mapping of cvxpy.Variable to array, optional
        Solution to start from, see `solve`. Variables may be missing or contain NaN.
    limits, on_progress
        As for `solve`.

    Returns
    -------
    Solution
        Solution in the sense of the problem; its `values` are the columns of the compiled program.

    Raises
    ------
    SolverError
        As for `solve`; or the start has a variable that is not in the problem, or values of another shape.

    Examples
    --------
    >>> import cvxpy as cp
    >>> taken = cp.Variable(3, boolean=True)
    >>> pack = cp.Problem(cp.Maximize([4, 5, 6] @ taken + 1), [[3, 4, 5] @ taken <= 8])
    >>> found = solve_problem(pack, start={taken: [0, 1, 0]})
    >>> found.objective, found.start_objective, taken.value.round().tolist()
    (11.0, 6.0, [1.0, 0.0, 1.0])
    """
    data, chain, inverse = problem.get_problem_data(cp.HIGHS)
    program = _compiled(problem, data, inverse[-1][cp.settings.OFFSET])
    values = None if start is None else _start_columns(program, data["param_prob"], start)
    found = solve(program, start=values, limits=limits, on_progress=on_progress)
    if found.values is None:
        for variable in problem.variables():
            variable.save_value(None)
        return found
    counts = ("ipm", "crossover", "pdlp", "qp", "simplex")
    raw = {
        "model_status": "kOptimal" if found.status == SearchStatus.OPTIMAL else "kTimeLimit",
        "run_time": found.wall_s,
        "info": SimpleNamespace(
            objective_function_value=found.objective, **{f"{name}_iteration_count": 0 for name in counts}
        ),
        "solution": SimpleNamespace(
            col_value=found.values, row_dual=np.full(program.matrix.shape[0], math.nan)
        ),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "Solution may be inaccurate": the status is more precise
        problem.unpack_results(raw, chain, inverse)
    return found


def _compiled(problem: cp.Problem, data: Mapping[str, Any], offset: float) -> Program:
    """Convert the data that CVXPY compiled, always a minimisation, into a program in the problem's sense."""
    columns = len(data["c"])
    boolean, whole = np.zeros(columns, dtype=bool), np.zeros(columns, dtype=bool)
    boolean[data["bool_vars_idx"]] = whole[data["int_vars_idx"]] = True
    lower, upper = (
        np.full(columns, sign * math.inf) if data[name] is None else data[name]
        for name, sign in (("lower_bounds", -1), ("upper_bounds", 1))
    )
    row_lower = np.full(len(data["b"]), -math.inf)
    row_lower[: data["dims"].zero] = data["b"][: data["dims"].zero]
    maximize = problem.objective.NAME == "maximize"
    sign = -1 if maximize else 1
    return Program(
        costs=sign * data["c"],
        matrix=data["A"],
        row_lower=row_lower,
        row_upper=data["b"],
        column_lower=np.where(boolean, np.maximum(lower, 0), lower),
        column_upper=np.where(boolean, np.minimum(upper, 1), upper),
        integer=boolean | whole,
        maximize=maximize,
        offset=sign * offset,
    )


def _start_columns(
    program: Program, compiled: Any, start: Mapping[cp.Variable, ArrayLike]
) -> NDArray[np.float64]:
    """Arrange a start by variables as columns of the program; NaN where no value is given."""
    columns = np.full(len(program.costs), math.nan)
    for variable, values in start.items():
        given = np.asarray(values, dtype=float)
        first = compiled.var_id_to_col.get(variable.id)
        if first is None or given.shape != variable.shape:
            raise SolverError(
                f"the start gives {variable.name()} the shape {given.shape}; start with variables of the"
                " problem, in their own shape"
            )
        columns[first : first + variable.size] = given.ravel(order="F")
    return columns


TOLERANCE: Final = 1e-6
"""Tolerance of solvers for whole numbers."""


class PaperProgram:
    """Mixed-integer program that assigns a run of layers to every node and maximises the flow.

    Every node has a whole number ``first``, its first layer, and for every k a binary ``holds``, which is 1
    where the node holds k layers. The layer after its last one, ``end``, is the expression first + sum over k
    of k * holds. Every link has a ``flow`` and a binary ``usable``; with partial inference, a link between
    nodes has two more binaries. The constraints are methods, one for each group.

    Parameters
    ----------
    cluster : Cluster
        Cluster whose links are those of the program. Nodes of a machine type that serves nothing are left
        out.
    model : Model
        Model to serve.
    partial_inference : bool
        True if a request may enter a node at a layer after its first one.

    Attributes
    ----------
    problem : cvxpy.Problem
        Problem of maximising the flow out of the source, with all constraints.
    nodes, links : list of int, list of Link
        Nodes and links of the program, in their order.
    most_layers : dict of int to int
        Largest number of layers of each node.
    noise_tokens_per_s : float
        Flow that may result from rounding; a flow up to this counts as zero.

    Raises
    ------
    PlacementError
        The model does not fit into the cluster.

    Notes
    -----
    Mei et al., ASPLOS 2025, section 4; `problem_size` reproduces the paper's table of sizes.

    The relaxation is very weak: a link that is half usable carries half its capacity, and requires only that
    the layers of its two ends follow each other within half the model. So in the relaxation every node holds
    a single layer, with which it serves most, and a request passes two or three nodes.

    The capacity of a link is the lesser of its bandwidth and the largest throughput of its two ends. This
    excludes no placement. With the bandwidth alone, the solver's tolerance of 1e-6 for whole numbers would
    amount to hundreds of tokens/s on a fast link. The amount that remains is `noise_tokens_per_s`.

    Examples
    --------
    >>> from helixlab.cluster import load_cluster
    >>> from helixlab.model import load_model
    >>> program = PaperProgram(load_cluster("small10"), load_model("llama-1-30b"))
    >>> program.first.shape, program.holds.shape, program.flow.shape
    ((10,), (86,), (110,))
    """

    def __init__(self, cluster: Cluster, model: Model, *, partial_inference: bool = False) -> None:
        throughput = planning_throughput(cluster, model)
        require_capacity(cluster, model, most_layers_by_machine(throughput))
        self.cluster, self.model = cluster, model
        self.nodes = [node.index for node in cluster.nodes if len(throughput[node.machine]) > 1]
        self.links = [
            link for link in cluster.links if {link.sender, link.receiver} <= {SOURCE, SINK, *self.nodes}
        ]
        own = [throughput[cluster.nodes[node].machine] for node in self.nodes]
        self.most_layers = {node: len(values) - 1 for node, values in zip(self.nodes, own, strict=True)}

        # A column of `holds` for every node and number of layers.
        self.holder = np.repeat(np.arange(len(own)), list(self.most_layers.values()))
        self.count = np.concatenate([np.arange(1, len(values)) for values in own])
        self.served = np.concatenate([values[1:] for values in own])

        # A row for every link: positions of its ends in `nodes`, -1 for the coordinator.
        place = {node: place for place, node in enumerate(self.nodes)} | {SOURCE: -1, SINK: -1}
        self.sender = np.array([place[link.sender] for link in self.links])
        self.receiver = np.array([place[link.receiver] for link in self.links])
        self.from_source, self.to_sink = self.sender < 0, self.receiver < 0
        self.between = ~(self.from_source | self.to_sink)
        self.partial_inference = partial_inference and bool(self.between.any())  # CVXPY fails on no variables
        bytes_per_token = np.where(self.between, model.activation_bytes, model.token_bytes)
        bandwidth = np.array([link.bandwidth_bytes_per_s for link in self.links]) / bytes_per_token
        fastest = np.array([*(values.max() for values in own), np.inf])  # the coordinator is last, at -1
        self.capacity = np.minimum(bandwidth, np.minimum(fastest[self.sender], fastest[self.receiver]))
        self.noise_tokens_per_s = TOLERANCE * float(self.capacity[self.from_source].sum())

        self.first = cp.Variable(len(own), integer=True, nonneg=True)
        self.holds = cp.Variable(len(self.count), boolean=True)
        self.flow = cp.Variable(len(self.links), nonneg=True)
        self.usable = cp.Variable(len(self.links), boolean=True)
        self.starts_before = cp.Variable(self.between.sum(), boolean=True)
        self.ends_after = cp.Variable(self.between.sum(), boolean=True)
        self.end = self.first + self._by_node(self.holder, self.count) @ self.holds
        links_reach = self.link_into_runs if self.partial_inference else self.link_to_starts
        self.problem = cp.Problem(
            cp.Maximize(cp.sum(self.flow[self.from_source])),
            [
                *self.require_runs_of_layers(),
                *self.conserve_flow(),
                *self.limit_nodes(),
                *self.limit_links(),
                *self.begin_at_first_layer(),
                *self.end_at_last_layer(),
                *links_reach(),
            ],
        )

    def _by_node(self, places: NDArray[np.int64], values: NDArray) -> sp.csr_array:
        """Build the matrix that adds values, one a column, to the nodes at these positions."""
        columns = np.flatnonzero(places >= 0)
        return sp.csr_array(
            (values[columns], (places[columns], columns)), shape=(len(self.nodes), len(places))
        )

    # The constraints

    def require_runs_of_layers(self) -> list[cp.Constraint]:
        """Require that each node hold exactly one number of layers, none beyond the model's last."""
        ones = np.ones(len(self.count))
        return [self._by_node(self.holder, ones) @ self.holds == 1, self.end <= self.model.layers]

    def conserve_flow(self) -> list[cp.Constraint]:
        """Require the flow into a node to equal the flow out of it."""
        ones = np.ones(len(self.links))
        return [(self._by_node(self.receiver, ones) - self._by_node(self.sender, ones)) @ self.flow == 0]

    def limit_nodes(self) -> list[cp.Constraint]:
        """Limit the flow into a node that holds k layers to its throughput with k layers."""
        received = self._by_node(self.receiver, np.ones(len(self.links))) @ self.flow
        return [received <= self._by_node(self.holder, self.served) @ self.holds]

    def limit_links(self) -> list[cp.Constraint]:
        """Limit the flow on a usable link to its capacity, and on any other link to zero."""
        return [self.flow <= cp.multiply(self.capacity, self.usable)]

    def begin_at_first_layer(self) -> list[cp.Constraint]:
        """Make a link source -> j usable only if j starts with layer 0."""
        usable = self.usable[self.from_source]
        return [self.first[self.receiver[self.from_source]] <= self.model.layers * (1 - usable)]

    def end_at_last_layer(self) -> list[cp.Constraint]:
        """Make a link i -> sink usable only if i ends with the last layer."""
        return [self.model.layers * self.usable[self.to_sink] <= self.end[self.sender[self.to_sink]]]

    def link_to_starts(self) -> list[cp.Constraint]:
        """Make a link i -> j usable only if j starts where i ends."""
        usable = self.usable[self.between]
        skipped = self._skipped()
        return [
            self.model.layers * usable <= self.model.layers + skipped,
            self.model.layers * usable <= self.model.layers - skipped,
        ]

    def link_into_runs(self) -> list[cp.Constraint]:
        """Make a link i -> j usable only if j starts at or before the end of i, and ends after it."""
        usable, more = self.usable[self.between], self.model.layers + 1
        beyond = self.end[self.receiver[self.between]] - self.end[self.sender[self.between]]
        return [
            more * (1 - self.starts_before) >= self._skipped(),
            beyond >= 1 - more * (1 - self.ends_after),
            2 * usable <= self.starts_before + self.ends_after,
        ]

    def _skipped(self) -> cp.Expression:
        """Return the number of layers from the end of i to the start of j, for every link between nodes."""
        return self.first[self.receiver[self.between]] - self.end[self.sender[self.between]]

    # Conversion from and to placements

    def start_from(self, placement: Placement) -> dict[cp.Variable, NDArray[np.float64]]:
        """Return the integer variables of a placement, from which the best flows follow.

        The program cannot express an idle node. It gets one layer, and no link leads to it.

        Raises
        ------
        PlacementError
            The program cannot express the placement.
        """
        own = {node: NodeLayers(node, 0, 1) for node in self.nodes}
        for held in placement.layers:
            most = self.most_layers.get(held.node, 0)
            if held.count > most or held.end_layer > self.model.layers:
                raise PlacementError(
                    f"the program cannot start from placement {placement.name!r}: its node {held.node} holds"
                    f" layers [{held.first_layer}, {held.end_layer}), {most} layers of"
                    f" {self.model.layers} are allowed; start from another placement, or from None"
                )
            own[held.node] = held
        reached = set(self.links_between(placement.layers))
        usable = np.array([(link.sender, link.receiver) in reached for link in self.links], dtype=float)
        count = np.array([held.count for held in own.values()])
        values = {
            self.first: np.array([held.first_layer for held in own.values()], dtype=float),
            self.holds: (self.count == count[self.holder]).astype(float),
            self.usable: usable,
        }
        if self.partial_inference:
            values[self.starts_before] = values[self.ends_after] = usable[self.between]
        return values

    def found(self) -> tuple[NodeLayers, ...]:
        """Read the layers of each node from the values of the variables."""
        first = np.rint(self.first.value).astype(int).tolist()
        end = np.rint(self.end.value).astype(int).tolist()
        return tuple(map(NodeLayers, self.nodes, first, end))

    def links_between(self, layers: Sequence[NodeLayers]) -> tuple[tuple[End, End], ...]:
        """List the links of the program that can be used if nodes hold these layers."""
        return usable_links(self.cluster, layers, self.model.layers, partial_inference=self.partial_inference)


def problem_size(
    cluster: Cluster,
    model: Model,
    *,
    partial_inference: bool = False,
    keep_links_per_node: int | None = None,
) -> dict[str, int]:
    """Count the rows, columns and nonzeros of the paper's program as it is passed to the solver.

    Bounds of single variables do not count as rows.

    Parameters
    ----------
    cluster, model, partial_inference, keep_links_per_node
        As for `plan_paper_milp`.

    Returns
    -------
    dict of str to int
        Numbers of ``"rows"``, ``"columns"`` and ``"nonzeros"``.

    Raises
    ------
    PlacementError
        The model does not fit into the cluster.

    Notes
    -----
    Without partial inference these are the sizes in table 8 of Mei et al., ASPLOS 2025, bundled as
    ``published/problem_sizes.csv``.

    Examples
    --------
    >>> from helixlab.cluster import load_cluster
    >>> from helixlab.model import load_model
    >>> problem_size(load_cluster("geo24"), load_model("llama-2-70b"), keep_links_per_node=12)
    {'rows': 1122, 'columns': 876, 'nonzeros': 8326}
    """
    if keep_links_per_node is not None:
        cluster = keep_fastest_links(cluster, keep_links_per_node)
    program = PaperProgram(cluster, model, partial_inference=partial_inference)
    data, _, _ = program.problem.get_problem_data(cp.HIGHS)
    rows, columns = data["A"].shape
    return {"rows": rows, "columns": columns, "nonzeros": int(np.count_nonzero(data["A"].data))}
