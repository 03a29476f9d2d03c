"""The public face: exactly these names, light to import, each with a page of documentation."""

import inspect
import re
import subprocess
import sys

import pytest

import helixlab as hx

PUBLIC = [
    "Cluster",
    "Comparison",
    "Coordinator",
    "Estimate",
    "Execution",
    "Finding",
    "Flow",
    "Goodput",
    "Link",
    "Machine",
    "MachineProfile",
    "Model",
    "Node",
    "NodeLayers",
    "Objective",
    "Placement",
    "Prediction",
    "Result",
    "Scheduler",
    "Tuning",
    "Workload",
    "__version__",
    "check_placement",
    "chunked",
    "cluster_names",
    "compare",
    "diagnose",
    "errors",
    "estimate",
    "geo_distributed",
    "goodput",
    "load_cluster",
    "load_model",
    "load_placement",
    "load_result",
    "max_flow",
    "mean_interval",
    "model_names",
    "offline",
    "online",
    "placement_names",
    "plan",
    "plotting",
    "predict",
    "request_latencies",
    "random_sparse",
    "rate_sweep",
    "save_cluster",
    "save_model",
    "save_placement",
    "simulate",
    "single_region",
    "sweep",
    "trace_names",
    "tune_execution",
    "units",
    "upper_bound",
]
EXAMPLES = "\nExamples\n--------\n"
MODULES = {"errors", "plotting", "units"}
THINGS = [name for name in PUBLIC if name not in MODULES and not name.startswith("__")]
SLOW = (
    "cvxpy",
    "highspy",
    "matplotlib",
    "networkx",
    "numba",
    "numpy",
    "pandas",
    "papermill",
    "pyarrow",
    "scipy",
    "seaborn",
)


def loaded_after(code):
    code += "; import sys; print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_exactly_these_names():
    assert sorted(hx.__all__) == PUBLIC
    assert len(set(hx.__all__)) == len(hx.__all__)


def test_dir_lists_them():
    assert sorted(dir(hx)) == PUBLIC


def test_each_name_is_there():
    for name in PUBLIC:
        assert getattr(hx, name) is not None


def test_each_name_comes_from_the_library():
    for name in THINGS:
        assert getattr(hx, name).__module__.startswith("helixlab.")


def test_an_unknown_name():
    with pytest.raises(AttributeError, match="module 'helixlab' has no attribute 'simulat'"):
        hx.simulat  # noqa: B018


def test_import_loads_nothing_heavy():
    assert loaded_after("import helixlab") & set(SLOW) == set()


def test_data_objects_load_no_compiler_and_no_plots():
    code = "import helixlab as hx; hx.load_cluster('small10'), hx.load_placement('small10/llama-1-30b/helix')"
    assert loaded_after(code) & {"numba", "matplotlib", "seaborn", "papermill"} == set()


@pytest.mark.parametrize("name", THINGS)
def test_a_page_of_documentation(name):
    thing = getattr(hx, name)
    text = inspect.getdoc(thing) or ""
    assert re.match(r"[A-Z].*\.", text), "a summary that is a sentence"
    # A name or a path says all about itself; anything else is described, or stands in the summary.
    takes = set(inspect.signature(thing).parameters) - {"name_or_path", "path"}
    if name.startswith(("load_", "save_")):
        takes = set()
    if takes and "Parameters\n----------\n" not in text:
        takes = {parameter for parameter in takes if parameter not in text}
        assert takes <= {"node"}
    assert {parameter for parameter in takes if not re.search(rf"\b{parameter}\b", text)} <= {"node"}


@pytest.mark.parametrize("name", THINGS)
def test_an_example(name, root):
    """On its own page, or in another example; for a class, on the page of a function which makes one."""
    things = {thing: getattr(hx, thing) for thing in THINGS}
    makers = [
        thing
        for thing in things.values()
        if inspect.isfunction(thing) and inspect.signature(thing).return_annotation == name
    ]
    if any(EXAMPLES in (inspect.getdoc(thing) or "") for thing in [things[name], *makers]):
        return
    pages = [inspect.getdoc(thing) or "" for thing in things.values()]
    pages += re.findall(
        r"^```python\n(.*?)^```", (root / "README.md").read_text(encoding="utf-8"), re.M | re.S
    )
    examples = [page.split(EXAMPLES)[-1] for page in pages]
    assert any(re.search(rf"\b{name}\(", example) for example in examples)
