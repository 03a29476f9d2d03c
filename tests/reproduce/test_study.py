"""Running the notebooks: order, parameters, interpreter, what is written, and how it fails."""

import fcntl
import importlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

from helixlab import cli
from helixlab.errors import HelixlabError, NotebookError
from helixlab.reproduce import numbered_notebooks, reproduce
from helixlab.reproduce.records import data_digest, take_over

PARAMETERS = 'scale = "full"\nseed = 7\noutput = "nowhere"'
WRITES = """\
import sys
from pathlib import Path
Path(output).mkdir(parents=True, exist_ok=True)
with open(Path(output, "{name}.txt"), "a") as log:
    print({name!r}, scale, seed, sys.executable, Path.cwd().name, file=log)
"""

# The Jupyter packages warn of their own future; that is not what is tested here.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


def notebook(*sources, tagged=True):
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    if tagged:
        cells[0].metadata["tags"] = ["parameters"]
    return nbformat.v4.new_notebook(cells=cells)


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "notebooks"
    path.mkdir()
    return path


def write(folder, name, *sources, **options):
    nbformat.write(notebook(*sources, **options), folder / name)


def test_notebooks_run_in_order_with_their_parameters(folder, tmp_path, monkeypatch):
    # A kernel that the user has installed under the usual name is not the one that runs.
    kernel = tmp_path / "data" / "kernels" / "python3"
    kernel.mkdir(parents=True)
    (kernel / "kernel.json").write_text('{"argv": ["false"], "display_name": "x", "language": "python"}')
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "data"))
    # Nor do they draw for a machine without a screen, as these tests do.
    monkeypatch.setenv("MPLBACKEND", "agg")
    draws = "import matplotlib.pyplot as plt\nplt.plot([1, 2])"
    for name in ("10_last", "02_first"):
        write(folder, f"{name}.ipynb", PARAMETERS, WRITES.format(name=name), draws)
    write(folder, "draft.ipynb", "1 / 0", tagged=False)
    output = tmp_path / "figures"

    table = reproduce(folder, scale="smoke", seed=3, output=output)

    for name in ("02_first", "10_last"):
        assert (output / f"{name}.txt").read_text() == f"{name} smoke 3 {sys.executable} notebooks\n"
    assert list(table["notebook"]) == ["02_first", "10_last"]
    assert (table["wall_s"] > 0).all()
    copies = sorted((output / "executed").glob("*.ipynb"))
    assert [str(path) for path in copies] == list(table["executed"])
    for path in copies:
        executed = nbformat.read(path, as_version=4)
        assert all(cell.execution_count for cell in executed.cells if cell.cell_type == "code")
        assert any("image/png" in output.get("data", {}) for output in executed.cells[-1].outputs)
        assert repr(str(output)) in path.read_text().replace('\\"', "'")  # where its files are in the end
    for path in folder.iterdir():
        assert not any(cell.get("execution_count") for cell in nbformat.read(path, as_version=4).cells)
    assert os.environ["JUPYTER_PATH"] == str(tmp_path / "data")


def test_a_notebook_that_fails(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("JUPYTER_PATH", raising=False)
    write(folder, "1_bad.ipynb", PARAMETERS, "raise ValueError('first line\\nsecond line')")
    write(folder, "2_never.ipynb", PARAMETERS, WRITES.format(name="2_never"))
    output = tmp_path / "figures"
    arguments = ["--scale", "smoke", "--jobs", "1", "--notebooks", str(folder), "--output", str(output)]
    assert cli.main(["reproduce", *arguments]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "1_bad.ipynb failed with ValueError: first line;" in lines[0]
    copy = output / "executed" / "1_bad.ipynb"
    assert str(copy) in lines[0]
    assert "second line" in copy.read_text()
    assert sorted(contents(output)) == ["executed/1_bad.ipynb"]
    assert "JUPYTER_PATH" not in os.environ


@pytest.mark.parametrize(
    ("sources", "tagged", "missing"),
    [
        (["scale = 'full'\nseed = 0", "output = 1"], True, "output"),
        ([PARAMETERS], False, "scale"),
        (["pass"], True, "scale"),
    ],
)
def test_parameters_a_notebook_does_not_have(folder, tmp_path, sources, tagged, missing):
    write(folder, "1_fine.ipynb", PARAMETERS, WRITES.format(name="1_fine"))
    write(folder, "2_bad.ipynb", *sources, tagged=tagged)
    with pytest.raises(NotebookError, match=f"2_bad.ipynb has no parameter '{missing}'"):
        reproduce(folder, output=tmp_path / "figures")
    assert not (tmp_path / "figures").exists()


@pytest.mark.parametrize("content", ["", "{}", "[1, 2", "\x00\x01", '{"cells": 3, "nbformat": 4}'])
def test_files_that_are_no_notebooks(folder, tmp_path, content):
    (folder / "1_bad.ipynb").write_text(content)
    with pytest.raises(HelixlabError, match=r"1_bad.ipynb"):
        reproduce(folder, output=tmp_path / "figures")


def test_no_notebooks(folder):
    for place in (folder, folder / "missing", Path(__file__)):
        with pytest.raises(NotebookError, match="holds no notebooks"):
            numbered_notebooks(place)


def test_scales():
    with pytest.raises(HelixlabError, match="scale is 'vast'; give one of smoke, full"):
        reproduce("notebooks", scale="vast")


@pytest.mark.parametrize("missing", ["papermill", "ipykernel"])
def test_without_the_packages_for_notebooks(folder, monkeypatch, missing):
    write(folder, "1_fine.ipynb", PARAMETERS)

    def import_module(name):
        if name == missing:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return importlib.import_module(name)

    monkeypatch.setattr("helixlab.reproduce.kernel.import_module", import_module)
    with pytest.raises(
        NotebookError, match=rf"without the package {missing}; pip install 'helixlab\[notebooks\]'"
    ):
        reproduce(folder)


COUNTS = """\
from pathlib import Path
import json
Path(output, "{name}.json").write_text(json.dumps([scale, seed]))
with open({log!r}, "a") as log:
    print({name!r}, file=log)
"""


@pytest.fixture
def log(tmp_path):
    """Where the notebooks say that they ran."""
    path = tmp_path / "log.txt"
    path.touch()
    return path


def write_counting(folder, log, *names, parameters=PARAMETERS):
    for name in names:
        write(folder, f"{name}.ipynb", parameters, COUNTS.format(name=name, log=str(log)))


def ran(log):
    """Which notebooks ran since this was last asked."""
    names = sorted(log.read_text().split())
    log.write_text("")
    return names


def contents(output):
    files = [path for path in output.rglob("*") if path.is_file() and path.name != ".lock"]
    return {str(path.relative_to(output)): path.read_bytes() for path in files}


@pytest.fixture
def pretended(monkeypatch):
    """Names of the notebooks that were run since this was last asked; nothing is run, files are made."""
    ran = []

    def run_all(jobs, target, *_):
        records = {}
        for job in jobs:
            made = target / ".parts" / job.notebook.name
            (made / "executed").mkdir(parents=True)
            (made / "executed" / job.notebook.path.name).write_text("{}")
            (made / f"{job.notebook.name}.json").write_text(json.dumps(job.parameters))
            ran.append(job.notebook.name)
            records[job.notebook.name] = take_over(
                made, target, job.notebook.name, key=job.key, parameters=job.parameters, wall_s=1.5
            )
        shutil.rmtree(target / ".parts")
        return records

    monkeypatch.setattr(sys.modules[reproduce.__module__], "_run_all", run_all)

    def since():
        names, ran[:] = sorted(ran), []
        return names

    return since


def test_what_is_finished_is_not_run_again(folder, tmp_path, pretended):
    write(folder, "1_one.ipynb", PARAMETERS)
    write(folder, "2_two.ipynb", PARAMETERS)
    output = tmp_path / "figures"
    first = reproduce(folder, scale="smoke", n_jobs=2, output=output)
    assert pretended() == ["1_one", "2_two"]
    assert first["fresh"].all()
    before = contents(output)
    assert "REPORT.md" in before
    again = reproduce(folder, scale="smoke", output=output)
    assert pretended() == []
    assert not again["fresh"].any()
    assert again["wall_s"].tolist() == [1.5, 1.5]
    assert contents(output) == before


def test_scales_have_folders_of_their_own(folder, tmp_path, pretended, monkeypatch):
    write(folder, "1_one.ipynb", PARAMETERS)
    monkeypatch.chdir(tmp_path)
    reproduce(folder)
    full = contents(tmp_path / "figures")
    reproduce(folder, scale="smoke")
    assert (tmp_path / "figures" / "smoke" / "REPORT.md").exists()
    assert full.items() <= contents(tmp_path / "figures").items()
    assert pretended() == ["1_one", "1_one"]
    assert not reproduce(folder)["fresh"].any()


def test_nothing_stale_is_taken_for_fresh(folder, tmp_path, pretended, monkeypatch):
    write(folder, "1_one.ipynb", PARAMETERS)
    write(folder, "2_two.ipynb", PARAMETERS)
    output = tmp_path / "figures"

    def reproduced(**changes):
        reproduce(folder, **{"scale": "full", "seed": 1, "output": output, **changes})
        return pretended()

    assert reproduced(scale="smoke", seed=0) == ["1_one", "2_two"]
    assert reproduced(scale="smoke") == ["1_one", "2_two"]
    assert reproduced() == ["1_one", "2_two"]
    assert json.loads((output / "1_one.json").read_text()) == {"scale": "full", "seed": 1}
    assert reproduced() == []
    # A figure that somebody changed, or removed; a record that is not whole, or points elsewhere.
    (output / "1_one.json").write_text("made up")
    assert reproduced() == ["1_one"]
    (output / "2_two.json").unlink()
    assert reproduced() == ["2_two"]
    record = output / "executed" / "1_one.json"
    record.write_text("{")
    assert reproduced() == ["1_one"]
    precious = tmp_path / "precious"
    precious.touch()
    record.write_text(record.read_text().replace("1_one.json", "../precious"))
    assert reproduced() == ["1_one"]
    assert precious.exists()
    # The notebook, the library, the data, the versions.
    write(folder, "2_two.ipynb", PARAMETERS + "\n")
    assert reproduced() == ["2_two"]
    for what in ("library_digest", "data_digest", "_versions"):
        monkeypatch.setattr(f"helixlab.reproduce.records.{what}", lambda: "another")
        assert reproduced() == ["1_one", "2_two"]
    assert reproduced() == []


def test_a_changed_data_file_is_other_data(tmp_path, monkeypatch):
    (tmp_path / "sub").mkdir()
    for name in ("a.csv", "sub/b.json"):
        (tmp_path / name).write_text("1")
    monkeypatch.setattr("helixlab.reproduce.records.data_file", lambda: tmp_path)
    digests = [data_digest.__wrapped__()]
    for name, text in (("a.csv", "2"), ("sub/b.json", "2"), ("sub/c.json", "")):
        (tmp_path / name).write_text(text)
        digests.append(data_digest.__wrapped__())
    assert len(set(digests)) == 4
    (tmp_path / "sub" / "c.json").unlink()
    assert data_digest.__wrapped__() == digests[2]


def test_what_was_there_stays_until_it_is_made_anew(folder, tmp_path, pretended, monkeypatch):
    write(folder, "1_one.ipynb", PARAMETERS)
    output = tmp_path / "figures"
    reproduce(folder, output=output)
    before = contents(output)

    def fails(*_):
        raise NotebookError("no")

    with monkeypatch.context() as patch:
        patch.setattr(sys.modules[reproduce.__module__], "_run_all", fails)
        write(folder, "1_one.ipynb", PARAMETERS, "1 / 0")
        with pytest.raises(NotebookError, match="no"):
            reproduce(folder, output=output)
    assert contents(output) == before
    assert pretended() == ["1_one"]
    reproduce(folder, output=output)
    assert pretended() == ["1_one"]


def test_a_failed_run_costs_only_the_copy_that_shows_where(folder, tmp_path):
    writes = "from pathlib import Path\nPath(output, 'one.txt').write_text(str(seed))"
    write(folder, "1_one.ipynb", PARAMETERS, writes, "assert seed < 2 or seed > 8")
    output = tmp_path / "figures"
    reproduce(folder, seed=1, output=output)
    before = contents(output)
    with pytest.raises(NotebookError, match=r"1_one.ipynb failed with AssertionError"):
        reproduce(folder, seed=2, output=output)
    after = contents(output)
    assert set(after) == set(before)
    assert {name for name in before if before[name] != after[name]} == {"executed/1_one.ipynb"}
    assert reproduce(folder, seed=9, output=output)["fresh"].all()
    assert (output / "one.txt").read_text() == "9"


@pytest.fixture
def taken_over(tmp_path):
    """Let a made-up notebook write some files, and take them over."""

    def take(name, key, *files):
        made = tmp_path / "made"
        for file in files:
            made.mkdir(exist_ok=True)
            (made / file).write_text(f"{name} {key}")
        return take_over(made, tmp_path / "figures", name, key=key, parameters={}, wall_s=1.0)

    return take


def test_only_what_is_made_no_more_is_removed(taken_over, tmp_path):
    output = tmp_path / "figures"
    taken_over("1_one", "a", "kept.txt", "dropped.txt", "handed_on.txt")
    taken_over("2_two", "a", "other.txt", "handed_on.txt")
    (output / "mine.txt").touch()
    taken_over("1_one", "b", "kept.txt", "new.txt")
    files = {name: content.decode() for name, content in contents(output).items() if "executed" not in name}
    assert files == {
        "kept.txt": "1_one b",
        "new.txt": "1_one b",
        "other.txt": "2_two a",
        "handed_on.txt": "2_two a",
        "mine.txt": "",
    }


def test_no_room_for_the_record_changes_nothing(taken_over, tmp_path, monkeypatch):
    taken_over("1_one", "a", "kept.txt", "dropped.txt")
    before = contents(tmp_path / "figures")

    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr("helixlab.reproduce.records.write_json", full)
    with pytest.raises(OSError, match="no space"):
        taken_over("1_one", "b", "kept.txt", "new.txt")
    assert contents(tmp_path / "figures") == before


def test_a_swap_that_was_cut_short_is_made_again(folder, tmp_path, pretended, monkeypatch):
    write(folder, "1_one.ipynb", PARAMETERS)
    write(folder, "2_two.ipynb", PARAMETERS)
    output = tmp_path / "figures"
    reproduce(folder, output=output)
    before = contents(output)
    assert pretended() == ["1_one", "2_two"]
    replace = os.replace

    def stops_at_the_record(source, to):
        if Path(to) == output / "executed" / "1_one.json":
            raise KeyboardInterrupt
        replace(source, to)

    with monkeypatch.context() as patch:
        patch.setattr("helixlab.reproduce.records.os.replace", stops_at_the_record)
        with pytest.raises(KeyboardInterrupt), pytest.warns(UserWarning, match="0 of 2 notebooks are"):
            reproduce(folder, seed=1, output=output)
    assert set(before) <= set(contents(output))
    shutil.rmtree(output / ".parts")  # a real call begins with this
    pretended()
    reproduce(folder, output=output)
    assert pretended() == ["1_one"]
    assert contents(output) == before


@pytest.mark.slow
def test_a_killed_call_goes_on_where_it_was(folder, log, tmp_path):
    write_counting(folder, log, "1_quick")
    slow = "import time\ntime.sleep(60 if not Path(output).parents[1].joinpath('go').exists() else 0)"
    write(folder, "2_slow.ipynb", PARAMETERS, COUNTS.format(name="2_slow", log=str(log)), slow)
    output = tmp_path / "figures"
    arguments = f"{str(folder)!r}, n_jobs=2, output={str(output)!r}"
    call = f"from helixlab.reproduce import reproduce; reproduce({arguments})"
    child = subprocess.Popen([sys.executable, "-c", call], stderr=subprocess.DEVNULL)
    for _ in range(600):
        if (output / "executed" / "1_quick.json").exists() and "2_slow" in log.read_text():
            break
        assert child.poll() is None
        time.sleep(0.1)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert ran(log) == ["1_quick", "2_slow"]
    assert not (output / "2_slow.json").exists()  # it had written it, but had not ended
    assert not (output / "REPORT.md").exists()
    (output / "go").touch()
    table = reproduce(folder, output=output)
    assert ran(log) == ["2_slow"]
    assert table["fresh"].tolist() == [False, True]
    assert (output / "2_slow.json").exists()
    assert not (output / ".parts").exists()


@pytest.mark.slow
def test_an_interrupted_call_says_how_far_it_came(folder, log, tmp_path):
    write_counting(folder, log, "1_quick")
    slow = "import time\ntime.sleep(60 if not Path(output).parents[1].joinpath('go').exists() else 0)"
    write(folder, "2_slow.ipynb", PARAMETERS, COUNTS.format(name="2_slow", log=str(log)), slow)
    output = tmp_path / "figures"
    arguments = ["reproduce", "--jobs", "2", "--notebooks", str(folder), "--output", str(output)]
    # A process that is started in the background of a script does not hear Ctrl-C by itself.
    call = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"
        f"from helixlab import cli; sys.exit(cli.main({arguments!r}))"
    )
    child = subprocess.Popen([sys.executable, "-c", call], stderr=subprocess.PIPE, text=True)
    for _ in range(600):
        if (output / "executed" / "1_quick.json").exists() and "2_slow" in log.read_text():
            break
        assert child.poll() is None
        time.sleep(0.1)
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=60)
    assert child.returncode == 130
    told = f"interrupted; 1 of 2 notebooks is finished in {output}; the same call goes on with the others"
    assert said.splitlines() == [f"helixlab: warning: {told}", "helixlab: interrupted"]
    ran(log)
    (output / "go").touch()
    assert cli.main(arguments) == 0
    assert ran(log) == ["2_slow"]


@pytest.mark.slow
def test_a_full_disk_leaves_nothing_half_made(folder, log, tmp_path):
    """No file may grow beyond a limit, as if the disk were full there; with room again, all is as ever."""
    write_counting(folder, log, "1_small")
    large = "Path(output, 'large.txt').write_text('x' * 50_000)"
    write(folder, "2_large.ipynb", PARAMETERS, f"from pathlib import Path\n{large}")
    usual, output = tmp_path / "usual", tmp_path / "figures"
    reproduce(folder, n_jobs=2, output=usual)
    # One notebook ends before the other begins.
    command = [sys.executable, "-m", "helixlab", "reproduce", "--jobs", "1"]
    for limit in (500, 20_000):
        done = subprocess.run(
            [*command, "--notebooks", folder, "--output", output],
            preexec_fn=lambda limit=limit: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
            # Python keeps what it could write of its bytecode, and trips over it later.
            env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 2
        last = done.stderr.splitlines()[-1]
        if limit == 500:  # what could not be written is told, not what was to be run
            copy = output / "executed" / "1_small.ipynb"
            assert last.startswith(f"helixlab: {copy} cannot be written (File too large); free some space")
        else:
            assert last.startswith("helixlab: 2_large.ipynb failed with OSError")
        assert not {"REPORT.md", "large.txt", "executed/2_large.json"} & set(contents(output))
    ran(log)
    table = reproduce(folder, output=output)
    assert ran(log) == []  # it was finished when only the large one found no room
    assert table["fresh"].tolist() == [False, True]
    assert set(contents(output)) == set(contents(usual))
    for name in ("1_small.json", "large.txt"):
        assert contents(output)[name] == contents(usual)[name]


def test_notebooks_are_chosen_by_figure(folder, log, tmp_path):
    figures = PARAMETERS + "\nfigures = {}\nseeds = 5\nstore = 'nowhere'"
    shows = "from pathlib import Path\nPath(output, f'{figures} {seeds}.txt').write_text(store)"
    write(folder, "1_five.ipynb", figures.format(["5a", "5b"]), shows)
    write(folder, "2_eight.ipynb", figures.format(["8a"]), shows)
    write_counting(folder, log, "3_other")
    output = tmp_path / "figures"
    table = reproduce(folder, figures=["5b", "8"], seeds=3, output=output)
    assert table["notebook"].tolist() == ["1_five", "2_eight"]
    assert (output / "['5b'] 3.txt").read_text() == str(output / "runs")
    assert (output / "['8a'] 3.txt").exists()
    with pytest.raises(NotebookError, match=r"no notebook makes figure '6'; give any of 5a, 5b, 8a"):
        reproduce(folder, figures=["6"], output=output)


FIGURES = PARAMETERS + "\nfigures = ['5a', '5b']\nseeds = 5"


def made_with(output):
    """What the report says that it was made with."""
    return (output / "REPORT.md").read_text().split("## Made with")[1]


def test_figures_that_are_there_are_not_made_again(folder, tmp_path, pretended):
    write(folder, "1_five.ipynb", FIGURES)
    write(folder, "2_other.ipynb", PARAMETERS)
    output = tmp_path / "figures"
    reproduce(folder, output=output)
    before = contents(output)
    assert pretended() == ["1_five", "2_other"]

    table = reproduce(folder, figures=["5a"], output=output)
    assert table[["notebook", "fresh"]].to_numpy().tolist() == [["1_five", False]]
    assert pretended() == []
    assert contents(output) == before  # the report is of everything, as it was

    # Other parameters, or a figure that is not there, are another matter.
    reproduce(folder, figures=["5a"], seeds=3, output=output)
    assert pretended() == ["1_five"]
    assert json.loads((output / "1_five.json").read_text())["figures"] == ["5a"]
    for asked, run in ((["5a"], []), (["5"], ["1_five"]), (["5b"], [])):
        reproduce(folder, figures=asked, seeds=3, output=output)
        assert pretended() == run
    (output / "1_five.json").write_text("changed")
    reproduce(folder, figures=["5a"], seeds=3, output=output)
    assert pretended() == ["1_five"]


def test_a_record_that_names_figures_it_has_not_is_not_believed(folder, tmp_path, pretended):
    write(folder, "1_five.ipynb", FIGURES)
    output = tmp_path / "figures"
    record = output / "executed" / "1_five.json"
    for parameters in ({"figures": ["5a", "5b"]}, {"figures": 3}, {}, None, "5a"):
        reproduce(folder, figures=["5a"], output=output)
        assert pretended() == ["1_five"]
        content = json.loads(record.read_text())
        content["parameters"] = parameters
        record.write_text(json.dumps(content))


def test_the_report_is_of_all_that_is_finished(folder, tmp_path, pretended):
    write(folder, "10_last.ipynb", PARAMETERS)
    write(folder, "2_five.ipynb", FIGURES)
    write(folder, "3_stale.ipynb", PARAMETERS)
    write(folder, "4_changed.ipynb", PARAMETERS)
    output = tmp_path / "figures"
    reproduce(folder, output=output)
    assert "Notebooks 2_five, 3_stale, 4_changed, 10_last, at full scale, their own" in made_with(output)
    write(folder, "3_stale.ipynb", PARAMETERS + "\n")
    (output / "4_changed.json").write_text("changed")
    reproduce(folder, figures=["5"], output=output)
    assert "Notebooks 2_five, 10_last, at full scale, their own number of seeds; helixlab" in made_with(
        output
    )
    assert (output / "3_stale.json").exists()
    # What was made at another scale is no part of it.
    reproduce(folder, figures=["5"], scale="smoke", output=output)
    assert "Notebooks 2_five, at smoke scale" in made_with(output)


def test_the_report_says_what_was_made_with_other_seeds(folder, tmp_path, pretended):
    write(folder, "1_five.ipynb", FIGURES)
    write(folder, "2_eight.ipynb", FIGURES.replace("5a", "8a").replace("5b", "8b"))
    output = tmp_path / "figures"
    reproduce(folder, output=output)
    reproduce(folder, figures=["8"], seeds=5, output=output)  # its own number
    assert "Notebooks 1_five, 2_eight, at full scale, 5 seeds; helixlab" in made_with(output)
    reproduce(folder, figures=["8"], seed=1, seeds=3, output=output)
    line = "at full scale, 3 seeds; finished before with other parameters: 1_five (seed 0, seeds 5); helixlab"
    assert line in made_with(output)


def test_two_calls_do_not_write_to_one_folder(folder, tmp_path, pretended):
    write(folder, "1_one.ipynb", PARAMETERS)
    output = tmp_path / "figures"
    output.mkdir()
    with (output / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(NotebookError, match="another call of reproduce is writing to"):
            reproduce(folder, output=output)
    reproduce(folder, output=output)
    assert pretended() == ["1_one"]


@pytest.mark.parametrize("wrong", [{"n_jobs": 0}, {"seeds": 0}, {"n_jobs": True}, {"seeds": 2.5}])
def test_numbers_that_make_no_sense(folder, wrong):
    with pytest.raises(
        NotebookError, match=r"give (a whole number of at least 1|the number of runs at a time)"
    ):
        reproduce(folder, **wrong)
