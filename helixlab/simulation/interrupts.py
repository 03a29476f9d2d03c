"""Ctrl-C while the engine runs: noted, and heard where the state of the run is whole."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["CtrlC", "hearing_ctrl_c"]


class CtrlC:
    """Whether Ctrl-C was pressed."""

    pressed = False


@contextmanager
def hearing_ctrl_c() -> Iterator[CtrlC]:
    """Note the first Ctrl-C instead of raising KeyboardInterrupt; the second raises it.

    Only where Python's own handler is in place and this is the main thread: nobody else's is replaced.

    Examples
    --------
    >>> with hearing_ctrl_c() as ctrl_c:
    ...     signal.raise_signal(signal.SIGINT)
    >>> ctrl_c.pressed
    True
    """
    heard = CtrlC()
    own = threading.current_thread() is threading.main_thread()
    if not own or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield heard
        return

    def note(number: int, frame: FrameType | None) -> None:
        if heard.pressed:
            raise KeyboardInterrupt
        heard.pressed = True

    signal.signal(signal.SIGINT, note)
    try:
        yield heard
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
