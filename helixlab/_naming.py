"""Names of bundled things: who bears one, and how it is marked where the content is another."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["claimed", "folded", "marked", "misnamed_in_words"]


def folded(name: str) -> str:
    """A name as a reader takes it: blanks at its ends and capital letters tell nothing apart.

    Examples
    --------
    >>> folded(" Single24")
    'single24'
    """
    return name.strip().casefold()


def claimed(name: str, known: Iterable[str]) -> str | None:
    """That of the known names which a reader takes `name` for; None if it is a name of its own.

    Examples
    --------
    >>> claimed("Helix ", ["helix", "swarm"]), claimed("helix-2", ["helix", "swarm"])
    ('helix', None)
    """
    wanted = folded(name)
    return next((each for each in known if folded(each) == wanted), None)


def marked(name: str, content: str | None) -> str:
    """The name of a bundled thing on one of other content, whose hash is put behind it.

    Examples
    --------
    >>> marked("single24", "1a2b3c4d5e6f")
    'single24@1a2b3c4d'
    """
    return f"{name.strip()}@{content[:8] if content else 'unknown'}"


def misnamed_in_words(path: str, what: str, name: str) -> str:
    """What to say of a file that calls its content by a bundled name which it does not deserve.

    Examples
    --------
    >>> misnamed_in_words("my.json", "model", "llama-2-70b").split(", ")[0]
    "my.json calls its model 'llama-2-70b'"
    """
    return (
        f"{path} calls its {what} {name!r}, but its content is not that of the bundled one; rename it, or"
        f" results are taken for those of another {what}"
    )
