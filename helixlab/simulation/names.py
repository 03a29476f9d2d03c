"""Names under which results show what ran: never that of a bundled thing of other content."""

from __future__ import annotations

from dataclasses import replace

from helixlab.cluster import Cluster
from helixlab.cluster.files import is_misnamed as is_misnamed_cluster
from helixlab.contents import digest
from helixlab.errors import ContentError
from helixlab.execution import EXECUTIONS, Execution, chunked
from helixlab.files import content_hash
from helixlab.model import Model
from helixlab.model.files import is_misnamed as is_misnamed_model
from helixlab.model.files import model_to_dict
from helixlab.naming import claimed, marked
from helixlab.placement import Placement
from helixlab.placement.files import shown_name as shown_placement
from helixlab.scheduling import SCHEDULERS, Scheduler

__all__ = ["hash_of", "shown_name"]


def hash_of(thing: Cluster | Model | Placement | Scheduler | Execution) -> str | None:
    """A hash of all that decides what it does; None if functions of it use what has no hash.

    Examples
    --------
    >>> from helixlab.cluster import load_cluster
    >>> hash_of(load_cluster("small10")) == load_cluster("small10").content_hash
    True
    """
    if isinstance(thing, Cluster | Placement):
        return thing.content_hash
    if isinstance(thing, Model):
        content = model_to_dict(thing)
        # Models are equal whatever the order of their profiles.
        content["profiles"] = sorted(content["profiles"], key=lambda profile: profile["machine"])
        return content_hash(content)
    try:
        return digest(thing)[:16]
    except ContentError:
        return None


def shown_name(thing: Cluster | Model | Placement | Scheduler | Execution) -> str:
    """Its name, followed by the hash of its content where that is not what is bundled under the name.

    Examples
    --------
    >>> from helixlab.cluster import load_cluster
    >>> cluster = load_cluster("small10")
    >>> slow = tuple(replace(link, latency_s=0.1) for link in cluster.links)
    >>> shown_name(cluster), shown_name(replace(cluster, links=slow))
    ('small10', 'small10@6735f5bc')
    >>> shown_name(replace(cluster, links=slow, name="far apart"))
    'far apart'
    """
    if isinstance(thing, Placement):
        return shown_placement(thing)
    if isinstance(thing, Cluster):
        misnamed = is_misnamed_cluster(thing)
    elif isinstance(thing, Model):
        misnamed = is_misnamed_model(thing)
    elif isinstance(thing, Scheduler):
        bundled = claimed(thing.name, SCHEDULERS)
        misnamed = bundled is not None and replace(thing, name=bundled) != SCHEDULERS[bundled]
    else:
        misnamed = _is_misnamed_execution(thing)
    return marked(thing.name, hash_of(thing)) if misnamed else thing.name


def _is_misnamed_execution(execution: Execution) -> bool:
    bundled = claimed(execution.name, EXECUTIONS)
    if bundled is None:
        return False
    expected = EXECUTIONS[bundled]
    if bundled == chunked().name and execution.chunk_tokens is not None:
        expected = chunked(**execution.parameters)  # its limits are the caller's choice
    return replace(execution, name=bundled) != expected
