"""`simulate`: a placement serves a workload."""

from __future__ import annotations

import time
import warnings
from typing import Final

from helixlab._interrupts import hearing_ctrl_c
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
from helixlab.simulation.driver import drive
from helixlab.simulation.progress_table import ProgressTable
from helixlab.simulation.provenance import KV_RULES, provenance
from helixlab.simulation.result import Result
from helixlab.simulation.setup import loading_time_s, new_state
from helixlab.simulation.tables import build_result
from helixlab.workload import Workload
from helixlab.workload import offline as offline_workload

__all__ = ["KV_RULES", "check_step", "check_workload", "leave_links_out", "simulate", "warn_of_lost_flow"]


MUCH: Final = 0.1
"""Part of the maximum flow that has to be lost with the links left out for a warning."""


def leave_links_out(flow: Flow, rule: str) -> set[tuple[End, End]]:
    """The links that a scheduler that follows this flow does not use.

    Raises
    ------
    SchedulingError
        Without them no way leads from the source to the sink, so that every request would be turned away.
    """
    left_out = links_left_out(flow.on_link, rule)
    starts = [link for link in flow.on_link if link[0] == SOURCE]
    if left_out.issuperset(starts):
        shares = flow.left_out(rule)["share"]
        most = shares[shares < PAPER_SHARE].max()
        raise SchedulingError(
            f"nothing can be served through placement {flow.placement!r} with small_links={rule!r}, which"
            f" leaves out links with {rule_in_words(rule)} (here up to {100 * most:.3g} %), as no way from"
            f" source to sink is left; use {_mend(rule)}"
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
    """Warn where more than a tenth of the maximum flow cannot get through without these links."""
    most = flow.value_tokens_per_s
    if sum(flow.on_link[link] for link in left_out) <= MUCH * most:
        return  # no more is lost than they carry
    passing = max_flow(cluster, model, placement, small_links=rule).value_tokens_per_s
    if passing < (1 - MUCH) * most:
        count = len(flow.left_out(rule))
        warnings.warn(
            f"at most {passing:.1f} of {most:.1f} tokens/s get through placement {flow.placement!r}:"
            f" small_links={rule!r} leaves out {count} link{'s' if count > 1 else ''} with"
            f" {rule_in_words(rule)}, or from which none leads on; use {_mend(rule)}",
            stacklevel=3,
        )


def _mend(rule: str) -> str:
    other = "" if rule == RELATIVE else f"small_links={RELATIVE!r}, "
    return f"{other}another scheduler, or a placement with fewer nodes side by side"


NEED_LESS: Final = (
    "a shorter duration_s, keep_iterations=False or a longer sample_step_s need less, and hx.estimate tells"
    " how much a run will need"
)
LEAST_STEP_S: Final = 1e-4
"""Of samples and of rows that are watched: finer than anything that happens in a system of GPUs."""


def simulate(
    cluster: Cluster,
    model: Model,
    placement: Placement,
    *,
    scheduler: str | Scheduler = "helix",
    workload: Workload | None = None,
    execution: str | Execution = "greedy",
    on_full: str = "wait",
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
        The placement must be for this cluster (or part of it) and this model.
    scheduler : str or Scheduler
        ``"helix"``, ``"swarm"``, ``"random"``, ``"shortest-queue"``, or one of your own.
    workload : Workload, optional
        Made by `offline` or `online`; the paper's offline run by default.
    execution : str or Execution
        How nodes form batches.
    on_full : str
        What happens to a request for which a scheduler that plans ahead finds no room: ``"wait"`` at
        the coordinator, in order of arrival, or ``"drop"``, as the reference simulator does. Dropping
        favours short requests. With a scheduler that chooses hop by hop it decides nothing.
    kv_high_water_mark : float, optional
        Part of a node's KV cache that the helix scheduler may expect to fill; the paper's by default
        (0.85 offline, 0.9 online).
    expected_output_ratio : float, optional
        Part of the mean output of 240 tokens it expects of a request; the paper's by default (1 offline,
        0.6 online). Like the mark, it decides nothing with schedulers that do not look at it.
    small_links : str
        Which links the helix scheduler does not use because they carry too little: ``"relative"`` to the
        other links of their sender, and never more than 5 % of its flow; or ``"paper"``: all with less than
        5 % of their sender's flow, which is all of them where more than 20 equal links leave it. For all
        placements that come with helixlab both are the same; see `helixlab.flow.links_left_out`.
    sample_step_s : float
        Step of the timelines in simulated seconds, at least 0.0001; 0 for none. Steps in which nothing
        happens are left out, see `Result`.
    keep_iterations : bool
        Keep one row for every iteration. Without them latencies are not known.
    keep_batches : bool
        Keep one row for every batch, of which there are many: for pictures of short spans.
    keep_breakdown : bool
        Note for every iteration where its time went, see `Result`; that takes longer, and memory.
    progress_table_step_s : float
        Print a table while it runs, with a row every so many simulated seconds, at least 0.0001; 0 for
        none. Where nothing happens for more than ten rows, only the last of them is printed.
    progress : bool, optional
        Show a progress bar; by default in notebooks and on terminals, if it takes more than a second.
    partial : bool
        Ctrl-C gives a Result of what there is so far, marked as partial; False: it raises
        KeyboardInterrupt.

    Returns
    -------
    Result

    Raises
    ------
    PlacementError, SchedulingError, SimulationError, UnknownNameError
        Something does not fit; the message says what and how to mend it.
    OutOfMemoryError
        The run needs more memory than there is; `estimate` tells before.

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
    >>> bool(result.summary["decode_tokens_per_s"].item() > 10)
    True
    """
    started = time.perf_counter()
    scheduler, execution = get_scheduler(scheduler), get_execution(execution)
    workload = offline_workload() if workload is None else workload
    check_workload(workload)
    for thing, kind, loader in ((cluster, Cluster, "load_cluster"), (model, Model, "load_model")):
        if not isinstance(thing, kind):
            what = kind.__name__
            raise SimulationError(f"{what.lower()} must be a {what}, got {thing!r}; load it with {loader}")
    if not isinstance(placement, Placement):
        raise SimulationError(
            f"placement must be a Placement, got {placement!r}; load it with load_placement"
        )
    if on_full not in ("wait", "drop"):
        raise SimulationError(f"on_full must be 'wait' or 'drop', got {on_full!r}")
    steps_s = {}
    for name, step_s, none in (
        ("sample_step_s", sample_step_s, "timeline"),
        ("progress_table_step_s", progress_table_step_s, "table"),
    ):
        steps_s[name] = check_step(name, step_s, none)
    keeps = {"iterations": keep_iterations, "batches": keep_batches, "breakdown": keep_breakdown}
    keep_iterations, keep_batches, keep_breakdown = (
        as_flag(value, f"keep_{name}", error=SimulationError) for name, value in keeps.items()
    )
    partial = as_flag(partial, "partial", error=SimulationError)
    sample_step_s, progress_table_step_s = steps_s["sample_step_s"], steps_s["progress_table_step_s"]
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
    span_s = workload.duration_s + (0 if workload.online else workload.warmup_s)
    settings = {
        "on_full": on_full,
        "kv_high_water_mark": mark,
        "expected_output_ratio": ratio,
        "small_links": small_links,
        "sample_step_s": sample_step_s,
    }
    source = provenance(cluster, model, placement, scheduler, execution, workload, settings)
    progress = False if progress_table_step_s else progress  # the table shows it
    with memory_for("simulating", NEED_LESS), hearing_ctrl_c() as ctrl_c:
        with bar(progress, total=round(span_s), unit="s", desc="simulating", leave=False) as shown:
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


def check_workload(workload: Workload) -> None:
    """Whether it is one.

    Raises
    ------
    SimulationError
        It is not.
    """
    if not isinstance(workload, Workload):
        raise SimulationError(f"workload must come from offline(...) or online(...), got {workload!r}")


def check_step(name: str, step_s: float, none: str) -> float:
    """The step called `name`, which is 0 for none, or at least `LEAST_STEP_S`.

    Raises
    ------
    SimulationError
        It is not.
    """
    mend = f"0 (no {none}) or at least {LEAST_STEP_S:g} seconds"
    step_s = as_number(step_s, name, least=0, mend=mend, error=SimulationError)
    if 0 < step_s < LEAST_STEP_S:
        raise SimulationError(f"{name} is {step_s!r}; give {mend}")
    return step_s
