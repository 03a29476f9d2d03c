"""``helixlab`` and ``python -m helixlab``: Ctrl-C and errors are one line from the first moment on."""

import sys

from helixlab.interrupts import loaded

__all__ = ["main"]


def main() -> int:
    """Run the command line, once it is loaded."""
    try:
        code: int = loaded("helixlab.cli").main()
    except KeyboardInterrupt:
        print("helixlab: interrupted", file=sys.stderr)
        return 130
    except MemoryError:
        print("helixlab: memory ran out while it was loaded; end other programs", file=sys.stderr)
        return 2
    return code


if __name__ == "__main__":
    sys.exit(main())
