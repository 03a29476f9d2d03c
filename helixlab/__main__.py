"""Entry point of ``helixlab`` and ``python -m helixlab``: Ctrl-C and errors are one line from the start."""

import os
import sys

from helixlab._interrupts import loaded

__all__ = ["main"]


def main() -> int:
    """Load and run the command line."""
    _prepare_output()
    try:
        code: int = loaded("helixlab.cli").main()
    except KeyboardInterrupt:
        print("helixlab: interrupted", file=sys.stderr)
        return 130
    except (ImportError, MemoryError) as error:
        reason = next(iter(str(error).splitlines()), "") or "memory ran out"
        print(
            f"helixlab: it could not be loaded ({reason}); end other programs if memory is short,"
            " else install helixlab again",
            file=sys.stderr,
        )
        return 2
    return code


def _prepare_output() -> None:
    r"""Make both streams accept any text: missing characters become ``\xe9``, closed streams discard it.

    Libraries, and Python itself at its end, expect streams that can be written to.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8"))
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


if __name__ == "__main__":
    sys.exit(main())
