"""Measured behaviour of one machine type under one model: layer times and serving limits."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from helixlab._validation import LARGEST, as_items, as_number, as_whole, plain, shown
from helixlab.errors import ModelError

__all__ = ["KV_BLOCK_TOKENS", "BatchLimits", "MachineProfile", "check_number", "check_whole"]

KV_BLOCK_TOKENS: Final = 16
"""Tokens in one block of the paged KV cache."""
PROMPT_TOKENS_PER_REQUEST: Final = 2048
"""Prompt tokens that one prompt request of the batch limit stands for."""
CONTEXT_TOKENS_PER_DECODE: Final = 1000
"""KV-cache tokens that one decode token of the batch limit stands for."""
MOST_BATCH_TOKENS: Final = 10_000_000
"""Largest batch whose times are tabulated, see `MachineProfile.prompt_table_s`."""
MOST_PER_LAYERS: Final = 10**12
"""Largest serving limit that is accepted."""

_PER_LAYERS: Final = ("kv_blocks", "max_prompt_requests", "max_decode_tokens")
_COLUMNS: Final = (
    "prompt_batch_tokens",
    "prompt_layer_s",
    "decode_batch_tokens",
    "decode_layer_s",
    *_PER_LAYERS,
)


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """Limits of one batch on a node.

    Parameters
    ----------
    prompt_requests : int
        Number of requests in their prompt phase.
    prompt_tokens : int
        Number of tokens of those requests.
    decode_tokens : int
        Number of tokens of requests in their decode phase, one for each request.
    decode_context_tokens : int
        Number of tokens that the requests in their decode phase already have in the KV cache.
    """

    prompt_requests: int
    prompt_tokens: int
    decode_tokens: int
    decode_context_tokens: int


def check_number(value: object, what: str) -> float:
    """Check a number above 0; `what` names it in the error."""
    return as_number(value, what, above=0, most=LARGEST, error=ModelError)


def check_whole(value: object, what: str, most: int, least: int = 1) -> int:
    """Check a whole number from `least` to `most`; `what` names it in the error."""
    return as_whole(value, what, least=least, most=most, error=ModelError)


def _curve(
    what: str, tokens: tuple[Any, ...], seconds: tuple[Any, ...]
) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Check the batch sizes and times of a curve."""
    if len(tokens) != len(seconds) or len(tokens) < 2:
        raise ModelError(
            f"{what}: {len(tokens)} batch sizes and {len(seconds)} times; give two or more of each"
        )
    tokens = tuple(check_whole(n, f"{what}: a batch size", MOST_BATCH_TOKENS, least=0) for n in tokens)
    if tokens[0] != 0 or any(after <= before for before, after in pairwise(tokens)):
        raise ModelError(f"{what}: batch sizes {shown(tokens)} do not start at 0 and rise; sort them")
    if isinstance(seconds[0], bool) or seconds[0] != 0:
        raise ModelError(f"{what}: 0 tokens take {shown(seconds[0])} s; give 0")
    return tokens, (0.0, *(check_number(time, f"{what}: a time") for time in seconds[1:]))


@dataclass(frozen=True)
class MachineProfile:
    """Measurements of one machine type that runs layers of one model.

    Parameters
    ----------
    machine : str
        Name of the machine type.
    prompt_batch_tokens, prompt_layer_s : tuple
        Prompt tokens in the batch and time of one layer in seconds at each measured point; the first point is
        0 tokens, 0 s. Times in between are interpolated linearly.
    decode_batch_tokens, decode_layer_s : tuple
        The same points for decode tokens.
    kv_blocks : tuple of int
        ``kv_blocks[k - 1]``: number of blocks of 16 tokens in the KV cache of a node that holds k layers, for
        the GPU memory of the machine that was measured.
    max_prompt_requests, max_decode_tokens : tuple of int
        ``[k - 1]``: largest numbers of prompt requests and decode tokens in a batch on a node with k layers.
    typical_layers, typical_layers_when_tight : int
        Number of layers that such a machine typically holds, in a cluster with and without memory to spare.
    initial_relative_speed : float
        Start value of the throughput estimate, see `helixlab.model.throughput`.

    Examples
    --------
    >>> from helixlab.model import load_model
    >>> a100 = load_model("llama-2-70b").profile("A100")
    >>> a100
    MachineProfile('A100': up to 12 layers, batches of 11250 prompt and 800 decode tokens)
    >>> a100.max_layers, a100.kv_capacity_token_layers(12)
    (12, 3377472)
    >>> round(a100.layer_time_s(prompt_tokens=750, decode_tokens=4), 6)
    0.0064
    """

    machine: str
    prompt_batch_tokens: tuple[int, ...]
    prompt_layer_s: tuple[float, ...]
    decode_batch_tokens: tuple[int, ...]
    decode_layer_s: tuple[float, ...]
    kv_blocks: tuple[int, ...]
    max_prompt_requests: tuple[int, ...]
    max_decode_tokens: tuple[int, ...]
    typical_layers: int
    typical_layers_when_tight: int
    initial_relative_speed: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "machine", plain(self.machine))
        if not isinstance(self.machine, str) or not self.machine.strip() or not self.machine.isprintable():
            raise ModelError(
                f"a profile is of machine {shown(self.machine)}; give a printable, non-empty name"
            )
        for name in _COLUMNS:
            column = as_items(getattr(self, name), f"{name} of {self.machine}", error=ModelError)
            object.__setattr__(self, name, column)
        for phase in ("prompt", "decode"):
            names = f"{phase}_batch_tokens", f"{phase}_layer_s"
            curve = _curve(f"{phase} times of {self.machine}", *(getattr(self, name) for name in names))
            for name, column in zip(names, curve, strict=True):
                object.__setattr__(self, name, column)
        counts = {len(self.kv_blocks), len(self.max_prompt_requests), len(self.max_decode_tokens)}
        if len(counts) != 1 or 0 in counts:
            raise ModelError(f"serving limits of {self.machine}: give every limit for 1, 2, ... layers")
        for name in _PER_LAYERS:
            what = f"{name} of {self.machine}"
            column = tuple(check_whole(value, what, MOST_PER_LAYERS) for value in getattr(self, name))
            object.__setattr__(self, name, column)
        for name in ("typical_layers", "typical_layers_when_tight"):
            most = check_whole(getattr(self, name), f"{name} of {self.machine}", self.max_layers)
            object.__setattr__(self, name, most)
        speed = check_number(self.initial_relative_speed, f"initial_relative_speed of {self.machine}")
        object.__setattr__(self, "initial_relative_speed", speed)

    def __repr__(self) -> str:
        tokens = f"{self.prompt_batch_tokens[-1]} prompt and {self.decode_batch_tokens[-1]} decode tokens"
        return f"MachineProfile({self.machine!r}: up to {self.max_layers} layers, batches of {tokens})"

    @property
    def max_layers(self) -> int:
        """Largest number of layers that a node of this type may hold."""
        return len(self.kv_blocks)

    def kv_capacity_token_layers(self, layers: int) -> int:
        """Return the KV capacity of a node that holds `layers` layers, in tokens times layers."""
        layers = self._check_layers(layers)
        return KV_BLOCK_TOKENS * self.kv_blocks[layers - 1] * layers

    def batch_limits(self, layers: int) -> BatchLimits:
        """Return the limits of one batch on a node with `layers` layers.

        Beyond the measured numbers of layers, the limits of the largest of them apply.
        """
        layers = plain(layers)
        if type(layers) is not int or layers < 1:
            self._check_layers(layers)
        k = min(layers, self.max_layers)
        requests, decodes = self.max_prompt_requests[k - 1], self.max_decode_tokens[k - 1]
        return BatchLimits(
            prompt_requests=requests,
            prompt_tokens=PROMPT_TOKENS_PER_REQUEST * requests,
            decode_tokens=decodes,
            decode_context_tokens=CONTEXT_TOKENS_PER_DECODE * decodes,
        )

    def layer_time_s(self, prompt_tokens: float, decode_tokens: float) -> float:
        """Return the time of one layer for a batch, in seconds.

        A batch with a single decode token takes twice the interpolated time: it is bound by reading the
        weights.

        Raises
        ------
        ModelError
            The batch is larger than what was measured.
        """
        single = 2.0 if decode_tokens == 1 else 1.0
        return self.prompt_time_s(prompt_tokens) + single * self.decode_time_s(decode_tokens)

    def prompt_time_s(self, tokens: float) -> float:
        """Return the time of one layer for the prompt tokens of a batch, in seconds."""
        return self._interpolate("prompt", tokens, self.prompt_batch_tokens, self.prompt_layer_s)

    def decode_time_s(self, tokens: float) -> float:
        """Return the time of one layer for the decode tokens of a batch, in seconds, none doubled."""
        return self._interpolate("decode", tokens, self.decode_batch_tokens, self.decode_layer_s)

    @cached_property
    def prompt_table_s(self) -> NDArray[np.float64]:
        """Time of one layer in seconds by the number of prompt tokens, ``[tokens]``."""
        tokens = np.arange(self.prompt_batch_tokens[-1] + 1)
        return np.interp(tokens, self.prompt_batch_tokens, self.prompt_layer_s)

    @cached_property
    def decode_table_s(self) -> NDArray[np.float64]:
        """Time of one layer in seconds by the number of decode tokens, ``[tokens]``; that of 1 is doubled."""
        tokens = np.arange(self.decode_batch_tokens[-1] + 1)
        table = np.interp(tokens, self.decode_batch_tokens, self.decode_layer_s)
        table[1] *= 2
        return table

    def _interpolate(
        self, phase: str, tokens: float, points: tuple[int, ...], times_s: tuple[float, ...]
    ) -> float:
        tokens = plain(tokens)
        if type(tokens) not in (int, float) or not 0 <= tokens <= points[-1]:
            raise ModelError(
                f"a batch of {shown(tokens)} {phase} tokens on {self.machine} is outside the measured 0 to"
                f" {points[-1]}; use smaller batches, or a profile that covers them"
            )
        return float(np.interp(tokens, points, times_s))

    def _check_layers(self, layers: int) -> int:
        number = plain(layers)
        if type(number) is not int or not 1 <= number <= self.max_layers:
            raise ModelError(
                f"{self.machine} is measured with 1 to {self.max_layers} layers, not with {shown(layers)};"
                " hold fewer, or state the KV capacity in the placement"
            )
        return number
