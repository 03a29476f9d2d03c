"""The study: its notebooks, the published evaluation run again, and the report.

The command line needs the names of notebooks only; everything else loads when it is first used.
"""

from helixlab._lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
