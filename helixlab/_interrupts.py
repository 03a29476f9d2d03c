"""Ctrl-C: heard where what it stops is whole, so that nothing is lost or left half done."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from types import FrameType, ModuleType
from typing import Final

__all__ = ["CtrlC", "ctrl_c_at_once", "hearing_ctrl_c", "loaded", "whole_imports"]

ENOUGH: Final = 3
"""So often pressed it is heard at once, as something may hang."""


class CtrlC:
    """How often Ctrl-C was pressed."""

    times = 0

    @property
    def pressed(self) -> bool:
        """Whether it was."""
        return self.times > 0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Note it, as the handler of the signal."""
        self.times += 1
        if self.times >= ENOUGH:
            raise KeyboardInterrupt


@contextmanager
def hearing_ctrl_c() -> Iterator[CtrlC]:
    """Note Ctrl-C instead of raising KeyboardInterrupt; the third one raises it.

    Only where Python's own handler is in place and this is the main thread: nobody else's is replaced. Inside
    of another such block it is the same one, so that both hear of it.

    Examples
    --------
    >>> with hearing_ctrl_c() as ctrl_c:
    ...     signal.raise_signal(signal.SIGINT)
    >>> ctrl_c.pressed
    True
    """
    handler = signal.getsignal(signal.SIGINT)
    if type(handler) is CtrlC and threading.current_thread() is threading.main_thread():
        yield handler
        return
    heard = CtrlC()
    with _handled(heard, instead_of=signal.default_int_handler):
        yield heard


class _Waiting(CtrlC):
    """What stands in for the handler while modules load."""

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
    """Import a module; Ctrl-C waits until it is there.

    Examples
    --------
    >>> loaded("helixlab.units").__name__
    'helixlab.units'
    """
    with whole_imports():
        return import_module(name)


@contextmanager
def ctrl_c_at_once() -> Iterator[None]:
    """Hear Ctrl-C while modules load, too: in what takes long, and can be begun again."""
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
    """Let `handler` handle the signal, if the one that it is to replace does so now."""
    own = threading.current_thread() is threading.main_thread()
    if not own or signal.getsignal(signal.SIGINT) is not instead_of:
        yield
        return
    signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, instead_of)
