"""Names of bundled things, and the marks of things that have such a name but another content."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["describe_misnaming", "find_namesake", "fold_name", "mark_name"]


def fold_name(name: str) -> str:
    """Fold a name for comparison: blanks at its ends and capital letters make no difference.

    Examples
    --------
    >>> fold_name(" Single24")
    'single24'
    """
    return name.strip().casefold()


def find_namesake(name: str, known: Iterable[str]) -> str | None:
    """Find the known name that a reader takes `name` to be; None if there is none.

    Examples
    --------
    >>> find_namesake("Helix ", ["helix", "swarm"]), find_namesake("helix-2", ["helix", "swarm"])
    ('helix', None)
    """
    wanted = fold_name(name)
    return next((each for each in known if fold_name(each) == wanted), None)


def mark_name(name: str, content: str | None) -> str:
    """Add its hash to the name of a thing that has the name of a bundled one but another content.

    Examples
    --------
    >>> mark_name("single24", "1a2b3c4d5e6f")
    'single24@1a2b3c4d'
    """
    return f"{name.strip()}@{content[:8] if content else 'unknown'}"


def describe_misnaming(path: str, what: str, name: str) -> str:
    """Describe a file whose content has the name of a bundled thing but is another one.

    Examples
    --------
    >>> describe_misnaming("my.json", "model", "llama-2-70b").split(", ")[0]
    "my.json calls its model 'llama-2-70b'"
    """
    return (
        f"{path} calls its {what} {name!r}, but its content is not that of the bundled one; rename it, or"
        f" results are taken for those of another {what}"
    )
