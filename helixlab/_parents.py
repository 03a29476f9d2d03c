"""Processes that end together with the process that started them, however that ended."""

from __future__ import annotations

import os
import signal
import threading
import time
from functools import cache
from typing import Final

__all__ = ["end_with", "work_for"]

POLL_S: Final = 0.2
"""Seconds between two looks at the parent."""


@cache
def end_with(parent: int) -> None:
    """End this process as soon as its parent is not, or no longer, the process `parent`.

    A thread polls for it, which works on every Unix. Linux's own signal would come when the thread that
    started the process ends, and not at all if that thread was gone before the signal was requested.

    Parameters
    ----------
    parent : int
        Id of the process that started this one.
    """

    def poll() -> None:
        while os.getppid() == parent:
            time.sleep(POLL_S)
        os._exit(1)

    threading.Thread(target=poll, daemon=True, name="helixlab-parent-poll").start()


def work_for(parent: int) -> None:
    """Make this process a worker of the process `parent`, with which it ends.

    Ctrl-C in a terminal reaches workers too. They ignore it; the parent receives it as well and ends them.

    Parameters
    ----------
    parent : int
        Id of the process that started this one.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with(parent)
