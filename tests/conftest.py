"""What every test shares: reproducible property tests, no windows, and the files of the tree."""

import fnmatch
import os
import signal
import subprocess
from pathlib import Path

import hypothesis
import pytest

from helixlab._code_cache import share

os.environ.setdefault("MPLBACKEND", "Agg")

# Where no cache can be written, what the tests compile is compiled once for all of their processes.
share()

# A process that a script starts in the background ignores Ctrl-C, and so would what the tests press it in.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Compiling the engine takes longer than any deadline, and a failure must come back in the next run.
hypothesis.settings.register_profile("helixlab", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("helixlab")

ROOT = Path(__file__).resolve().parent.parent


def _walk(folder: Path, ignored: list[str]) -> list[Path]:
    found = []
    for path in sorted(folder.iterdir()):
        if any(fnmatch.fnmatch(path.name, pattern) for pattern in ignored):
            continue
        found += _walk(path, ignored) if path.is_dir() else [path]
    return found


@pytest.fixture(scope="session")
def root() -> Path:
    """The top of the source tree."""
    return ROOT


@pytest.fixture(scope="session")
def project_files(root: Path) -> list[Path]:
    """Every file of the project, relative to `root`: what git tracks, or all there is without git."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True, check=False)
    if listed.returncode == 0 and listed.stdout:
        paths = [root / name for name in listed.stdout.split("\0") if name]
        return [path.relative_to(root) for path in paths if path.is_file()]
    lines = (root / ".gitignore").read_text(encoding="utf-8").splitlines()
    ignored = [line for line in lines if line and line[0] not in "#!" and "/" not in line]
    kept = [path.relative_to(root) for path in _walk(root, [*ignored, ".git"])]
    return [path for path in kept if path.parts[0] != "figures" or path.name == "README.md"]
