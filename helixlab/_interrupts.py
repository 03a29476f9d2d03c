"""Ctrl-C, deferred to a point where nothing is lost or left half done."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from types import FrameType, ModuleType
from typing import Final

__all__ = ["CtrlC", "ctrl_c_at_once", "deferred_ctrl_c", "loaded", "whole_imports"]

MOST_DEFERRED: Final = 2
"""Most presses of Ctrl-C that are deferred; the next one raises at once, as something may hang."""


class CtrlC:
    """A counter of how often Ctrl-C was pressed, which serves as the handler of its signal."""

    times = 0

    @property
    def pressed(self) -> bool:
        """True once Ctrl-C was pressed."""
        return self.times > 0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Count a press."""
        self.times += 1
        if self.times > MOST_DEFERRED:
            raise KeyboardInterrupt


@contextmanager
def deferred_ctrl_c() -> Iterator[CtrlC]:
    """Count Ctrl-C instead of raising KeyboardInterrupt; the third one raises it.

    This works only in the main thread and where Python's own handler is in place, as no other handler is
    replaced. A block inside another such block shares its counter, so that both notice.

    Examples
    --------
    >>> with deferred_ctrl_c() as ctrl_c:
    ...     signal.raise_signal(signal.SIGINT)
    >>> ctrl_c.pressed
    True
    """
    handler = signal.getsignal(signal.SIGINT)
    if type(handler) is CtrlC and threading.current_thread() is threading.main_thread():
        yield handler
        return
    counter = CtrlC()
    with _handled(counter, instead_of=signal.default_int_handler):
        yield counter


class _Waiting(CtrlC):
    """The handler while modules load: it counts and never raises."""

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.times += 1


@contextmanager
def whole_imports() -> Iterator[None]:
    """Let Ctrl-C wait until the imports in the block are complete.

    A package whose import was cut short cannot be imported again until Python is restarted.
    """
    waiting = _Waiting()
    with _handled(waiting, instead_of=signal.default_int_handler):
        yield
    if waiting.pressed:
        raise KeyboardInterrupt


def loaded(name: str) -> ModuleType:
    """Import a module, and defer Ctrl-C until it is there.

    Examples
    --------
    >>> loaded("helixlab.units").__name__
    'helixlab.units'
    """
    with whole_imports():
        return import_module(name)


@contextmanager
def ctrl_c_at_once() -> Iterator[None]:
    """Raise KeyboardInterrupt at once while modules load, too: for long work that can be started again."""
    waiting = signal.getsignal(signal.SIGINT)
    if isinstance(waiting, _Waiting):
        if waiting.pressed:
            raise KeyboardInterrupt
        with _handled(signal.default_int_handler, instead_of=waiting):
            yield
    else:
        yield


@contextmanager
def _handled(
    handler: Callable[[int, FrameType | None], None], *, instead_of: Callable[[int, FrameType | None], None]
) -> Iterator[None]:
    """Let `handler` handle the signal if the one that it is to replace does so now."""
    own = threading.current_thread() is threading.main_thread()
    if not own or signal.getsignal(signal.SIGINT) is not instead_of:
        yield
        return
    signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, instead_of)
