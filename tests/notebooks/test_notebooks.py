"""The notebooks run from start to end, at smoke scale, and the tables they write hold the right numbers."""

import ast
import json
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
import papermill
import pytest

from helixlab.reproduce import published_results

NAMES = (
    "01_topology",
    "02_profiles",
    "03_placement",
    "04_flow_and_scheduling",
    "05_offline_simulation",
    "06_online_and_comparison",
    "07_single_cluster",
    "08_geo_distributed",
    "09_high_heterogeneity",
    "10_deep_dives",
    "11_ablations",
    "12_beyond_the_paper",
    "13_reading_a_result",
    "14_execution",
)
EVALUATIONS = {
    "07_single_cluster": ("5", "single_cluster", 96),
    "08_geo_distributed": ("7", "geo_distributed", 72),
    "09_high_heterogeneity": ("8", "high_heterogeneity", 48),
}
"""Number of the figures, beginning of the names of files, and how many numbers are published."""
WITH_A_FUNCTION = {"04_flow_and_scheduling", "05_offline_simulation"}
"""A scheduler is a function, and so is an execution policy: writing one is what these notebooks show."""


@pytest.fixture(scope="module", autouse=True)
def pictures_are_shown() -> Iterator[None]:
    """Kernels draw for notebooks, not for a machine without a screen as the tests do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MPLBACKEND", raising=False)
        yield


@pytest.fixture(scope="module")
def notebooks(root: Path) -> dict[str, Path]:
    return {path.stem: path for path in sorted((root / "notebooks").glob("*.ipynb")) if path.stem in NAMES}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the notebooks of this module write."""
    return tmp_path_factory.mktemp("figures")


def cells(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def code_of(path: Path) -> list[str]:
    return ["".join(cell["source"]) for cell in cells(path) if cell["cell_type"] == "code"]


def parameters_of(path: Path) -> dict[str, Any]:
    """Names and values of the one cell with the tag ``parameters``."""
    (cell,) = [cell for cell in cells(path) if "parameters" in cell["metadata"].get("tags", [])]
    return {
        statement.targets[0].id: ast.literal_eval(statement.value)
        for statement in ast.parse("".join(cell["source"])).body
    }


def pictures_named_in(source: str) -> list[str]:
    """Patterns of the names of pictures that a cell saves."""
    calls = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
    names = [call.args[1] for call in calls if ast.unparse(call.func) == "save_figure"]
    return [
        "".join(
            part.value if isinstance(part, ast.Constant) else "*" for part in getattr(name, "values", [name])
        )
        for name in names
    ]


def assert_shows_what_it_saves(executed: Any, saved: set[str]) -> None:
    """Each picture is shown once, by the cell that saves it, and no cell shows another one."""
    left = set(saved)
    for cell in executed.cells:
        if cell.cell_type == "code":
            patterns = pictures_named_in(cell.source)
            here = {name for name in left if any(fnmatch(name, pattern) for pattern in patterns)}
            left -= here
            shown = [output for output in cell.outputs if "image/png" in output.get("data", {})]
            assert len(shown) == len(here), (sorted(here), cell.source)
            told = "".join(output.text for output in cell.outputs if output.get("name") == "stderr")
            assert "figures have been opened" not in told
    assert not left


def run(notebooks: dict[str, Path], name: str, folder: Path, **changes: Any) -> None:
    """Run a notebook at smoke scale."""
    known = parameters_of(notebooks[name])
    given = {"scale": "smoke", "seed": 0, "output": str(folder), **changes}
    if "n_jobs" in known:
        given.setdefault("n_jobs", 1)  # starting workers takes longer than these runs
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*.*")}
    executed = papermill.execute_notebook(
        notebooks[name],
        folder / f"{name}.ipynb",
        parameters=given,
        kernel_name="python3",
        cwd=notebooks[name].parent,
        progress_bar=False,
    )
    listed = (notebooks[name].parents[1] / "figures" / "README.md").read_text(encoding="utf-8").splitlines()
    (row,) = (line for line in listed if line.startswith(f"| `{name}`"))
    written = [path for path in folder.glob("*.*") if before.get(path) != path.stat().st_mtime_ns]
    tables = {path.stem for path in written if path.suffix == ".csv"}
    assert {stem for stem in tables if f"`{stem}`" not in row} == set(), "figures/README.md names them all"
    assert_shows_what_it_saves(executed, {path.stem for path in written if path.suffix == ".png"})


def table(folder: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(folder / f"{name}.csv")


def assert_figures(folder: Path, *names: str) -> None:
    for name in names:
        for ending in ("png", "pdf", "csv"):
            assert (folder / f"{name}.{ending}").stat().st_size > 0, (name, ending)


# As they are committed


def test_all_are_there(notebooks: dict[str, Path]) -> None:
    assert tuple(notebooks) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_is_a_valid_notebook_without_outputs(notebooks: dict[str, Path], name: str) -> None:
    notebook = nbformat.read(notebooks[name], as_version=4)
    nbformat.validate(notebook)
    assert notebook.nbformat == 4
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert notebook.metadata.kernelspec.name == "python3"
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None
            assert set(cell.metadata) <= {"tags"}


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_plain_and_for_the_full_scale(notebooks: dict[str, Path], name: str) -> None:
    parameters = parameters_of(notebooks[name])
    assert json.loads(json.dumps(parameters)) == parameters
    assert (parameters["scale"], parameters["seed"], parameters["output"]) == ("full", 0, None)


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_checked_before_anything_runs(notebooks: dict[str, Path], name: str) -> None:
    _, first, *later = code_of(notebooks[name])
    imports = (ast.Import, ast.ImportFrom)
    lines = [ast.unparse(line) for line in ast.parse(first).body if not isinstance(line, imports)]
    given = ", ".join(f"{parameter}={parameter}" for parameter in parameters_of(notebooks[name]))
    assert lines[:2] == [f"check_parameters({given})", "output = output_folder(output)"]
    assert "check_parameters" not in "".join(later)


@pytest.mark.parametrize("name", NAMES)
def test_calls_the_library_and_defines_nothing(notebooks: dict[str, Path], name: str) -> None:
    tree = ast.parse("\n".join(code_of(notebooks[name])))
    defined = [
        n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    ]
    assert len(defined) == (name in WITH_A_FUNCTION)
    imported = {
        (node.module if isinstance(node, ast.ImportFrom) else node.names[0].name).split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    assert imported <= {"helixlab", "pandas", "IPython"}


@pytest.mark.parametrize("name", NAMES)
def test_is_short_and_imports_public_names(notebooks: dict[str, Path], name: str) -> None:
    code = "\n".join(code_of(notebooks[name]))
    lines = [line for line in code.splitlines() if line.strip() and not line.strip().startswith("#")]
    assert len(lines) <= 150
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("helixlab"):
            names = [] if node.module == "helixlab" else str(node.module).split(".")
            assert len(names) <= 2, f"{node.module} is a module inside of a package"
            assert not any(each.startswith("_") for each in names)


@pytest.mark.parametrize("name", NAMES)
def test_is_a_narrative(notebooks: dict[str, Path], name: str) -> None:
    kinds = [cell["cell_type"] for cell in cells(notebooks[name])]
    assert kinds[0] == "markdown"
    assert 3 * kinds.count("markdown") >= kinds.count("code")
    text = "".join(
        "".join(cell["source"]) for cell in cells(notebooks[name]) if cell["cell_type"] == "markdown"
    )
    assert "ASPLOS 2025" in text


def test_a_parameter_that_is_not_known_is_an_error(notebooks: dict[str, Path], folder: Path) -> None:
    with pytest.raises(papermill.PapermillExecutionError) as raised:
        run(notebooks, "01_topology", folder, sclae="smoke")
    assert raised.value.ename == "NotebookError"
    assert raised.value.evalue == "the notebook has no parameter 'sclae'; give any of scale, seed, output"


# As they run


def test_01_topology(notebooks: dict[str, Path], folder: Path) -> None:
    run(notebooks, "01_topology", folder)
    assert_figures(folder, "topology", "topology_mine")
    overview = table(folder, "topology").set_index("cluster")
    assert overview.loc["single24", ["nodes", "links", "regions", "A100", "T4"]].tolist() == [
        24,
        600,
        1,
        4,
        12,
    ]
    assert overview.loc["geo24", "regions"] == 3
    assert overview["nodes"].to_dict() == {"single24": 24, "geo24": 24, "hetero42": 42, "small10": 10}


def test_02_profiles(notebooks: dict[str, Path], folder: Path) -> None:
    run(notebooks, "02_profiles", folder)
    assert_figures(folder, "layer_times", "throughput")
    throughput = table(folder, "throughput").set_index(["machine", "layers_on_node"])[
        "throughput_tokens_per_s"
    ]
    seen = {key: round(throughput[key]) for key in [("A100", 1), ("A100", 12), ("L4", 7), ("T4", 4)]}
    assert seen == {("A100", 1): 23834, ("A100", 12): 952, ("L4", 7): 532, ("T4", 4): 758}
    bounds = table(folder, "bounds").set_index("bound")["tokens_per_s"]
    assert bounds["all nodes at their best"] == pytest.approx(2803.860988)
    assert bounds["upper_bound"] == pytest.approx(2045.641, abs=1e-3)


def test_03_placement(notebooks: dict[str, Path], folder: Path) -> None:
    run(notebooks, "03_placement", folder)
    assert_figures(folder, "placement_flows", "placements", "placements_planned")
    assert_figures(folder, *(f"placement_{name}" for name in ("searches", "predictions", "gains")))
    flows = table(folder, "placement_flows").set_index(["source", "method"])
    flow = flows["max_flow_tokens_per_s"]
    assert flow["published", "helix"] == pytest.approx(1289.5557702751464)
    assert flow["planned", "helix"] == pytest.approx(2045.641, abs=1e-3)
    assert flow["published", "petals"] == pytest.approx(952.107398, abs=1e-6)
    assert flow["published", "swarm"] == pytest.approx(flow["planned", "swarm"])
    assert flow["published", "homogeneous"] == pytest.approx(flow["planned", "homogeneous"])
    assert (flow <= (1 + 1e-9) * flows["upper_bound_tokens_per_s"]).all()
    assert len(flow) == 10
    # The paper's program has the published size, and proves next to nothing.
    sizes = table(folder, "placement_problem_sizes")
    for what in ("rows", "columns", "nonzeros"):
        assert sizes[what].tolist() == sizes[f"{what}_published"].tolist()
    program = table(folder, "placement_paper_program").set_index("cluster").loc["small10"]
    assert program["incumbent_tokens_per_s"] == pytest.approx(286.587, abs=1e-3)
    assert program["gap"] > 10
    # Coverage is the flow; the prices prove it.
    assert table(folder, "placement_coverage")["equal"].all()
    worth = table(folder, "placement_prices").groupby("machine")["layers_paid_for"].max()
    assert 4 * worth["L4"] + 6 * worth["T4"] < 60, "not all layers at 2% above the optimum"
    plans = table(folder, "placement_plans").set_index(["cluster", "model"])
    assert plans["status"].tolist() == ["optimal"] * 3
    assert plans["max_flow_tokens_per_s"].tolist() == pytest.approx([286.587, 2045.641, 1517.737], abs=1e-3)
    assert (plans["gap"] <= 1e-4).all()
    assert plans["published_flow_tokens_per_s"].tolist()[:2] == pytest.approx([286.587, 1289.556], abs=1e-3)
    split = table(folder, "placement_split_estimates")
    assert split["alone_tokens_per_s"].sum() > 1600 > 1200 > split["in_the_mix_tokens_per_s"].sum()
    searches = table(folder, "placement_searches").groupby(["cluster", "run"]).last()
    assert searches.loc[("single24", "helixlab"), "bound_tokens_per_s"] == pytest.approx(2045.641, abs=1e-3)
    assert searches.loc[("single24", "paper, Gurobi"), "bound_tokens_per_s"] > 70_000
    # Every placement under both policies, and who is compared with whom.
    served = table(folder, "placement_served")
    assert served.groupby("policy").size().to_dict() == {"greedy": 9, "chunked": 9}
    positive = ["decode_tokens_per_s", "by_flow_tokens_per_s", "by_queueing_tokens_per_s"]
    assert (served[positive] > 0).all(axis=None)
    assert (served["max_flow_tokens_per_s"] <= 2045.642).all()
    gains = table(folder, "placement_gain_table").set_index("plan")
    assert list(gains.index) == ["published", "for-flow", "for-greedy", "for-chunked"]
    for policy in ("greedy", "chunked"):
        of_policy = served[(served["policy"] == policy) & (served["model"] == "llama-2-70b")]
        served_by = of_policy.groupby("plan")["decode_tokens_per_s"].first()  # of published ones, Helix's
        assert gains[policy].to_dict() == pytest.approx(served_by.to_dict())
        ratio = gains[policy] / gains.loc["published", policy]
        assert gains[f"{policy}_over_published"].tolist() == pytest.approx(ratio.tolist())
    settings = table(folder, "placement_settings").set_index(["plan", "setting"])
    assert settings["decode_tokens_per_s"]["published", "long"] == pytest.approx(gains["greedy"]["published"])
    assert len(settings) == 6
    split = table(folder, "placement_split_served").set_index(["plan", "policy"])
    parts = served[served["placement"].str.contains("llama-1-30b/helix-")]
    for policy, whole in parts.groupby("policy")["decode_tokens_per_s"].sum().items():
        assert split["decode_tokens_per_s"]["published", policy] == pytest.approx(whole)


def test_04_flow_and_scheduling(notebooks: dict[str, Path], folder: Path) -> None:
    run(notebooks, "04_flow_and_scheduling", folder)
    assert_figures(folder, "flow", "schedulers")
    flow = table(folder, "flow")
    for end, other in (("source", "sender"), ("sink", "receiver")):
        assert flow.loc[flow[other] == end, "flow_tokens_per_s"].sum() == pytest.approx(1289.5557702751464)
    assert table(folder, "routes")["share"].sum() == pytest.approx(1)
    schedulers = table(folder, "schedulers").set_index("method")
    assert list(schedulers.index) == ["helix", "swarm", "random", "shortest-queue", "by-flow"]
    assert (schedulers["decode_tokens_per_s"] > 0).all()
    # The scheduler of the notebook follows the flow; those that know nothing of it do not.
    branches = table(folder, "branches")
    distance = branches[list(schedulers.index)].sub(branches["flow"], axis=0).abs().mean()
    assert distance["by-flow"] < distance["random"]


def test_05_offline_simulation(notebooks: dict[str, Path], folder: Path) -> None:
    run(notebooks, "05_offline_simulation", folder)
    assert_figures(folder, "offline_throughput", "offline_timeline", "offline_nodes")
    methods = table(folder, "offline_throughput").set_index("method")
    assert methods["runs"].to_dict() == {"helix": 1, "petals": 1, "swarm": 1, "separate": 3}
    assert methods["published_simulation"].dropna().to_dict() == {
        "helix": 252.1,
        "swarm": 124.7,
        "separate": 124.3,
    }
    assert (methods["decode_tokens_per_s"] > 0).all()
    assert methods.loc["separate", "max_flow_tokens_per_s"] == pytest.approx(582.017802, abs=1e-6)
    rules = table(folder, "offline_on_full").set_index("on_full")
    assert list(rules.index) == ["wait", "drop"]
    assert rules.loc["wait", "requests_dropped"] == rules.loc["drop", "requests_queued"] == 0
    assert rules.loc["wait", "decode_tokens_per_s"] == methods.loc["helix", "decode_tokens_per_s"]
    assert len(table(folder, "offline_node_use")) == 24
    # The notebook's own policy makes smaller batches: more work for the nodes, fewer tokens, later.
    executions = table(folder, "offline_execution").set_index("execution")
    assert list(executions.index) == ["greedy", "eight-decodes"]
    greedy, eight = executions.loc["greedy"], executions.loc["eight-decodes"]
    assert greedy["decode_tokens_per_s"] == methods.loc["helix", "decode_tokens_per_s"]
    assert eight["tokens_per_batch"] < 0.9 * greedy["tokens_per_batch"]
    assert eight["busy_fraction_mean"] > greedy["busy_fraction_mean"]
    assert 0 < eight["decode_tokens_per_s"] < 0.9 * greedy["decode_tokens_per_s"]
    assert eight["decode_latency_mean_s"] > greedy["decode_latency_mean_s"]


def test_06_online_and_comparison(notebooks: dict[str, Path], folder: Path) -> None:
    run(notebooks, "06_online_and_comparison", folder)
    assert_figures(folder, "online_latencies", "online_latency_distributions", "comparison")
    comparison = table(folder, "comparison").set_index(["mode", "method"])
    assert [method for mode, method in comparison.index if mode == "online"] == [
        "helix",
        "petals",
        "swarm",
        "separate",
    ]
    assert (comparison["decode_tokens_per_s"] > 0).all()
    published = comparison["published_decode_tokens_per_s"].dropna()
    assert published["online"].to_dict() == {"helix": 141.6, "swarm": 69.8, "separate": 84.0}
    assert published["offline"].to_dict() == {"helix": 252.1, "swarm": 124.7, "separate": 124.3}
    for phase in ("prompt", "decode"):
        percentiles = comparison[[f"{phase}_latency_p{p}_s" for p in (5, 25, 50, 75, 95)]]
        assert (percentiles.diff(axis=1).iloc[:, 1:] >= 0).all(axis=None)


@pytest.mark.parametrize("name", EVALUATIONS)
def test_07_to_09_the_published_evaluation(notebooks: dict[str, Path], folder: Path, name: str) -> None:
    figure, start, published = EVALUATIONS[name]
    assert all(each.startswith(figure) for each in parameters_of(notebooks[name])["figures"])
    run(notebooks, name, folder, store=str(folder / "runs"))
    assert_figures(folder, f"{start}_throughput", f"{start}_latency")
    numbers = table(folder, f"numbers_{start}")
    assert len(numbers) == len(published_results([figure])) == published
    assert set(numbers["seeds"]) == {2}
    assert (numbers["ours"] > 0).all()
    checks = table(folder, f"{start}_checks")
    assert set(checks.loc[checks["mode"] == "online", "load"].dropna()) <= {
        "stable",
        "filling",
        "backlogged",
        "overloaded",
    }


def test_07_some_of_its_figures(notebooks: dict[str, Path], tmp_path: Path, folder: Path) -> None:
    run(notebooks, "07_single_cluster", tmp_path, figures=["5e"], store=str(folder / "runs"))
    assert set(table(tmp_path, "numbers_single_cluster")["figure"]) == {"5e"}
    assert_figures(tmp_path, "single_cluster_latency")
    assert not (tmp_path / "single_cluster_throughput.png").exists()


def test_10_deep_dives(notebooks: dict[str, Path], folder: Path) -> None:
    run(notebooks, "10_deep_dives", folder, store=str(folder / "runs"))
    assert_figures(folder, *(f"deep_dives_{name}" for name in ("throughput", "placements", "congestion")))
    numbers = table(folder, "numbers_deep_dives")
    assert numbers.groupby(["figure", "cluster"]).size().to_dict() == {
        ("10a", "geo24"): 4,
        ("10a", "single24"): 3,
        ("9a", "geo24"): 3,
        ("9a", "single24"): 3,
    }
    waiting = table(folder, "deep_dives_congestion")
    assert (waiting["run_s"] > 0).all()
    assert (waiting["wait_s"] >= 0).all()
    assert set(waiting["method"]) == {"helix", "swarm", "random", "shortest-queue"}


def test_11_ablations(notebooks: dict[str, Path], folder: Path) -> None:
    run(notebooks, "11_ablations", folder, store=str(folder / "runs"))
    assert_figures(folder, "ablation_pruning", "ablation_searches")
    numbers = table(folder, "numbers_ablations")
    solved = numbers[numbers["platform"] == "solver"]
    assert len(solved) == 6
    assert solved["met"].astype(bool).all()
    sizes = table(folder, "ablation_problem_sizes")
    for what in ("rows", "columns", "nonzeros"):
        assert sizes[what].tolist() == sizes[f"{what}_published"].tolist()
    ends = table(folder, "ablation_searches").groupby("run")["incumbent_tokens_per_s"].max()
    assert ends.to_dict() == pytest.approx({"Gurobi": 286.58741, "helixlab": 286.58741})


@pytest.mark.parametrize(
    ("name", "figures"), [("07_single_cluster", ["5a"]), ("10_deep_dives", ["9b"]), ("11_ablations", ["11b"])]
)
def test_some_figures_alone(
    notebooks: dict[str, Path], tmp_path: Path, name: str, figures: list[str]
) -> None:
    """Offline without online, pictures without runs, searches that smoke scale leaves out."""
    run(notebooks, name, tmp_path, store=str(tmp_path / "runs"), figures=figures)


def test_12_beyond_the_paper(notebooks: dict[str, Path], folder: Path) -> None:
    run(notebooks, "12_beyond_the_paper", folder, store=str(folder / "runs"))
    assert_figures(folder, *(f"beyond_{name}" for name in ("throughput", "latency", "online_70b")))
    plans = table(folder, "beyond_plans").set_index("plan")
    assert list(plans.index) == ["published", "for-greedy", "for-chunked"]
    assert plans.loc["published", "max_flow_tokens_per_s"] == pytest.approx(1289.5557702751464)
    assert (plans.loc[["for-greedy", "for-chunked"], "search_s"] > 0).all()
    served = table(folder, "beyond_offline").set_index(["plan", "policy"])["decode_tokens_per_s"]
    assert len(served) == 6
    assert served["for-chunked", "chunked"] > served["published", "chunked"]
    online = table(folder, "beyond_online")
    assert len(online) == 8
    assert set(online["load"]) <= {"stable", "filling", "backlogged", "overloaded"}
    assert online["kv_used_fraction_mean"].between(0, 1, inclusive="neither").all()
    assert len(table(folder, "findings_beyond")) == 3
    factors = table(folder, "beyond_factors")
    same = factors.query("plan == 'for-chunked' and policy == 'chunked' and published_policy == 'chunked'")
    assert same["mean"].item() == pytest.approx(
        served["for-chunked", "chunked"] / served["published", "chunked"], rel=0.05
    )


def test_14_execution(notebooks: dict[str, Path], folder: Path) -> None:
    run(notebooks, "14_execution", folder, store=str(folder / "runs"))
    pictures = (
        "strip_greedy strip_chunked cures frontier placements schedulers"
        " online_placements online_schedulers rates"
    )
    assert_figures(folder, *(f"execution_{name}" for name in pictures.split()))
    puzzle = table(folder, "execution_puzzle").set_index("what")["value"]
    assert puzzle["planned flow, prompt and decode tokens/s"] == pytest.approx(1289.5557702751464)
    assert puzzle["GPUs busy, part of the time"] < 0.45
    # Whole prompts block nodes, and what waits behind them goes on together.
    kinds = table(folder, "execution_batches").set_index("kind")
    prompts, decodes = kinds.loc["with a prompt"], kinds.loc["decodes only"]
    assert prompts["length_mean_s"] > 3 * decodes["length_mean_s"]
    assert prompts["decodes_in_next_batch_mean"] > 3 * decodes["decodes_in_next_batch_mean"]
    # Chunks are the cure; choosing who goes first and smaller batches are not.
    cures = table(folder, "execution_cures").groupby("method").mean(numeric_only=True)
    throughput = cures["decode_tokens_per_s"] / cures.loc["greedy", "decode_tokens_per_s"]
    assert set(cures.index[throughput > 1.3]) == {"chunks", "chunked"}
    assert cures.loc["chunked", "decode_latency_mean_s"] < 0.7 * cures.loc["greedy", "decode_latency_mean_s"]
    assert cures.loc["chunked", "busy_percent"] > 2 * cures.loc["greedy", "busy_percent"]
    gains = table(folder, "execution_gains").set_index("method")
    assert gains["runs"].eq(2).all()
    assert gains["mean"].to_dict() == pytest.approx((100 * (throughput - 1)).drop("greedy").to_dict(), abs=5)
    costs = table(folder, "execution_costs").query("value == 'over_greedy'").set_index("assumption")["mean"]
    assert costs["chunked, prompts 1.6"] < costs["chunked, prompts 1.3"] < costs["chunked"]
    assert costs["chunked"] < costs["chunked, no floor"]
    assert costs.drop(["greedy", "greedy, floor"]).min() > 1.1
    frontier = table(folder, "execution_frontier")
    assert frontier["chunk_tokens"].nunique() == 2
    assert frontier["on_frontier"].any()
    # Everything gains, whatever the placement and the scheduler.
    for name, by in (("placements", "method"), ("schedulers", "scheduler")):
        gained = (
            table(folder, f"execution_{name}")
            .groupby([by, "execution"])["decode_tokens_per_s"]
            .mean()
            .unstack()
        )
        cured = gained.drop(columns="greedy")
        assert (cured.gt(1.1 * gained["greedy"], axis=0)).all(axis=None), name
    orders = table(folder, "execution_orders")
    assert orders["by"].tolist() == ["planned flow", "greedy", "chunked"]
    assert orders["order"].iloc[-1] == orders["order"].iloc[0] == "helix > petals > swarm"
    assert orders["apart"].isna().tolist() == [True, False, False]
    # Online too, decodes and prompts are quicker with every placement and scheduler.
    ratios = table(folder, "execution_online_ratios").set_index("value")["mean"]
    assert len(ratios["decode_latency_mean_s"]) == 6
    assert ratios[["decode_latency_mean_s", "prompt_latency_mean_s"]].max() < 0.9
    rates = table(folder, "execution_rates")
    assert rates.groupby(["method", "rate_tokens_per_s"])["seed"].nunique().eq(2).all()
    assert rates["error"].isna().all()
    goodput = table(folder, "execution_goodput").pivot(
        index="method", columns="policy", values="goodput_requests_per_s"
    )
    assert list(goodput.index) == ["helix", "petals", "swarm"]
    assert (goodput["chunked"] > 1.5 * goodput["greedy"]).all()
    assert goodput.loc["helix", "chunked"] > 2 * goodput.loc["helix", "greedy"] > 0


# 13


def test_reading_a_result(notebooks: dict[str, Path], folder: Path) -> None:
    run(notebooks, "13_reading_a_result", folder)
    assert_figures(folder, "reading_timeline")
    two = table(folder, "reading_two_runs")
    assert two["placement"].tolist() == ["single24/llama-2-70b/example-ilp", "single24/llama-2-70b/petals"]
    assert two["placement_hash"].nunique() == 2
    times = table(folder, "reading_times").set_index("phase")
    parts = times.drop(columns=["iterations", "latency_s"]).sum(axis=1)
    assert parts.tolist() == pytest.approx(times["latency_s"].tolist())
    assert table(folder, "reading_idle")["cause"].tolist() == ["no path"]
    binding = table(folder, "reading_bottlenecks")
    of_flow = binding[binding["binds"] == "the maximum flow"]
    assert of_flow["node"].tolist() == [7, 23]
    assert (of_flow["kv_used_fraction"] < 0.12).all()
    assert (
        of_flow["passed_tokens_per_s"] < of_flow["busy_fraction"] * of_flow["capacity_tokens_per_s"]
    ).all()
    assert set(binding["binds"]) == {"the maximum flow", "this run"}
    lost = table(folder, "reading_losses")
    assert lost["tokens_per_s"].is_monotonic_decreasing
    steps = table(folder, "reading_steps")
    assert steps["placement"].iloc[-1] == "single24/llama-2-70b/for-greedy"


# Bars

LONG_CALLS = """\
import helixlab as hx
cluster, model = hx.load_cluster("small10"), hx.load_model("llama-1-30b")
placement = hx.load_placement("small10/llama-1-30b/helix")
workload = hx.offline(warmup_s=0, duration_s=20)
result = hx.simulate(cluster, model, placement, workload=workload, progress=True)
runs = hx.sweep({"placement": placement, "workload": workload}, seeds=3, progress=True)
plan = hx.plan(cluster, model, objective="flow", progress=True)
"""


def test_bars_of_long_calls_leave_a_line_each(tmp_path: Path) -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(LONG_CALLS)])
    nbformat.write(notebook, tmp_path / "long.ipynb")
    done = papermill.execute_notebook(
        tmp_path / "long.ipynb", tmp_path / "done.ipynb", kernel_name="python3", progress_bar=False
    )
    (cell,) = done.cells[-1:]
    assert not [output for output in cell.outputs if output.output_type == "stream"]
    texts = [output.data["text/plain"] for output in cell.outputs if output.output_type == "display_data"]
    assert len(texts) <= 3
    assert all(len(text.splitlines()) == 1 for text in texts)
