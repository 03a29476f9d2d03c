"""Many runs: sweeps, rates up to saturation, tuning, and their statistics.

`sweep` and `goodput` are modules here; the functions of these names are in `helixlab`.
"""

from helixlab._lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
