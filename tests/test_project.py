"""The project keeps its own promises: one set of facts in its files, one direction of data in its modules."""

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import helixlab

TOP_LEVEL = {
    "helixlab",
    "notebooks",
    "data",
    "docs",
    "figures",
    "tests",
    "environment.yml",
    "pyproject.toml",
    "Makefile",
    "README.md",
    "CITATION.cff",
    "LICENSE",
}
HIDDEN = {".ci", ".gitignore", ".gitattributes"}

# A part imports from its own level or from one before it, never from one after it.
LEVELS = [
    {
        "_equality",
        "_validation",
        "errors",
        "units",
        "_io",
        "_html",
        "_interrupts",
        "_memory",
        "_naming",
        "_parents",
        "_progress",
        "_data",
        "data",
        "_code_cache",
        "_jit",
    },
    {"cluster"},
    {"model"},
    {"workload"},
    {"placement"},
    {"flow"},
    {"engine"},
    {"scheduling"},
    {"execution"},
    {"_hashing"},
    {"simulation"},
    {"planning"},
    {"diagnosis"},
    {"experiments"},
    {"reproduce"},
    {"plotting"},
    {"cli", "__main__"},
]
LEVEL_OF = {part: level for level, parts in enumerate(LEVELS) for part in parts}

# Libraries that are slow to import belong to these parts alone.
OWNERS = {
    "matplotlib": {"plotting"},
    "seaborn": {"plotting"},
    "highspy": {"planning"},
    "cvxpy": {"planning"},
    "numba": {"_jit", "engine", "scheduling", "execution", "planning"},
}

# The few packages whose module has another name than the distribution would be listed here.
DISTRIBUTION_OF_MODULE: dict[str, str] = {}
PYPI_NAME_OF_CONDA_NAME: dict[str, str] = {}

RUNS_WHAT_A_FILE_HOLDS = {"cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve"}
WORKERS_ONLY = {
    "joblib.Parallel",
    "joblib.delayed",
    "joblib.effective_n_jobs",
    "joblib.parallel.get_active_backend",
}  # they talk to processes and read no files
PICKLES = {
    "helixlab.experiments.worker": {
        "cloudpickle.Pickler",
        "cloudpickle.list_registry_pickle_by_value",
        "cloudpickle.loads",
        "cloudpickle.register_pickle_by_value",
        "cloudpickle.unregister_pickle_by_value",
    }
}  # policies that a process sends to the workers it started; `load`, which reads files, is not among them
UNPICKLES = {"helixlab.experiments.worker": ["loads(packed.content)"]}


@pytest.fixture(scope="module")
def pyproject(root: Path) -> dict[str, Any]:
    return tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def modules(root: Path) -> dict[str, ast.Module]:
    """Syntax tree of every module of the library, by its dotted name; a package by its own name."""
    trees = {}
    for path in sorted((root / "helixlab").rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        trees[name] = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    return trees


def requirements(lines: list[str]) -> dict[str, str]:
    """Bound of each named package, for instance ``{"numpy": ">=2.0"}``."""
    matches = [re.fullmatch(r"([A-Za-z0-9_.-]+?)\s*([<>=!~].*)?", line) for line in lines]
    assert all(matches), lines
    return {match[1]: match[2] or "" for match in matches if match}


def imports(name: str, tree: ast.Module, known: set[str]) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything a module imports, type-checking blocks included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}:{node.lineno}: write the import in full"
            origin = node.module or ""
            for alias in node.names:
                whole = f"{origin}.{alias.name}"
                yield node.lineno, whole if whole in known else origin


def part_of(module: str) -> str:
    """The part of helixlab a module belongs to; empty for the package's own front."""
    return [*module.split("."), ""][1]


# Files that state the same facts


def test_environment_has_the_packages_of_pyproject(root: Path, pyproject: dict[str, Any]) -> None:
    environment = yaml.safe_load((root / "environment.yml").read_text(encoding="utf-8"))
    assert environment["name"] == pyproject["project"]["name"]
    assert environment["channels"] == ["conda-forge"]

    *packages, from_pip = environment["dependencies"]
    assert from_pip == {"pip": ["-e ."]}
    conda = {PYPI_NAME_OF_CONDA_NAME.get(n, n): bound for n, bound in requirements(packages).items()}
    assert conda.pop("python") == pyproject["project"]["requires-python"]
    assert conda.pop("pip") == ""

    project = pyproject["project"]
    runtime = requirements(project["dependencies"])
    assert conda == runtime | requirements(project["optional-dependencies"]["notebooks"])


def test_a_package_has_one_bound_everywhere(pyproject: dict[str, Any]) -> None:
    project = pyproject["project"]
    bounds: dict[str, set[str]] = {}
    for lines in [project["dependencies"], *map(project["optional-dependencies"].get, ["notebooks", "test"])]:
        for name, bound in requirements(lines).items():
            bounds.setdefault(name, set()).add(bound)
    assert {name: found for name, found in bounds.items() if len(found) > 1 or "" in found} == {}


def test_every_library_used_is_declared(pyproject: dict[str, Any], modules: dict[str, ast.Module]) -> None:
    known = set(modules)
    used = {
        module.split(".")[0] for name, tree in modules.items() for _, module in imports(name, tree, known)
    }
    used -= sys.stdlib_module_names | {"helixlab"}
    declared = set(requirements(pyproject["project"]["dependencies"]))
    assert {DISTRIBUTION_OF_MODULE.get(module, module) for module in used} <= declared


def test_version_is_one(root: Path, pyproject: dict[str, Any]) -> None:
    citation = yaml.safe_load((root / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= set(citation)
    assert citation["version"] == pyproject["project"]["version"] == helixlab.__version__
    assert citation["license"] == pyproject["project"]["license"]


def test_licence_is_the_whole_apache_text(root: Path) -> None:
    text = (root / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text
    assert "http://www.apache.org/licenses/LICENSE-2.0" in text


def test_packages_listed_are_the_folders(root: Path, pyproject: dict[str, Any]) -> None:
    folders = {path.parent for path in (root / "helixlab").rglob("*.py")}
    packages = {".".join(folder.relative_to(root).parts) for folder in folders} | {"helixlab.data"}
    assert set(pyproject["tool"]["setuptools"]["packages"]) == packages
    assert [folder for folder in folders if not (folder / "__init__.py").is_file()] == []


# The tree


def test_top_level_is_the_owners(project_files: list[Path]) -> None:
    found = {path.parts[0] for path in project_files}
    assert found - HIDDEN <= TOP_LEVEL, "move what is new into one of the folders"
    assert (TOP_LEVEL - {"notebooks"}) | HIDDEN <= found


def test_data_is_reached_as_a_package_only(root: Path) -> None:
    assert not (root / "helixlab" / "data").exists()


def test_no_machine_paths(root: Path, project_files: list[Path]) -> None:
    path_of_a_machine = re.compile(rb"(?<![\w.:/-])/(?:work|root|home/\w+|Users/\w+)/")
    found = [str(path) for path in project_files if path_of_a_machine.search((root / path).read_bytes())]
    assert found == []


def test_notebooks_are_committed_without_outputs(root: Path, project_files: list[Path]) -> None:
    for path in project_files:
        if path.suffix != ".ipynb":
            continue
        # What git holds counts: a notebook run by its reader has outputs, and that is fine.
        committed = subprocess.run(
            ["git", "show", f":{path.as_posix()}"], cwd=root, capture_output=True, check=False
        )
        text = committed.stdout if committed.returncode == 0 else (root / path).read_bytes()
        cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
        left = [i for i, cell in enumerate(cells) if cell["outputs"] or cell["execution_count"] is not None]
        assert left == [], f"{path}: clear the outputs of its code cells {left}"


# The modules


def test_nothing_that_a_file_holds_is_run(modules: dict[str, ast.Module]) -> None:
    known, found = {*modules, *WORKERS_ONLY, *(each for names in PICKLES.values() for each in names)}, []
    for name, tree in modules.items():
        allowed = WORKERS_ONLY | PICKLES.get(name, set())
        found += [
            (name, line, module)
            for line, module in imports(name, tree, known)
            if module.split(".")[0] in RUNS_WHAT_A_FILE_HOLDS and module not in allowed
        ]
        calls = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Call)]
        unpickled = [call for call in calls if call.startswith("loads(")]
        assert unpickled == UNPICKLES.get(name, []), name
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            runs = called in {"eval", "exec", "read_pickle", "to_pickle"} or (
                called == "compile" and isinstance(node.func, ast.Name)
            )
            unpickles = any(keyword.arg == "allow_pickle" for keyword in node.keywords)
            if runs or unpickles:
                found.append((name, node.lineno, called))
    assert found == []


def test_no_import_inside_a_function(modules: dict[str, ast.Module]) -> None:
    found = {
        (name, inner.lineno)
        for name, tree in modules.items()
        for outer in ast.walk(tree)
        if isinstance(outer, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for inner in ast.walk(outer)
        if isinstance(inner, ast.Import | ast.ImportFrom)
    }
    assert found == set()


def test_data_flows_one_way(modules: dict[str, ast.Module]) -> None:
    known, wrong = {*modules, "helixlab.data"}, []
    unknown = {part_of(name) for name in modules} - set(LEVEL_OF) - {""}
    assert unknown == set(), "give the part its place in LEVELS"
    for name, tree in modules.items():
        part = part_of(name)
        if part == "":
            continue  # the front of the package shows everything
        for line, module in imports(name, tree, known):
            if module.split(".")[0] != "helixlab":
                continue
            # The front counts as the end of the flow: the command line alone may use it.
            level = LEVEL_OF[part_of(module)] if part_of(module) else len(LEVELS) - 1
            if level > LEVEL_OF[part]:
                wrong.append(f"{name}:{line} imports {module}")
    assert wrong == []


def test_slow_libraries_have_owners(modules: dict[str, ast.Module]) -> None:
    known, wrong, highspy = set(modules), [], set()
    for name, tree in modules.items():
        for line, module in imports(name, tree, known):
            library = module.split(".")[0]
            if library in OWNERS and part_of(name) not in OWNERS[library]:
                wrong.append(f"{name}:{line} imports {module}")
            if library == "highspy":
                highspy.add(name)
    assert wrong == []
    assert len(highspy) <= 1, "one module drives the solver"


def test_import_helixlab_is_light(tmp_path: Path) -> None:
    code = "import sys, helixlab; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert set(done.stdout.split()) & set(OWNERS) == set()


def test_data_is_found_from_any_folder(root: Path, tmp_path: Path) -> None:
    code = (
        "from importlib.resources import files; print(files('helixlab.data').joinpath('README.md').is_file())"
    )
    for folder in (root, tmp_path):
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True
        )
        assert done.stdout.split() == ["True"]
