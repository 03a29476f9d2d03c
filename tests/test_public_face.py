"""The public face: exactly these names, light to import, each with a page of documentation."""

import ast
import inspect
import re
import subprocess
import sys

import pytest

import helixlab as hx

EXAMPLES = "\nExamples\n--------\n"
MODULES = {"errors", "plotting", "units"}
THINGS = [name for name in hx.__all__ if name not in MODULES]
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


def test_the_stub_names_each_thing_once(root):
    """What type checkers and editors read is what there is at run time."""
    stub = ast.parse((root / "helixlab" / "__init__.pyi").read_text(encoding="utf-8"))
    imports = [node for node in stub.body if isinstance(node, ast.ImportFrom)]
    named = [alias.asname for node in imports for alias in node.names]
    assert all(alias.asname == alias.name for node in imports for alias in node.names)
    assert sorted(named) == sorted(hx.__all__) == sorted(dir(hx))
    assert len(set(named)) == len(named)


def test_modules_are_few():
    assert {name for name in hx.__all__ if inspect.ismodule(getattr(hx, name))} == MODULES


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
