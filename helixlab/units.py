"""Units of the library: bytes and seconds inside, conversions at the edges.

Multiply by a unit to convert to bytes or seconds, divide by it to convert back.

Examples
--------
>>> 10 * Gbps  # bytes per second
1250000000.0
>>> 0.05 / ms
50.0
"""

from __future__ import annotations

from typing import Final

__all__ = ["GB", "KB", "MB", "TB", "Gbps", "GiB", "Kbps", "Mbps", "minute", "ms", "second", "us"]

KB: Final = 1e3
MB: Final = 1e6
GB: Final = 1e9
TB: Final = 1e12
GiB: Final = 2.0**30

Kbps: Final = 1e3 / 8
"""One kilobit per second, in bytes per second."""
Mbps: Final = 1e6 / 8
"""One megabit per second, in bytes per second."""
Gbps: Final = 1e9 / 8
"""One gigabit per second, in bytes per second."""

us: Final = 1e-6
ms: Final = 1e-3
second: Final = 1.0
minute: Final = 60.0
