"""``helixlab`` and ``python -m helixlab``: Ctrl-C is one line from the first moment on."""

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
    return code


if __name__ == "__main__":
    sys.exit(main())
