"""The words of the command line: its verbs, their options, and what each of these says of itself."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any, Final, NoReturn

from helixlab.errors import HelixlabError

__all__ = ["CHUNKED_OPTIONS", "EXECUTION_NAMES", "SCHEDULER_NAMES", "SMALL_LINKS", "UsageError", "parser"]

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
        "--initial", type=int, help="offline: queries at the start, or in flight but for helix (default: 20)"
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
