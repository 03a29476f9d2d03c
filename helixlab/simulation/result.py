"""The Result of a simulation: tidy tables, and all that is needed to run it again."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pandas as pd

from helixlab._equality import ByContent
from helixlab._html import card
from helixlab._interrupts import loaded
from helixlab._io import content_hash, json_ready, write_text
from helixlab._validation import shown
from helixlab.errors import SimulationError, memory_for
from helixlab.simulation.columns import COLUMNS, TABLES
from helixlab.simulation.provenance import library_in_words, unusual_in_words

__all__ = ["FORMAT", "VERSION", "Result", "bytes_hash"]

FORMAT: Final = "helixlab-result"
VERSION: Final = 7
"""Version of the saved format; results of other versions are refused."""


@dataclass(frozen=True, eq=False)
class Result(ByContent):
    """The result of a simulation.

    `Result.describe` lists the columns of every table with type, unit and meaning.

    Parameters
    ----------
    summary : DataFrame
        One row: what ran, throughput, latencies, counts. Throughput and latencies are those of the measured
        window.
    iterations : DataFrame
        One row per finished iteration: the prompt of a request, or one of its decodes. Empty if the
        iterations were not kept. With ``keep_breakdown`` also the parts of the latency, which add up to it.
    requests : DataFrame
        One row per request that ended: lengths, times, latencies, outcome.
    batches : DataFrame
        One row per batch and stretch of layers, from one layer where requests may enter to the next. Empty
        unless the batches were kept.
    nodes : DataFrame
        One row per node: layers, maximum flow, KV cache at the end; batches, tokens and busy time of the
        window.
    links : DataFrame
        One row per link: maximum flow, and what was sent in the window.
    bottlenecks : DataFrame
        The bottlenecks of the maximum flow, see `Flow`.
    timeline : DataFrame
        One row per sample: requests, tokens, expected KV use.
    node_timeline : DataFrame
        One row per sample and node: KV use and busy time.
    provenance : dict
        Cluster, model, placement, scheduler, workload, versions, with content hashes.

    Notes
    -----
    Times are simulated seconds. The window starts when the models are loaded and the warm-up is over.
    ``total_tokens_per_s`` of the summary covers the whole run, as the reference prints it: all tokens, those
    of the warm-up included, over the time of the last iteration.

    The summary has latencies of two kinds. The paper's prompt and decode latency are those of the iterations
    that ended in the window: ``prompt_latency_{mean,p5,p25,p50,p75,p95}_s``, ``decode_latency_...``. TTFT,
    TPOT and end-to-end latency are those of the finished requests that ended in the window:
    ``ttft_{mean,p50,p90,p95,p99}_s``, ``tpot_...``, ``e2e_...``. All percentiles are values that occur, see
    `helixlab.simulation.metrics.percentile`.

    Each request has its time to first token ``ttft_s``, from arrival to the end of the prompt, its time per
    output token ``tpot_s`` after that, and its end-to-end latency ``e2e_s``, from arrival to end. A value is
    NaN where the request did not get that far.

    Samples are taken every ``sample_step_s`` from the start to the end of the window or of the run, whichever
    is later. Where nothing happens, three rows are kept: the first sample, the next, and the last. Those left
    out equal the row before, so weight rows by the time to the next one for means over time.

    Every table has `origin` in its ``attrs``, which stays with whatever is made of that table alone.
    The summary of a run that was stopped says ``partial``: its window ends where the run was stopped, and
    starts with the run if that was during the warm-up.

    The parts of the latency of a prompt in chunks are those of its last chunk to come back, which waits at
    the coordinator's links while those before it are sent.
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
            table = getattr(self, name).copy(deep=False)  # the caller's table keeps its own attrs
            table.attrs["origin"] = origin
            object.__setattr__(self, name, table)

    def _repr_html_(self) -> str:
        metrics = self.metrics
        names = (
            "placement", "placement_hash", "cluster", "model", "scheduler", "execution", "mode", "on_full",
            "seed", "partial",
            "decode_tokens_per_s", "prompt_latency_mean_s", "decode_latency_mean_s", "requests_finished",
            "requests_in_flight", "requests_queued", "requests_outside_window", "max_flow_tokens_per_s",
            "upper_bound_tokens_per_s",
        )  # fmt: skip
        columns = ["node", "machine", "busy_fraction", "kv_used_fraction", "tokens"]
        heading = "Partial result" if metrics["partial"] else "Result"
        return card(heading, {name: metrics[name] for name in names}, self.nodes[columns], self.origin)

    def __repr__(self) -> str:
        row = self.metrics
        heading = "Partial result" if row["partial"] else "Result"
        dropped = ", requests dropped on full" if row["on_full"] == "drop" else ""
        left_out = ""
        if self.provenance["workload"]["requests_hash"] and row["requests_outside_window"]:
            outside, fed = row["requests_outside_window"], row["requests_fed"]
            left_out = f"; {outside} of {fed} requests outside the window"
        # Most names of placements contain those of cluster and model, but not their marks (an @ and a hash).
        on = "".join(f" on {row[part]}" for part in ("cluster", "model") if "@" in row[part])
        return (
            f"{heading}({row['placement']}{on} with {row['scheduler']}, {row['mode']}{dropped}:"
            f" {row['decode_tokens_per_s']:.1f} decode tokens/s, prompt {row['prompt_latency_mean_s']:.3f} s,"
            f" decode {row['decode_latency_mean_s']:.3f} s{left_out})"
        )

    @property
    def metrics(self) -> pd.Series:
        """The metrics and settings of the run by name: the one row of `summary`.

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
        """The start and end of the measured window, in simulated seconds."""
        return float(self.metrics["window_start_s"]), float(self.metrics["window_end_s"])

    def in_window(self, table: pd.DataFrame, *, by: str | None = None) -> pd.DataFrame:
        """Return the rows of a table that fall into the measured window, its ends included.

        Parameters
        ----------
        table : DataFrame
            Table of this result, for instance `iterations`, `requests` or `timeline`.
        by : str, optional
            Name of the column with the time that counts; by default ``time_s`` if the table has it, else
            ``end_s``.

        Returns
        -------
        DataFrame

        Raises
        ------
        SimulationError
            There is no table, or it has no such column.
        """
        if not isinstance(table, pd.DataFrame):
            raise SimulationError(
                f"table is {table!r:.60}; give a table of this result, such as its iterations"
            )
        column = by if by is not None else "time_s" if "time_s" in table else "end_s"
        if column not in table:
            raise SimulationError(
                f"the table has no column {column!r}; it has {', '.join(map(str, table))}, name one with by"
            )
        return table[table[column].between(*self.window_s)]

    @property
    def serving_nodes(self) -> pd.DataFrame:
        """The rows of `nodes` that hold layers."""
        return self.nodes[self.nodes["end_layer"] > self.nodes["first_layer"]]

    @property
    def origin(self) -> str:
        """One line that says what ran: names with content hashes, workload, seed, versions.

        It begins with ``partial`` if the run was stopped. Settings that change results are named where they
        are not the usual ones.

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
        parts = ["partial"] if self.metrics["partial"] else []
        for name in ("placement", "cluster", "model", "scheduler", "execution"):
            part = source[name]
            parts.append(f"{name} {part['name']} ({(part['hash'] or 'content unknown')[:8]})")
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
            f"helixlab {library_in_words(versions)}",
        ]
        return "; ".join(parts)

    @staticmethod
    def describe(table: str | None = None) -> pd.DataFrame:
        """Describe the columns of a table, or of all tables.

        Parameters
        ----------
        table : str, optional
            Name of the table, for instance ``"requests"``; all tables by default.

        Returns
        -------
        DataFrame
            One row per column: table, column, type, unit, description. Columns that are empty or missing
            without ``keep_breakdown`` say so.

        Raises
        ------
        SimulationError
            A result has no such table.

        Examples
        --------
        >>> Result.describe("requests").set_index("column").loc["tpot_s", "unit"]
        's'
        """
        if table is not None and table not in TABLES:
            raise SimulationError(f"table is {shown(table)}; give one of {', '.join(TABLES)}")
        rows = [
            (name, *column) for name in ([table] if table is not None else TABLES) for column in COLUMNS[name]
        ]
        return pd.DataFrame(rows, columns=["table", "column", "type", "unit", "description"])

    def plot_timeline(self, *, step_s: float | None = None) -> Any:
        """Draw the run over time: requests, tokens/s, KV caches and busy nodes, with what ran below.

        Parameters
        ----------
        step_s : float, optional
            Step of the drawing, a multiple of the step at which the run was recorded; that step by default.

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

    def to_dict(self) -> dict[str, Any]:
        """Return the metrics as plain data, with provenance and each node's KV use and busy fraction.

        This is what ``helixlab simulate --json`` prints.
        """
        plain: dict[str, Any] = {
            str(name): value.item() if hasattr(value, "item") else value
            for name, value in self.metrics.items()
        }
        columns = ["node", "machine", "kv_used_fraction", "busy_fraction"]
        plain["nodes"] = self.nodes[columns].to_dict("records")
        plain["provenance"] = self.provenance
        return dict(json_ready(plain))

    @staticmethod
    def check_target(folder: str | os.PathLike[str]) -> None:
        """Check that a result may be saved there: to no folder yet, an empty one, or over an earlier result.

        Parameters
        ----------
        folder : path
            Path of the folder.

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
        others = sorted(set(inside) - {"result.json", *(f"{name}.parquet" for name in TABLES)})
        if others:
            raise SimulationError(
                f"{target} holds other files too ({others[0]}); move them or give another path"
            )

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the tables as parquet and the provenance as JSON into a folder, all or nothing.

        Parameters
        ----------
        path : path
            Path of the folder.

        Returns
        -------
        Path

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
    """Write the ends of links as text, as a parquet column cannot mix numbers and names."""
    ends = [name for name in ("sender", "receiver") if name in table]
    return table.assign(**{name: table[name].astype(str) for name in ends})


def bytes_hash(content: bytes) -> str:
    """Return the hash of the content of a file."""
    return hashlib.sha256(content).hexdigest()
