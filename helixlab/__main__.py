"""``python -m helixlab``."""

import sys

from helixlab.cli import main

if __name__ == "__main__":
    sys.exit(main())
