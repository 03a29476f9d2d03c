"""The function `simulate`: a placement serves a workload."""

from __future__ import annotations

import time
import warnings
from typing import Final, Literal

from helixlab._interrupts import deferred_ctrl_c
from helixlab._progress import bar
from helixlab._validation import as_flag, as_number
from helixlab.cluster import SOURCE, Cluster
from helixlab.errors import SchedulingError, SimulationError, memory_for
from helixlab.execution import Execution, get_execution
from helixlab.flow import Flow, links_left_out, max_flow
from helixlab.flow.small_links import PAPER_SHARE, RELATIVE, check_rule, rule_in_words
from helixlab.model import Model
from helixlab.placement import Placement, check_placement
from helixlab.placement.placement import End
from helixlab.scheduling import Scheduler, get_scheduler
from helixlab.simulation.driver import drive, span_s
from helixlab.simulation.progress_table import ProgressTable
from helixlab.simulation.provenance import KV_RULES, provenance
from helixlab.simulation.result import Result
from helixlab.simulation.setup import loading_time_s, new_state
from helixlab.simulation.tables import build_result
from helixlab.workload import Workload, offline as offline_workload

__all__ = ["KV_RULES", "check_step", "check_workload", "leave_links_out", "simulate", "warn_of_lost_flow"]

MOST_LOST_FLOW: Final = 0.1
"""Part of the maximum flow that may be lost with the links left out; more gives a warning."""
LEAST_STEP_S: Final = 1e-4
"""Least step of samples and of the progress table: finer than anything that happens in a system of GPUs."""
NEED_LESS: Final = (
    "a shorter duration_s, keep_iterations=False or a longer sample_step_s need less, and hx.estimate"
    " predicts how much a run will need"
)
"""Remedies where memory ran out."""


def simulate(
    cluster: Cluster,
    model: Model,
    placement: Placement,
    *,
    scheduler: str | Scheduler = "helix",
    workload: Workload | None = None,
    execution: str | Execution = "greedy",
    on_full: Literal["wait", "drop"] = "wait",
    kv_high_water_mark: float | None = None,
    expected_output_ratio: float | None = None,
    small_links: str = RELATIVE,
    sample_step_s: float = 5.0,
    keep_iterations: bool = True,
    keep_batches: bool = False,
    keep_breakdown: bool = False,
    progress_table_step_s: float = 0.0,
    progress: bool | None = None,
    partial: bool = True,
) -> Result:
    """Simulate serving a workload.

    Parameters
    ----------
    cluster, model, placement
        Cluster, model and placement; the placement must be for this cluster (or part of it) and this model.
    scheduler : str or Scheduler
        Name of the scheduler, ``"helix"``, ``"swarm"``, ``"random"`` or ``"shortest-queue"``, or a scheduler
        of your own.
    workload : Workload, optional
        Workload made by `offline` or `online`; the paper's offline run by default.
    execution : str or Execution
        Policy by which nodes form batches, or its name.
    on_full : str
        Treatment of a request for which a scheduler that plans ahead finds no free KV cache: ``"wait"`` at
        the coordinator, in order of arrival, or ``"drop"``, as the reference simulator does. Dropping
        favours short requests. It has no effect with a scheduler that chooses hop by hop.
    kv_high_water_mark : float, optional
        Part of a node's KV cache that the helix scheduler may expect to fill; the paper's by default
        (0.85 offline, 0.9 online).
    expected_output_ratio : float, optional
        Part of the mean output of 240 tokens that it expects of a request; the paper's by default (1 offline,
        0.6 online). Like the mark, it has no effect with schedulers that do not look at it.
    small_links : str
        Rule by which the helix scheduler leaves out links that carry too little: ``"relative"`` to the
        other links of their sender, and never more than 5 % of its flow; or ``"paper"``: all with less than
        5 % of their sender's flow, which is all of them where more than 20 equal links leave it. For all
        placements that come with helixlab both are the same; see `helixlab.flow.links_left_out`.
    sample_step_s : float
        Step of the timelines in simulated seconds, at least 0.0001; 0 for none. Steps in which nothing
        happens are left out, see `Result`.
    keep_iterations : bool
        Keep one row for every iteration. Without them, prompt and decode latencies are not known.
    keep_batches : bool
        Keep one row for every batch, of which there are many: for plots of short spans.
    keep_breakdown : bool
        Record where the time of every iteration went, see `Result`; this takes time and memory.
    progress_table_step_s : float
        Step of a table printed during the run in simulated seconds, at least 0.0001; 0 for no table. Where
        nothing happens for more than ten rows, only the last of them is printed.
    progress : bool, optional
        Show a progress bar; by default in notebooks and on terminals, if it takes more than a second.
    partial : bool
        Return a Result of the part simulated so far on Ctrl-C, marked as partial; False: raise
        KeyboardInterrupt.

    Returns
    -------
    Result

    Raises
    ------
    PlacementError, SchedulingError, SimulationError, UnknownNameError
        An argument does not fit; the message says which, and how to correct it.
    OutOfMemoryError
        The run needs more memory than there is; `estimate` predicts how much it needs.

    Warns
    -----
    UserWarning
        More than a tenth of the maximum flow cannot get through without the links that are not used.

    Examples
    --------
    >>> import helixlab as hx
    >>> cluster, model = hx.load_cluster("small10"), hx.load_model("llama-1-30b")
    >>> placement = hx.load_placement("small10/llama-1-30b/helix")
    >>> result = hx.simulate(cluster, model, placement, workload=hx.offline(duration_s=60, rng=0))
    >>> bool(result.metrics["decode_tokens_per_s"] > 10)
    True
    """
    started = time.perf_counter()
    scheduler, execution = get_scheduler(scheduler), get_execution(execution)
    workload = offline_workload() if workload is None else workload
    check_workload(workload)
    _check_kinds(cluster, model, placement)
    if on_full not in ("wait", "drop"):
        raise SimulationError(f"on_full must be 'wait' or 'drop', got {on_full!r}")
    sample_step_s = check_step("sample_step_s", sample_step_s, "timeline")
    progress_table_step_s = check_step("progress_table_step_s", progress_table_step_s, "table")
    keeps = {"iterations": keep_iterations, "batches": keep_batches, "breakdown": keep_breakdown}
    keep_iterations, keep_batches, keep_breakdown = (
        as_flag(value, f"keep_{name}", error=SimulationError) for name, value in keeps.items()
    )
    partial = as_flag(partial, "partial", error=SimulationError)
    if keep_breakdown and not keep_iterations:
        raise SimulationError("keep_breakdown adds to the iterations; leave keep_iterations on")
    check_rule(small_links)
    check_placement(placement, cluster, model)
    cluster = placement.on(cluster)
    flow = max_flow(cluster, model, placement)
    if scheduler.follows_flow and not flow.value_tokens_per_s > 0:
        raise SchedulingError(
            f"scheduler {scheduler.name!r} follows the maximum flow, which is 0 for placement"
            f" {placement.name!r}; use another scheduler or give its fullest nodes fewer layers"
        )
    left_out = leave_links_out(flow, small_links) if scheduler.follows_flow else set()
    mark, ratio = KV_RULES[workload.mode]
    if kv_high_water_mark is not None:
        mark = as_number(kv_high_water_mark, "kv_high_water_mark", above=0, most=1, error=SimulationError)
    if expected_output_ratio is not None:
        ratio = as_number(
            expected_output_ratio, "expected_output_ratio", least=0, most=1e6, error=SimulationError
        )
    warn_of_lost_flow(cluster, model, placement, flow, left_out, small_links)
    with memory_for("simulating", NEED_LESS):
        state = new_state(
            cluster,
            model,
            placement,
            scheduler,
            execution,
            flow.on_link if scheduler.follows_flow else None,
            left_out=left_out,
            request_rows=1024,
            keep_breakdown=keep_breakdown,
        )
    run = state.run[0]
    run["scheduler_kv_high_water_mark"], run["scheduler_output_ratio"] = mark, ratio
    run["drop_on_full"] = on_full == "drop"
    start_s = loading_time_s(cluster, model, placement)
    settings = {
        "on_full": on_full,
        "kv_high_water_mark": mark,
        "expected_output_ratio": ratio,
        "small_links": small_links,
        "sample_step_s": sample_step_s,
    }
    source = provenance(cluster, model, placement, scheduler, execution, workload, settings)
    progress = False if progress_table_step_s else progress  # the table shows it
    with memory_for("simulating", NEED_LESS), deferred_ctrl_c() as ctrl_c:
        with bar(progress, total=round(span_s(workload)), unit="s", desc="simulating", leave=False) as shown:
            recording = drive(
                state,
                workload,
                scheduler,
                execution,
                start_s,
                sample_step_s=sample_step_s,
                keep_iterations=keep_iterations,
                keep_batches=keep_batches,
                progress_table=ProgressTable(progress_table_step_s) if progress_table_step_s > 0 else None,
                progress=lambda now_s: shown.update(
                    max(0, min(round(now_s - start_s), shown.total) - shown.n)
                ),
                ctrl_c=ctrl_c,
            )
        wall_s = time.perf_counter() - started
        result = build_result(recording, cluster, model, placement, flow, workload, source, start_s, wall_s)
    if ctrl_c.pressed and not partial:
        raise KeyboardInterrupt
    return result


def leave_links_out(flow: Flow, rule: str) -> set[tuple[End, End]]:
    """Return the links that a scheduler does not use if it follows this flow.

    Raises
    ------
    SchedulingError
        Without them no path leads from the source to the sink, so that every request would be turned away.
    """
    left_out = links_left_out(flow.on_link, rule)
    starts = [link for link in flow.on_link if link[0] == SOURCE]
    if left_out.issuperset(starts):
        shares = flow.left_out(rule)["share"]
        most = shares[shares < PAPER_SHARE].max()
        raise SchedulingError(
            f"nothing can be served through placement {flow.placement!r} with small_links={rule!r}, which"
            f" leaves out links with {rule_in_words(rule)} (here up to {100 * most:.3g} %), as no path from"
            f" source to sink is left; use {_remedy(rule)}"
        )
    return left_out


def warn_of_lost_flow(
    cluster: Cluster,
    model: Model,
    placement: Placement,
    flow: Flow,
    left_out: set[tuple[End, End]],
    rule: str,
) -> None:
    """Warn if more than a tenth of the maximum flow cannot get through without these links."""
    most = flow.value_tokens_per_s
    if sum(flow.on_link[link] for link in left_out) <= MOST_LOST_FLOW * most:
        return  # no more is lost than they carry
    passing = max_flow(cluster, model, placement, small_links=rule).value_tokens_per_s
    if passing < (1 - MOST_LOST_FLOW) * most:
        count = len(flow.left_out(rule))
        warnings.warn(
            f"at most {passing:.1f} of {most:.1f} tokens/s get through placement {flow.placement!r}:"
            f" small_links={rule!r} leaves out {count} link{'s' if count > 1 else ''} with"
            f" {rule_in_words(rule)}, or from which none leads on; use {_remedy(rule)}",
            stacklevel=3,
        )


def _remedy(rule: str) -> str:
    """Return what to use instead of a rule that leaves out too many links."""
    other = "" if rule == RELATIVE else f"small_links={RELATIVE!r}, "
    return f"{other}another scheduler, or a placement with fewer nodes side by side"


def _check_kinds(cluster: object, model: object, placement: object) -> None:
    """Check that the three are what their names say, and not, for instance, their names."""
    for value, kind in ((cluster, Cluster), (model, Model), (placement, Placement)):
        if not isinstance(value, kind):
            name = kind.__name__.lower()
            raise SimulationError(
                f"{name} must be a {kind.__name__}, got {value!r}; load it with load_{name}"
            )


def check_workload(workload: Workload) -> None:
    """Check that a value is a Workload.

    Raises
    ------
    SimulationError
        The value is no Workload.
    """
    if not isinstance(workload, Workload):
        raise SimulationError(f"workload must come from offline(...) or online(...), got {workload!r}")


def check_step(name: str, step_s: float, purpose: str) -> float:
    """Return a step if it is 0, or at least `LEAST_STEP_S`.

    Parameters
    ----------
    name : str
        Name of the argument.
    step_s : float
        Value of the argument.
    purpose : str
        Noun for what a step of 0 turns off.

    Raises
    ------
    SimulationError
        The step is another number, or none.
    """
    mend = f"0 (no {purpose}) or at least {LEAST_STEP_S:g} seconds"
    step_s = as_number(step_s, name, least=0, mend=mend, error=SimulationError)
    if 0 < step_s < LEAST_STEP_S:
        raise SimulationError(f"{name} is {step_s!r}; give {mend}")
    return step_s
