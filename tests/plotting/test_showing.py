"""Pictures are shown in a notebook: ours once each, the user's own after ours, and no setting is changed."""

import pickle
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import nbformat
import numpy as np
import papermill
import pytest
from matplotlib.figure import Figure

import helixlab as hx
from helixlab.plotting import panels, plot_node_throughput, save_figure, style

# The Jupyter packages warn of their own future; that is not what is tested here.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

SETUP = """\
import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
import helixlab as hx
from helixlab import plotting as p

cluster, model = hx.load_cluster("small10"), hx.load_model("llama-1-30b")
placement = hx.load_placement("small10/llama-1-30b/helix")
workload = hx.offline(warmup_s=0, duration_s=20, rng=0)
result = hx.simulate(cluster, model, placement, workload=workload, keep_batches=True)
summary = result.summary.assign(method="helix")
mpl.rcParams["lines.linewidth"] = 3.5

def as_they_were():
    return {name: value for name, value in mpl.rcParams.items() if name not in ("backend", "interactive")}

before = as_they_were()"""
AS_BEFORE = """\
assert as_they_were() == before
assert mpl.get_backend() in ("inline", "module://matplotlib_inline.backend_inline")
assert mpl.is_interactive() and plt.get_fignums() == []"""
# What a cell runs, and how many pictures it then shows.
CELLS = [
    ("p.plot_topology(cluster)", 1),
    (AS_BEFORE, 0),
    ("plt.plot([1, 2])", 1),
    ("sns.lineplot(x=[1, 2], y=[1, 2]);", 1),
    # As the last line, whatever is returned.
    ("result.plot_timeline()", 1),
    ("figure = result.plot_timeline()[0, 0].figure", 1),
    ("figure", 1),  # drawn earlier, shown again where it is asked for
    ("p.plot_throughput(summary)", 1),
    ("p.plot_placement(cluster, placement)", 1),
    ("p.plot_flow(hx.max_flow(cluster, model, placement))", 1),
    ("p.plot_layer_times(model)", 1),
    ("p.plot_node_throughput(model, cluster.machine_counts())", 1),
    ("p.plot_kv_capacity(model)", 1),
    ("p.plot_latency_boxes(summary)", 1),
    ("p.plot_latency_cdf(p.latency_quantiles({'helix': result}, 'decode'), phase='decode')", 1),
    ("p.plot_tokens(result)", 1),
    ("p.plot_node_use(result)", 1),
    ("p.plot_batches(result, from_s=result.summary['start_s'].item(), span_s=20)", 1),
    ("p.panels(1, 2)", 1),
    ("figure, axes = p.panels()\nfigure", 1),
    ("p.plot_topology(cluster).figure", 1),
    ("figure, ax = p.panels()\np.plot_topology(cluster, ax=ax)\np.legend_above(figure)", 1),
    ("figure, ax = plt.subplots()\np.plot_topology(cluster, ax=ax)\np.legend_above(figure)", 1),
    ("figure, axes = p.panels(1, 2)\np.name_panels(axes, ['a', 'b'])", 1),
    ("figure, ax = p.panels()\np.save_figure(figure, 'x', folder, pd.DataFrame({'x': [1]}))", 1),
    ("with p.style():\n    plt.plot([1, 2])", 1),
    ("p.plot_topology(cluster)\np.plot_topology(cluster);", 2),
    # What fails leaves nothing behind either.
    ("try:\n    p.plot_tokens(None)\nexcept AttributeError:\n    plt.close('all')", 0),
    (AS_BEFORE, 0),
    # Interactive mode is the user's.
    ("plt.ioff()\np.plot_topology(cluster)\nassert not mpl.is_interactive()", 0),
    ("plt.show()", 1),
    ("plt.ion()\np.plot_topology(cluster)", 1),
    ("%matplotlib inline\np.plot_topology(cluster)", 1),
    (AS_BEFORE, 0),
    ("%config InlineBackend.close_figures = False\nfigure = p.plot_topology(cluster).figure", 1),
    ("assert plt.gcf() is figure", 0),
]


def shown(folder: Path, *cells: str) -> list[int]:
    """Run cells in a kernel of Jupyter: how many pictures each one shows."""
    sources = [f"folder = {str(folder)!r}", *cells]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    nbformat.write(notebook, folder / "written.ipynb")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MPLBACKEND", raising=False)
        done = papermill.execute_notebook(
            folder / "written.ipynb", folder / "done.ipynb", kernel_name="python3", progress_bar=False
        )
    return [sum("image/png" in output.get("data", {}) for output in cell.outputs) for cell in done.cells[1:]]


def test_each_cell_shows_its_pictures(tmp_path: Path) -> None:
    counted = shown(tmp_path, SETUP, *(cell for cell, _ in CELLS))
    expected = [0, *(pictures for _, pictures in CELLS)]
    assert dict(enumerate(counted)) == dict(enumerate(expected))


def settings() -> dict[str, object]:
    return {name: mpl.rcParams._get(name) for name in mpl.rcParams}  # type: ignore[attr-defined]


@pytest.mark.parametrize("chosen", ["agg", "svg"])
@pytest.mark.parametrize("interactive", [False, True])
def test_scripts_keep_their_backend_and_mode(chosen: str, interactive: bool) -> None:
    usual = mpl.get_backend()
    with plt.ion() if interactive else plt.ioff():
        plt.switch_backend(chosen)
        try:
            before = settings()
            panels()
            with style(), style():
                assert plt.rcParams["font.size"] == 7
            with pytest.raises(ValueError, match="inside"), style():
                raise ValueError("inside")
            assert settings() == before
            assert mpl.get_backend() == chosen
        finally:
            plt.close("all")
            plt.switch_backend(usual)


SCRIPT = """\
import sys
from matplotlib.figure import Figure
from helixlab.plotting import panels, style
with style():
    ax = Figure().subplots()
ax.figure.savefig(sys.argv[1])
panels()
"""


def test_a_backend_that_cannot_be_loaded_is_told_where_it_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MPLBACKEND", "module://no_such_backend")
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "x.png")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (tmp_path / "x.png").is_file(), "that figure needs none"
    assert done.stderr.splitlines()[-1] == "ModuleNotFoundError: No module named 'no_such_backend'"


def pixels(figure: Figure) -> np.ndarray:
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba()).copy()  # type: ignore[attr-defined]


@pytest.mark.parametrize("own", [{}, {"xtick.labelsize": 20, "xtick.color": "red", "font.size": 20}])
def test_what_is_displayed_is_what_is_saved(tmp_path: Path, own: dict[str, object]) -> None:
    model = hx.load_model("llama-2-70b")
    with mpl.rc_context(own):
        displayed = pixels(plot_node_throughput(model, {"A100": 1}).figure)
        with style():
            styled = pixels(plot_node_throughput(model, {"A100": 1}).figure)
    np.testing.assert_array_equal(displayed, styled)


def test_figures_travel(tmp_path: Path) -> None:
    figure, ax = panels()
    ax.plot([1, 2])
    again = pickle.loads(pickle.dumps(figure))  # noqa: S301
    np.testing.assert_array_equal(pixels(again), pixels(figure))
    plt.close("all")
    hx_table = hx.load_cluster("small10").nodes_table()
    assert save_figure(again, "again", tmp_path, hx_table)["png"].is_file()
