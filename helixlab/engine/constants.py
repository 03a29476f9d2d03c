"""Names of the numbers in the engine's tables: statuses, events, outcomes, errors, each with its text.

Compiled code treats the members of these enums as plain integers; texts are for tables and messages.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from helixlab.errors import HelixlabError, SchedulingError, SimulationError

__all__ = [
    "NODE_SAMPLES",
    "PARTS",
    "EngineError",
    "EventKind",
    "FollowUp",
    "KvAnswer",
    "Outcome",
    "Part",
    "Reason",
    "Status",
]


class Status(IntEnum):
    """Reasons why `helixlab.engine.loop.advance` returns."""

    DONE = 0
    """No event is left."""
    PAUSED = 1
    """The next event is at the requested time or later."""
    FULL = 2
    """A table or a log is full, or enough events were handled: empty or enlarge the tables and go on."""
    NEEDS_ARRIVALS = 3
    """All arrivals in the table are used up."""
    ERROR = 4
    """The run cannot continue; ``run.error`` is an `EngineError`."""


class EventKind(IntEnum):
    """Kinds of events in the heap."""

    FEED = 0
    """A request arrives at the coordinator."""
    RETRY = 1
    """The coordinator tries queued requests again."""
    ARRIVE = 2
    """A work item reaches the end of its link."""
    SENT = 3
    """A link has sent its work item."""
    SEGMENT_DONE = 4
    """A node has run its batch up to the next layer at which work items may enter, or to its last layer."""


class FollowUp(IntEnum):
    """Actions at the instant of an event, taken after all events due at that instant."""

    SEND = 0
    """A node sends what is ready to leave."""
    START = 1
    """A node starts a batch if it is free."""
    GATHER = 2
    """The coordinator gathers the work items that came back."""
    ITERATE = 3
    """The coordinator starts the next iteration of a request."""
    ARRIVED = 4
    """A work item is at the end of a link without latency."""
    WAKE = 5
    """A node sends and starts, because requests have lost or freed KV cache."""


class KvAnswer(IntEnum):
    """Answers of a node to a work item that needs KV cache."""

    FITS = 0
    WAITS = 1
    NEVER = 2
    """The request needs more KV cache than the node has."""


class Outcome(IntEnum):
    """Ways in which a request ends, as in the column ``outcome`` of `Result.requests`."""

    FINISHED = 0
    DROPPED = 1
    REFUSED = 2

    @property
    def text(self) -> str:
        """Text in the column."""
        return self.name.lower()


class Reason(IntEnum):
    """Reasons why a request is refused, as in the column ``reason`` of `Result.requests`."""

    text: str

    def __new__(cls, value: int, text: str) -> Reason:
        """Make a member with a text."""
        member = int.__new__(cls, value)
        member._value_ = value
        member.text = text
        return member

    NO_REASON = 0, ""
    NO_PIPELINE = 1, "no pipeline has room for it, though nothing else is served"
    OVER_KV_CACHE = 2, "it needs more KV cache than a node on its way has"
    OVER_BATCH_LIMITS = 3, "it exceeds the batch limits of a node on its way"


class EngineError(IntEnum):
    """Errors that end a run, with the exception to raise and its text.

    The text has the fields ``{node}`` and ``{scheduler}``.
    """

    exception: type[HelixlabError]
    text: str

    def __new__(
        cls, value: int, exception: type[HelixlabError] = SimulationError, text: str = ""
    ) -> EngineError:
        """Make a member with an exception and a text."""
        member = int.__new__(cls, value)
        member._value_ = value
        member.exception, member.text = exception, text
        return member

    BAD_LINK = (
        1,
        SchedulingError,
        "scheduler {scheduler!r} chose a link that does not leave {node} or carries no flow; choose from"
        " first_link to first_link + links of the sender (with flow, if it follows it), or NONE",
    )
    OUTSIDE_PROFILE = (
        2,
        SimulationError,
        "{node} formed a batch larger than its profile was measured for; lower its batch limits or measure"
        " further",
    )


class Part(IntEnum):
    """Parts of the latency of an iteration, in the order of the columns of the engine's tables."""

    QUEUED = 0
    """At the coordinator, without KV cache."""
    LOST = 1
    """Work lost by a preemption, and doing it again."""
    LINK_WAIT = 2
    SENDING = 3
    LINK_LATENCY = 4
    BATCH_WAIT = 5
    KV_WAIT = 6
    OVERHEAD = 7
    COMPUTE = 8

    @property
    def column(self) -> str:
        """Name of the column in `Result.iterations`."""
        return f"{self.name.lower()}_s"


PARTS: Final = tuple(part.column for part in Part)
"""Columns of `Result.iterations` that add up to the latency."""
NODE_SAMPLES: Final = ("kv_used_token_layers", "kv_expected_token_layers", "busy_s")
"""Sampled columns of the nodes, in the order of the rows of ``node_samples``."""
