"""helixlab: plan, simulate and compare LLM serving over mixed GPUs and networks with max flow.

Heavy parts (numba, networkx, pandas' parquet, plotting) load when they are first used.
"""

from importlib.metadata import version

from helixlab._lazy import attach_stub

__version__ = version("helixlab")

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
