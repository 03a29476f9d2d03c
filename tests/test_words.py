"""One word for one thing: words that names and docstrings of the library do without."""

import ast
import io
import re
import tokenize
from pathlib import Path
from typing import NamedTuple

import pytest

WORDS = {
    "query|queries": "request",
    "evict|evicts|evicted|evicting|eviction": "preempt",
    "foretell|foretells|foretold": "predict",
    "told": "explained, stated",
    "watch|watches|watched": "SearchClock, SolverMonitor, ProgressTable",
    "room|rooms|roomy": "free KV cache, capacity, workspace",
    "quiet|quietly": "silent",
}
"""Whole words, as parts of names and in prose, and the words that stand for them."""
ALLOWED = re.compile(r"grouped-query|\.query\b")
"""Terms of the field and of pandas that contain one of them."""
NO_BEGINNING = ("What ", "Whether ", "How ", "Of ", "Where ")


class Text(NamedTuple):
    """A name, or a comment or string, and the line where it is."""

    place: str
    words: set[str]
    shown: str


@pytest.fixture(scope="module")
def sources(root: Path) -> dict[str, str]:
    paths = sorted((root / "helixlab").rglob("*.py"))
    return {path.relative_to(root).as_posix(): path.read_text(encoding="utf-8") for path in paths}


@pytest.fixture(scope="module")
def texts(sources: dict[str, str]) -> list[Text]:
    """Names are split at underscores and capital letters."""
    found = []
    for path, source in sources.items():
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            if token.type == tokenize.NAME:
                words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", token.string)
                if ".query" in token.line and token.string == "query":
                    continue
            elif token.type in (tokenize.STRING, tokenize.COMMENT):
                words = re.findall(r"[A-Za-z]+", ALLOWED.sub("", token.string))
            else:
                continue
            lower = {word.lower() for word in words}
            found.append(Text(f"{path}:{token.start[0]}", lower, token.string))
    return found


@pytest.mark.parametrize("gone", WORDS)
def test_words_that_are_not_used(gone: str, texts: list[Text]) -> None:
    words = set(gone.split("|"))
    wrong = [f"{text.place}: {text.shown:.60}" for text in texts if text.words & words]
    assert wrong == [], f"write {WORDS[gone]}"


def test_docstrings_begin_with_a_verb_or_a_noun(sources: dict[str, str]) -> None:
    wrong = []
    for path, source in sources.items():
        for node in ast.walk(ast.parse(source)):
            kinds = ast.Module | ast.ClassDef | ast.FunctionDef
            doc = ast.get_docstring(node) if isinstance(node, kinds) else None
            if doc and doc.startswith(NO_BEGINNING):
                wrong.append(f"{path}: {doc.splitlines()[0]}")
    assert wrong == []
