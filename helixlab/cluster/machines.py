"""Machine types and coordinator that ship with helixlab."""

from __future__ import annotations

from collections.abc import Iterable

from helixlab._data import read_table
from helixlab.cluster.cluster import Coordinator, Machine, Node

__all__ = ["bundled_coordinator", "bundled_machines", "machines_in_use"]

_TABLE = "profiles/machines.csv"
_COORDINATOR = "coordinator"


def bundled_machines() -> tuple[Machine, ...]:
    """Return the machine types of the clusters in the Helix paper.

    Examples
    --------
    >>> [machine.name for machine in bundled_machines()]
    ['A100', 'V100', 'L4', 'L4x2', 'T4', 'T4x2', 'T4x4']

    To use them together with a type of your own, pass
    ``machines=[*bundled_machines(), Machine("H100", ...)]`` to a generator.
    """
    table = read_table(_TABLE)
    rows = table.loc[
        table["machine"] != _COORDINATOR, ["machine", "vram_bytes", "nic_bytes_per_s", "disk_bytes_per_s"]
    ]
    return tuple(
        Machine(name, float(vram), float(nic), float(nic), float(disk))
        for name, vram, nic, disk in rows.itertuples(index=False, name=None)
    )


def bundled_coordinator() -> Coordinator:
    """Return the coordinator of the clusters in the Helix paper.

    Examples
    --------
    >>> bundled_coordinator()
    Coordinator(nic_in_bytes_per_s=10000000000.0, nic_out_bytes_per_s=10000000000.0)
    """
    table = read_table(_TABLE)
    nic = float(table.loc[table["machine"] == _COORDINATOR, "nic_bytes_per_s"].item())
    return Coordinator(nic, nic)


def machines_in_use(machines: Iterable[Machine] | None, nodes: Iterable[Node]) -> tuple[Machine, ...]:
    """Select the machine types that `nodes` use from `machines` (None: those that ship with helixlab).

    Where a node is of no known type, all are returned, so that the error of the cluster can list them.
    """
    machines = bundled_machines() if machines is None else tuple(machines)
    used = {node.machine for node in nodes}
    chosen = tuple(machine for machine in machines if machine.name in used)
    return chosen if len(chosen) == len(used) else machines
