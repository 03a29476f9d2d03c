"""The command line: every verb is a call of the library, its answer a table or one JSON object."""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import sys
import textwrap
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import redirect_stdout, suppress
from dataclasses import asdict
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final, NoReturn

import pandas as pd

import helixlab as hx
from helixlab import reproduce
from helixlab._io import json_ready
from helixlab.cluster import Cluster, cluster_names, load_cluster
from helixlab.errors import HelixlabError, SimulationError, UnknownNameError
from helixlab.flow import max_flow, upper_bound
from helixlab.model import Model, load_model, model_names
from helixlab.placement import Placement, load_placement, placement_names, read_placement_ini, save_placement
from helixlab.placement.io import shown_name
from helixlab.planning import METHODS, plan
from helixlab.workload import Workload, offline, online, trace_names

if TYPE_CHECKING:
    from helixlab.diagnosis.diagnose import Finding

__all__ = [
    "CHUNKED_OPTIONS",
    "EXECUTION_NAMES",
    "SCHEDULER_NAMES",
    "SMALL_LINKS",
    "UsageError",
    "main",
    "parser",
    "print_figures",
    "print_findings",
    "print_json",
    "print_paragraph",
    "print_table",
]


SCHEDULER_NAMES: Final = ("helix", "random", "shortest-queue", "swarm")
EXECUTION_NAMES: Final = ("chunked", "decode-first", "greedy", "one-phase", "prompt-first")
SMALL_LINKS: Final = ("relative", "paper")
"""Stated here because asking the library would load the compiler; a test compares."""
CHUNKED_OPTIONS: Final = {
    "chunk_tokens": "tokens in a piece of a prompt (default: 64)",
    "max_prompt_chunks_per_batch": "most pieces of prompts in a batch (default: 1)",
    "max_decode_per_batch": "most decodes in a batch (default: 32)",
}


class UsageError(HelixlabError):
    """The command line itself is wrong."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see {self.prog} --help")


def parser(verbs: Mapping[str, Callable[[argparse.Namespace], None]]) -> argparse.ArgumentParser:
    """The parser of the command line.

    Parameters
    ----------
    verbs : mapping of str to function
        What carries out each verb; ends up as ``run`` of what is parsed.
    """
    whole = _Parser(
        prog="helixlab", description="Plan and simulate LLM serving over mixed GPUs and networks."
    )
    whole.add_argument("--version", action="version", version=f"helixlab {version('helixlab')}")
    found = whole.add_subparsers(title="verbs", required=True, metavar="VERB")
    for name, run in verbs.items():
        summary, options = _SUMMARIES[name], _OPTIONS.get(name)
        verb = found.add_parser(name, help=summary, description=summary, allow_abbrev=False)
        verb.set_defaults(run=run)
        if options is not None:
            options(verb.add_argument)
    return whole


def _plan_options(option: Any) -> None:
    _subject_options(option)
    option("--method", default="helix", help="a planner, see helixlab list (default: helix)")
    option("--objective", choices=("flow", "throughput"), help="of --method helix (default: throughput)")
    option("--execution", choices=EXECUTION_NAMES, help="that throughput is planned for (default: greedy)")
    option("--time-limit", type=float, default=60, help="seconds to search (default: 60)")
    option("--seed", type=int, default=0, help="of random draws (default: 0)")
    option("-o", dest="output", metavar="FILE", help="write the placement to this .json file")


def _flow_options(option: Any) -> None:
    _placement_options(option)
    option("--small-links", choices=SMALL_LINKS, help="only links that the helix scheduler uses by this rule")


def _placement_options(option: Any) -> None:
    _subject_options(option)
    option("--placement", required=True, help="a bundled name, or a .json or .ini file")


def _simulate_options(option: Any) -> None:
    _placement_options(option)
    option("--scheduler", default="helix", help="see helixlab list (default: helix)")
    option("--mode", choices=("offline", "online"), default="offline", help="(default: offline)")
    option(
        "--initial", type=int, help="offline: requests at the start, or in flight but for helix (default: 20)"
    )
    option("--warmup", type=float, help="seconds before the window (default: offline 60, online 0)")
    option(
        "--duration",
        type=float,
        help="seconds of the window (default: offline 600, online 1800, or to the last of --requests)",
    )
    option("--seed", type=int, default=0, help="of lengths, arrivals and draws (default: 0)")
    option("--requests", metavar="FILE", help="requests of your own, .csv or .csv.gz")
    option("--rate", type=float, help="online: prompt and decode tokens that arrive per second")
    option("--watch", type=float, default=0, metavar="S", help="a row of figures every S simulated seconds")
    option("--estimate", action="store_true", help="only say how long it would take and with what memory")
    option("--on-full", choices=("wait", "drop"), default="wait", help="without room (default: wait)")
    option(
        "--small-links",
        choices=SMALL_LINKS,
        default=SMALL_LINKS[0],
        help=f"helix: links it does not use, by rule (default: {SMALL_LINKS[0]})",
    )
    option("--execution", default="greedy", help=f"{', '.join(EXECUTION_NAMES)} (default: greedy)")
    for name, summary in CHUNKED_OPTIONS.items():
        option(f"--{name.replace('_', '-')}", type=int, metavar="N", help=f"chunked: {summary}")
    option("-o", dest="output", metavar="DIR", help="write the result into this folder")


def _explain_options(option: Any) -> None:
    option("result", metavar="RESULT_DIR", help="the folder that simulate -o wrote")
    option("--json", action="store_true", help="print one JSON object")


def _reproduce_options(option: Any) -> None:
    option("--scale", choices=("smoke", "full"), default="full", help="(default: full)")
    option(
        "--figure", nargs="+", metavar="N", help="only what makes these figures of the paper: 5, 7a, table8"
    )
    option("--jobs", type=int, default=2, help="notebooks at a time (default: 2)")
    option(
        "--seeds", type=int, help="seeds that means are taken over (default: as the notebook says, 3 or 5)"
    )
    option("--replan", action="store_true", help="search anew for the plans that ship with helixlab")
    option("--notebooks", metavar="DIR", default="notebooks", help="(default: notebooks)")
    option("--output", metavar="DIR", help="(default: figures, at smoke scale figures/smoke)")


def _subject_options(option: Any) -> None:
    option("--cluster", required=True, help="a bundled name, or a .json or .ini file")
    option("--model", required=True, help="a bundled name, or a .json file")
    option("--json", action="store_true", help="print one JSON object")


_SUMMARIES: Final = {
    "list": "What helixlab brings along.",
    "plan": "Plan which node holds which layers.",
    "flow": "Maximum flow of a placement, and what binds it.",
    "simulate": "Simulate serving a workload.",
    "explain": "Say what kept a run from serving more.",
    "reproduce": "Run the notebooks that make every figure and number.",
}
_OPTIONS: Final[dict[str, Callable[[Any], None]]] = {
    "plan": _plan_options,
    "flow": _flow_options,
    "simulate": _simulate_options,
    "explain": _explain_options,
    "reproduce": _reproduce_options,
}


WIDTH: Final = 100
"""At which lines of text are broken, unless the terminal is narrower."""


def print_json(content: dict[str, Any]) -> None:
    """One JSON object."""
    print(json.dumps(json_ready(content), indent=1, allow_nan=False))


def print_figures(figures: dict[str, Any]) -> None:
    """One figure a line."""
    width = max(map(len, figures))
    for name, value in figures.items():
        print(f"{name:{width}}  {f'{value:.6g}' if isinstance(value, float) else value}")


def print_paragraph(text: str, indent: str = "") -> None:
    """Text, its lines as long as the terminal is wide."""
    width = min(WIDTH, shutil.get_terminal_size((WIDTH, 24)).columns)
    print(textwrap.fill(text, width, initial_indent=indent, subsequent_indent=indent))


def print_table(table: pd.DataFrame) -> None:
    """A table, its columns aligned."""
    print(table.to_string(index=False, float_format="{:.4g}".format))


def print_findings(findings: Iterable[Finding]) -> None:
    """One finding a paragraph, numbered: its cause and cost, what is the case, what could be done."""
    for at, finding in enumerate(findings, 1):
        print(f"{at}. {finding.cause} (cost {finding.cost:.1%})")
        for text in (finding.text, finding.suggestion):
            print_paragraph(text, "   ")


WARMUP_S: Final = {"offline": 60.0, "online": 0.0}
DURATION_S: Final = {"offline": 600.0, "online": None}
"""Online the library knows: 1800, or until the last of the given requests."""
"""What the paper measures."""
OK, FAILED, INTERRUPTED, BROKEN_PIPE = 0, 2, 130, 141


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    arguments : sequence of str, optional
        What follows ``helixlab``; by default those of the process.

    Returns
    -------
    int
        0; 2 after an error, which is one line on stderr; 130 after Ctrl-C; 141 if nobody reads the output.

    Examples
    --------
    >>> subject = ["--cluster", "small10", "--model", "llama-1-30b"]
    >>> main(["flow", *subject, "--placement", "small10/llama-1-30b/helix"])
    286.6 tokens/s through small10/llama-1-30b/helix, bound by:
        kind sender receiver  capacity_tokens_per_s
     compute      8        8                  286.6
    0
    """
    for stream in ("stdout", "stderr"):
        if getattr(sys, stream) is None:  # it was closed: then nobody reads it
            setattr(sys, stream, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
    try:
        asked = parser(VERBS).parse_args(arguments)
        with warnings.catch_warnings():
            warnings.showwarning = _warn
            asked.run(asked)
        sys.stdout.flush()
        if getattr(asked, "stopped", False):
            return INTERRUPTED
    except HelixlabError as error:
        return _failed(str(error))
    except BrokenPipeError:
        _drop_output()
        return BROKEN_PIPE
    except OSError as error:
        _drop_output()
        return _failed(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}")
    except MemoryError:
        return _failed(
            "memory ran out; end other programs, or ask for less: a shorter duration or fewer requests"
        )
    except KeyboardInterrupt:
        print("helixlab: interrupted", file=sys.stderr)
        return INTERRUPTED
    return OK


def _warn(message: Warning | str, *where: Any, **file: Any) -> None:
    print("helixlab: warning:", " ".join(str(message).splitlines()), file=sys.stderr)


def _failed(message: str) -> int:
    with suppress(OSError):  # nobody may be left to read it
        print("helixlab:", " ".join(message.splitlines()), file=sys.stderr)
    return FAILED


def _drop_output() -> None:
    """Python would try once more, and noisily, to write what could not be written."""
    with suppress(OSError, ValueError):
        output = sys.stdout.fileno()
        os.dup2(os.open(os.devnull, os.O_WRONLY), output)


# The verbs


def _list(asked: argparse.Namespace) -> None:
    for what, names in {
        "clusters": cluster_names(),
        "models": model_names(),
        "placements": placement_names(),
        "traces": trace_names(),
        "schedulers": SCHEDULER_NAMES,
        "execution policies": EXECUTION_NAMES,
        "planners": sorted(METHODS),
    }.items():
        print(f"{what}:", *names, sep="\n  ")


def _plan(asked: argparse.Namespace) -> None:
    cluster, model = load_cluster(asked.cluster), load_model(asked.model)
    placement = plan(
        cluster,
        model,
        method=asked.method,
        **{name: getattr(asked, name) for name in ("objective", "execution") if getattr(asked, name)},
        time_limit_s=asked.time_limit,
        rng=asked.seed,
    )
    value, report = max_flow(cluster, model, placement).value_tokens_per_s, placement.report
    assert report is not None, "plan reports"
    bound = report.upper_bound_tokens_per_s
    if not placement.kv_capacity_token_layers:  # it does not cover overfilled nodes
        bound = min(bound or math.inf, upper_bound(cluster, model))
    nodes = placement.to_frame(cluster)
    figures = {
        "placement": shown_name(placement),
        "max_flow_tokens_per_s": value,
        "upper_bound_tokens_per_s": bound,
        "gap": bound / value - 1 if bound is not None and value > 0 else None,
        "status": report.status,
        "wall_s": report.wall_s,
    }
    if report.status == "interrupted":
        asked.stopped = True
    if asked.output:
        save_placement(placement, asked.output)
    if asked.json:
        print_json(figures | {"nodes": nodes.to_dict("records"), "trace": report.trace})
    else:
        print_figures(figures)
        print_table(nodes)


def _flow(asked: argparse.Namespace) -> None:
    cluster, model = load_cluster(asked.cluster), load_model(asked.model)
    placement = _placement(asked.placement, cluster, model)
    flow = max_flow(cluster, model, placement, small_links=asked.small_links)
    left_out = None
    if asked.small_links is not None:
        left_out = max_flow(cluster, model, placement).left_out(asked.small_links)
    if asked.json:
        tables = {name: getattr(flow, name).to_dict("records") for name in ("bottlenecks", "nodes", "links")}
        values = dict.fromkeys(("value_tokens_per_s", "max_flow_tokens_per_s"), flow.value_tokens_per_s)
        if left_out is not None:
            tables["left_out"] = left_out.to_dict("records")
        print_json({"placement": flow.placement} | values | tables)
    else:
        print(f"{flow.value_tokens_per_s:.1f} tokens/s through {flow.placement}, bound by:")
        print_table(flow.bottlenecks)
        if left_out is not None:
            carried = left_out["flow_tokens_per_s"].sum()
            print(f"links left out: {len(left_out)}, of {carried:.1f} tokens/s in the maximum flow")


def _simulate(asked: argparse.Namespace) -> None:
    cluster, model = load_cluster(asked.cluster), load_model(asked.model)
    placement, workload = _placement(asked.placement, cluster, model), _workload(asked)
    scheduler = _known("scheduler", asked.scheduler, SCHEDULER_NAMES)
    execution: Any = _known("execution policy", asked.execution, EXECUTION_NAMES)
    limits = {name: value for name in CHUNKED_OPTIONS if (value := getattr(asked, name)) is not None}
    if limits and execution != "chunked":
        raise UsageError(f"--{next(iter(limits)).replace('_', '-')} is for --execution chunked")
    if asked.output:
        hx.Result.check_target(asked.output)
    if limits:
        execution = hx.chunked(**limits)
    subject = (cluster, model, placement)
    how = {"workload": workload, "scheduler": scheduler, "execution": execution, "on_full": asked.on_full}
    how["small_links"] = asked.small_links
    how["keep_breakdown"] = bool(asked.output)  # what is kept can be explained
    if asked.estimate:
        foretold = hx.estimate(*subject, **how)
        print_json(asdict(foretold)) if asked.json else print(foretold)
        return
    with redirect_stdout(sys.stderr if asked.json else sys.stdout):  # what --watch prints
        result = hx.simulate(*subject, **how, watch_step_s=asked.watch)
    if result.summary["partial"].item():
        asked.stopped = True
        warnings.warn("interrupted; the figures are of the part that was simulated", stacklevel=2)
    failure = None
    if asked.output:
        try:
            result.save(asked.output)
        except SimulationError as error:  # a full disk costs no figures
            failure = error
    if asked.json:
        print_json(result.figures())
    else:
        print_paragraph(result.origin)
        print()
        print_figures({str(name): value for name, value in result.summary.iloc[0].items()})
        print_table(result.nodes[["node", "machine", "kv_used_fraction", "busy_fraction"]])
    if failure is not None:
        raise failure


def _explain(asked: argparse.Namespace) -> None:
    result = hx.load_result(asked.result)
    findings = hx.diagnose(result)
    if asked.json:
        print_json({"result": repr(result), "findings": [finding.to_dict() for finding in findings]})
        return
    for text in (repr(result), result.origin):
        print_paragraph(text)
    print()
    print_findings(findings)
    if not findings:
        print("Nothing to find: the run serves what its machines can.")


def _reproduce(asked: argparse.Namespace) -> None:
    done = reproduce.reproduce(
        asked.notebooks,
        scale=asked.scale,
        figures=asked.figure,
        seeds=asked.seeds,
        n_jobs=asked.jobs,
        replan=asked.replan,
        output=asked.output,
    )
    print_table(done)


def _placement(name: str, cluster: Cluster, model: Model) -> Placement:
    return read_placement_ini(name, cluster, model) if name.endswith(".ini") else load_placement(name)


def _known(what: str, name: str, names: Sequence[str]) -> str:
    """A wrong name is told before anything is loaded or compiled."""
    if name not in names:
        raise UnknownNameError(what, name, names)
    return name


def _workload(asked: argparse.Namespace) -> Workload:
    warmup_s = WARMUP_S[asked.mode] if asked.warmup is None else asked.warmup
    duration_s = DURATION_S[asked.mode] if asked.duration is None else asked.duration
    common: dict[str, Any] = {"warmup_s": warmup_s, "duration_s": duration_s, "rng": asked.seed}
    if asked.rate is not None and asked.requests is not None:
        raise UsageError("--rate and --requests exclude each other; give one")
    if asked.mode == "online":
        if asked.initial is not None:
            raise UsageError("--initial is for --mode offline; online, requests come by --rate or --requests")
        return online(rate_tokens_per_s=asked.rate, requests=asked.requests, **common)
    if asked.rate is not None:
        raise UsageError("--rate is for --mode online; offline, the system is kept busy, see --initial")
    initial = 20 if asked.initial is None else asked.initial
    return offline(initial_requests=initial, requests=asked.requests, **common)


VERBS: Final = {
    "list": _list,
    "plan": _plan,
    "flow": _flow,
    "simulate": _simulate,
    "explain": _explain,
    "reproduce": _reproduce,
}
