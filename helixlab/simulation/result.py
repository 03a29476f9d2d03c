"""The Result of a simulation: tidy tables, and all that is needed to run it again."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from helixlab._equality import ByContent
from helixlab._html import card
from helixlab._interrupts import loaded
from helixlab._io import content_hash, json_ready, write_text
from helixlab.errors import SimulationError, memory_for
from helixlab.simulation.provenance import library_in_words, unusual_in_words

__all__ = ["FORMAT", "TABLES", "VERSION", "Result", "bytes_hash"]

FORMAT, VERSION = "helixlab-result", 6
TABLES = (
    "summary",
    "iterations",
    "requests",
    "batches",
    "nodes",
    "links",
    "bottlenecks",
    "timeline",
    "node_timeline",
)


@dataclass(frozen=True, eq=False)
class Result(ByContent):
    """What a simulation gave.

    Parameters
    ----------
    summary : DataFrame
        One row: what ran, throughput, latencies, counts. Figures are of the measured window.
    iterations : DataFrame
        One row a finished iteration: request, iteration (0 is the prompt), tokens, start_s, end_s, latency_s.
        Empty if they were not kept. With ``keep_breakdown`` also where the latency went, in parts that add
        up to it: see Notes.
    requests : DataFrame
        One row a request that ended: request, input_tokens, output_tokens, arrival_s, prompt_done_s, end_s,
        outcome (``"finished"``, ``"dropped"``, ``"refused"``), reason (why it was refused).
    batches : DataFrame
        One row a batch from one layer where requests may enter to the next: node, first_layer, layers,
        prompts, prompt_tokens, decodes, start_s, end_s. Empty unless they were kept.
    nodes : DataFrame
        One row a node: node, machine, first_layer, end_layer, potential_tokens_per_s (what it could add with
        the layers that suit it best), capacity and maximum flow in tokens/s, KV capacity and use at the end,
        and of the window: busy_fraction, batches, tokens, and with ``keep_breakdown`` the seconds that
        requests together waited there (batch_wait_s, kv_wait_s).
    links : DataFrame
        One row a link: sender, receiver, flow_tokens_per_s, capacity_tokens_per_s, of the window
        tokens_per_s, busy_fraction and wait_s (as for nodes), how often the helix scheduler considered to
        send a prompt by it (considered), and left it out because the receiver's KV cache was expected to be
        too full (kv_masked) or the prompt does not fit in one batch there (batch_masked).
    bottlenecks : DataFrame
        What binds the maximum flow, see `Flow`.
    timeline : DataFrame
        One row a sample: time_s, requests in flight, held and finished, prompt and decode tokens so
        far, prompt and decode tokens/s since the last sample, expected KV use of the bottleneck layer.
        Samples in whose step nothing happened are left out, see Notes.
    node_timeline : DataFrame
        One row a sample and node: time_s, node, kv_used_fraction, kv_expected_fraction, busy_fraction since
        the last sample.
    provenance : dict
        Cluster, model, placement, scheduler, workload, versions, with content hashes.

    Notes
    -----
    Times are simulated seconds; the window starts when the models are loaded and the warm-up is over.
    ``total_tokens_per_s`` of the summary is of the whole run, as the reference prints it: all tokens, those
    of the warm-up included, over the time from loading the models to the last iteration.
    Samples are taken every ``sample_step_s`` from the start to the end of the window, or of the run, if that
    is later. Of a stretch in which nothing happens three rows are kept: the first sample in it, the next, and
    the last. All that are left out equal the row before, so weigh rows by the time to the next one for means
    over time. ``requests_outside_window`` of the summary counts requests that came, online, before or after
    the measured window; in the warm-up, for instance.
    Every table has `origin` in its ``attrs``, which goes with what is made of that table alone.
    The summary of a run that was stopped says ``partial``: its window ends where it was stopped, and begins
    with the run if that was during the warm-up.

    The parts of an iteration's latency: ``held_s`` (at the coordinator, without room in the KV caches),
    ``lost_s`` (to a preemption: work thrown away, and computed again), ``link_wait_s``, ``sending_s``,
    ``link_latency_s``, ``batch_wait_s`` (at nodes, for its turn), ``kv_wait_s`` (at nodes, from the moment
    there was no room in the KV cache), ``overhead_s`` (of bringing activations together, at a node's first
    layer), ``compute_s``. A prompt in chunks has the parts of its last chunk to come back, which waits
    at the coordinator's links while those before it are sent.
    """

    summary: pd.DataFrame
    iterations: pd.DataFrame
    requests: pd.DataFrame
    batches: pd.DataFrame
    nodes: pd.DataFrame
    links: pd.DataFrame
    bottlenecks: pd.DataFrame
    timeline: pd.DataFrame
    node_timeline: pd.DataFrame
    provenance: dict[str, Any]

    def __post_init__(self) -> None:
        origin = self.origin
        for name in TABLES:
            table = getattr(self, name).copy(deep=False)  # whoever else has the table has it as it was
            table.attrs["origin"] = origin
            object.__setattr__(self, name, table)

    def _repr_html_(self) -> str:
        row = self.summary.iloc[0]
        shown = (
            "placement", "placement_hash", "cluster", "model", "scheduler", "execution", "mode", "on_full",
            "seed", "partial",
            "decode_tokens_per_s", "prompt_latency_mean_s", "decode_latency_mean_s", "requests_finished",
            "requests_in_flight", "requests_queued", "requests_outside_window", "max_flow_tokens_per_s",
            "upper_bound_tokens_per_s",
        )  # fmt: skip
        columns = ["node", "machine", "busy_fraction", "kv_used_fraction", "tokens"]
        heading = "Partial result" if row["partial"] else "Result"
        return card(heading, {name: row[name] for name in shown}, self.nodes[columns], self.origin)

    def __repr__(self) -> str:
        row = self.summary.iloc[0]
        what = "Partial result" if row["partial"] else "Result"
        dropped = ", requests dropped on full" if row["on_full"] == "drop" else ""
        left_out = ""
        if self.provenance["workload"]["requests_hash"] and row["requests_outside_window"]:
            outside, fed = row["requests_outside_window"], row["requests_fed"]
            left_out = f"; {outside} of {fed} requests outside the window"
        # The names of cluster and model are part of most placements' names, but not that they are marked.
        on = "".join(f" on {row[part]}" for part in ("cluster", "model") if "@" in row[part])
        return (
            f"{what}({row['placement']}{on} with {row['scheduler']}, {row['mode']}{dropped}:"
            f" {row['decode_tokens_per_s']:.1f} decode tokens/s, prompt {row['prompt_latency_mean_s']:.3f} s,"
            f" decode {row['decode_latency_mean_s']:.3f} s{left_out})"
        )

    @property
    def metrics(self) -> pd.Series:
        """Numbers and names of the run, by name: the one row of `summary`.

        Examples
        --------
        >>> import helixlab as hx
        >>> cluster, model = hx.load_cluster("small10"), hx.load_model("llama-1-30b")
        >>> placement = hx.load_placement("small10/llama-1-30b/helix")
        >>> result = hx.simulate(cluster, model, placement, workload=hx.offline(duration_s=60, rng=0))
        >>> int(result.metrics["requests_dropped"])
        0
        """
        return self.summary.iloc[0]

    @property
    def window_s(self) -> tuple[float, float]:
        """Start and end of the measured window, in simulated seconds."""
        return float(self.metrics["window_start_s"]), float(self.metrics["window_end_s"])

    def in_window(self, table: pd.DataFrame, *, by: str | None = None) -> pd.DataFrame:
        """Rows of a table of this result that fall into the measured window, its ends included.

        Parameters
        ----------
        table : DataFrame
            For instance `iterations`, `requests` or `timeline`.
        by : str, optional
            Column with the time that counts; by default ``time_s`` where there is one, else ``end_s``.

        Returns
        -------
        DataFrame

        Raises
        ------
        SimulationError
            The table has no such column.
        """
        column = by if by is not None else "time_s" if "time_s" in table else "end_s"
        if column not in table:
            raise SimulationError(
                f"the table has no column {column!r}; it has {', '.join(map(str, table))}, name one with by"
            )
        return table[table[column].between(*self.window_s)]

    @property
    def serving_nodes(self) -> pd.DataFrame:
        """Rows of `nodes` that hold layers."""
        return self.nodes[self.nodes["end_layer"] > self.nodes["first_layer"]]

    @property
    def origin(self) -> str:
        """What ran, in one line: whether it is partial, names with content hashes, workload, seed, versions.

        Settings that change results are told where they are not the usual ones.

        Examples
        --------
        >>> import helixlab as hx
        >>> cluster, model = hx.load_cluster("small10"), hx.load_model("llama-1-30b")
        >>> placement = hx.load_placement("small10/llama-1-30b/helix")
        >>> result = hx.simulate(cluster, model, placement, workload=hx.offline(duration_s=10, warmup_s=0))
        >>> result.origin.split("; ")[0]
        'placement small10/llama-1-30b/helix (d65a6af2)'
        """
        source = self.provenance
        parts = ["partial"] if self.summary["partial"].item() else []
        for what in ("placement", "cluster", "model", "scheduler", "execution"):
            part = source[what]
            parts.append(f"{what} {part['name']} ({(part['hash'] or 'content unknown')[:8]})")
        workload, versions = source["workload"], source["versions"]
        requests = workload["requests_hash"]
        parts.append(f"{workload['mode']}, {f'requests {requests[:8]}' if requests else workload['trace']}")
        for key, unit in (("rate_tokens_per_s", "tokens/s"), ("initial_requests", "requests at first")):
            if workload[key] and (key == "rate_tokens_per_s" or workload["mode"] == "offline"):
                parts.append(f"{workload[key]:g} {unit}")
        parts += [
            f"{workload['duration_s']:g} s after {workload['warmup_s']:g} s",
            f"seed {workload['seed']}",
            *unusual_in_words(workload, source["settings"]),
        ]
        parts.append(f"helixlab {library_in_words(versions)}")
        return "; ".join(parts)

    def plot_timeline(self, *, step_s: float | None = None) -> Any:
        """Draw the run over time: requests, tokens/s, KV caches and busy nodes, with what ran below.

        Parameters
        ----------
        step_s : float, optional
            A multiple of the step at which the run was recorded, which is the default.

        Returns
        -------
        array of matplotlib.axes.Axes
            Two rows of two panels.

        Raises
        ------
        SimulationError
            The run has no timeline, or the step is no multiple of its own.
        """
        return loaded("helixlab.plotting").plot_timeline(self, step_s=step_s)

    def figures(self) -> dict[str, Any]:
        """The summary as plain data with the nodes' KV use and busy fraction: the command line's JSON."""
        plain = json.loads(self.summary.to_json(orient="records", double_precision=15))[0]
        exact = {
            key: value.item() if hasattr(value, "item") else value
            for key, value in self.summary.iloc[0].items()
        }
        plain |= exact
        plain["nodes"] = self.nodes[["node", "machine", "kv_used_fraction", "busy_fraction"]].to_dict(
            "records"
        )
        plain["provenance"] = self.provenance
        return dict(json_ready(plain))

    @staticmethod
    def check_target(folder: str | os.PathLike[str]) -> None:
        """Whether a result may be saved there: nothing, an empty folder, or an earlier result.

        Raises
        ------
        SimulationError
            Something else is there.
        """
        target = Path(folder)
        above = next(parent for parent in target.absolute().parents if parent.exists())
        if not above.is_dir():
            raise SimulationError(f"{target} cannot be made, as {above} is no folder; give another path")
        if not target.exists():
            return
        inside = sorted(entry.name for entry in target.iterdir()) if target.is_dir() else []
        if not target.is_dir() or (inside and "result.json" not in inside):
            raise SimulationError(f"{target} exists and is not a result folder; give another path")
        strangers = sorted(set(inside) - {"result.json", *(f"{name}.parquet" for name in TABLES)})
        if strangers:
            raise SimulationError(
                f"{target} holds other files too ({strangers[0]}); move them or give another path"
            )

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the tables as parquet and the provenance as JSON into folder `path`, at once.

        Raises
        ------
        SimulationError
            `path` exists and is not a result folder, or cannot be written.
        """
        target = Path(path)
        self.check_target(target)
        try:
            with memory_for("writing the result", "keep_iterations=False or a shorter duration_s need less"):
                self._write(target)
        except OSError as error:
            raise SimulationError(
                f"the result cannot be written into {target} ({error.strerror or error}); give another path"
            ) from None
        return target

    def _write(self, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
        fresh, old = beside / "fresh", beside / "old"
        try:
            fresh.mkdir()
            for name in TABLES:
                # Arrow itself cannot open paths that the locale has no characters for.
                with (fresh / f"{name}.parquet").open("wb") as file:
                    _storable(getattr(self, name)).to_parquet(file, index=False)
            source = json_ready(self.provenance)
            content = {"format": FORMAT, "version": VERSION, "provenance": source}
            content["provenance_hash"] = content_hash(source)
            content["tables"] = {
                name: bytes_hash((fresh / f"{name}.parquet").read_bytes()) for name in TABLES
            }
            write_text(fresh / "result.json", json.dumps(json_ready(content), indent=1) + "\n")
            if target.exists():
                os.replace(target, old)
            os.replace(fresh, target)
        finally:
            if old.exists() and not target.exists():
                os.replace(old, target)
            shutil.rmtree(beside, ignore_errors=True)


def _storable(table: pd.DataFrame) -> pd.DataFrame:
    """Ends of links are numbers or the coordinator; as text they fit one column."""
    ends = [name for name in ("sender", "receiver") if name in table]
    return table.assign(**{name: table[name].astype(str) for name in ends})


def bytes_hash(content: bytes) -> str:
    """What the file of a table consists of."""
    return hashlib.sha256(content).hexdigest()
