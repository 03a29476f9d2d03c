"""Processes that end with the one that started them, however that ended."""

from __future__ import annotations

import os
import signal
import threading
import time
from functools import cache
from typing import Final

__all__ = ["end_with", "work_for"]

EVERY_S: Final = 0.2


@cache
def end_with(parent: int) -> None:
    """End this process when its parent is not (or no longer) the process `parent`.

    A thread looks for it, as that works on every Unix. Linux's own signal would come when the thread that
    started the process ends, and not at all where that was gone before the signal was asked for.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(EVERY_S)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="helixlab-watch").start()


def work_for(parent: int) -> None:
    """Make this process a worker of the process `parent`, with which it ends.

    Ctrl-C in a terminal reaches workers too; the parent, which hears it as well, ends them.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with(parent)
