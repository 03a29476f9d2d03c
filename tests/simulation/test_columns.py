"""Every column of a result is described, and holds what its description says."""

import pytest

import helixlab as hx
from helixlab.engine.constants import PARTS
from helixlab.errors import SimulationError
from helixlab.simulation.columns import COLUMNS, TABLES

SYSTEM = (
    hx.load_cluster("small10"),
    hx.load_model("llama-1-30b"),
    hx.load_placement("small10/llama-1-30b/helix"),
)
KINDS = {"int": "i", "float": "f", "bool": "b", "int or str": "O"}
SUFFIXES = {"_per_s": "tokens/s", "_s": "s", "_mb": "MB", "_token_layers": "tokens x layers", "_fraction": ""}


@pytest.fixture(scope="module")
def result():
    workload = hx.offline(warmup_s=5, duration_s=20, rng=0)
    return hx.simulate(*SYSTEM, workload=workload, keep_batches=True, keep_breakdown=True)


@pytest.mark.parametrize("table", TABLES)
def test_every_column_is_described(result, table):
    rows = getattr(result, table)
    assert [column.name for column in COLUMNS[table]] == list(rows)
    assert len(rows) > 0
    for column in COLUMNS[table]:
        if column.type == "str":
            assert all(isinstance(value, str) for value in rows[column.name])
        else:
            assert rows[column.name].dtype.kind == KINDS[column.type], column.name
        unit = next((unit for suffix, unit in SUFFIXES.items() if column.name.endswith(suffix)), None)
        assert unit in (column.unit, None), column.name
        assert not column.description.endswith(".")


def test_what_only_the_breakdown_has_says_so(result):
    without = hx.simulate(*SYSTEM, workload=hx.offline(warmup_s=5, duration_s=20, rng=0))
    described = result.describe()
    only = described[described["description"].str.contains("keep_breakdown")]
    for table, column in only[["table", "column"]].itertuples(index=False):
        assert column not in getattr(without, table) or getattr(without, table)[column].isna().all()
    assert set(PARTS) == set(result.iterations) - set(without.iterations)
    assert set(only.loc[only["table"] == "iterations", "column"]) == set(PARTS)


def test_describing_tables(result):
    everything = hx.Result.describe()
    assert len(everything) == sum(map(len, COLUMNS.values()))
    requests = result.describe("requests")
    assert requests.equals(everything[everything["table"] == "requests"].reset_index(drop=True))
    with pytest.raises(SimulationError, match="table is 'steps'; give one of summary, iterations, requests"):
        result.describe("steps")
