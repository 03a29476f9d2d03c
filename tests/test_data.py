"""The bundled data: described in its README, and all of it loads and passes its checks."""

import fnmatch
import io
import json
import re
from pathlib import Path

import pandas as pd
import pytest

from helixlab._data import data_file, read_table
from helixlab.cluster import cluster_names, load_cluster
from helixlab.model import load_model, machine_throughput, model_names
from helixlab.placement import check_placement, load_placement, placement_names

DATA = Path(__file__).resolve().parent.parent / "data"
FILES = sorted(path.relative_to(DATA).as_posix() for path in DATA.rglob("*") if path.is_file())
TABLES = [name for name in FILES if name.endswith((".csv", ".csv.gz"))]
DOCUMENTS = [name for name in FILES if name.endswith(".json")]


def described() -> dict[str, dict[str, list[str]]]:
    """Rows of the README's tables, by the pattern of files they describe and by their first column."""
    sections: dict[str, dict[str, list[str]]] = {}
    pattern = ""
    for line in (DATA / "README.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            heading = re.fullmatch(r"### `(.+)`", line)
            pattern = heading[1] if heading else ""
        elif line.startswith("| `") and pattern:
            first, *others = (cell.strip() for cell in line.strip("|").split("|"))
            for name in first.split(","):
                sections.setdefault(pattern, {})[name.strip(" `")] = others
    return sections


SECTIONS = described()


def rows_for(name: str) -> dict[str, list[str]]:
    """The one section of the README that describes a file."""
    found = [
        rows
        for pattern, rows in SECTIONS.items()
        if fnmatch.fnmatch(name, re.sub(r"[A-Z]{2,}", "*", pattern))
    ]
    assert len(found) == 1, f"{len(found)} sections of data/README.md describe {name}"
    return found[0]


class TestReadme:
    @pytest.mark.parametrize("name", TABLES)
    def test_every_column_is_described(self, name):
        rows = rows_for(name)
        assert list(rows) == list(read_table(name))
        for column, (kind, unit, meaning) in rows.items():
            assert kind in {"text", "integer", "number"}, column
            assert meaning, column
            if column.endswith(("_bytes", "_per_s", "_ms", "_tokens", "_tokens_per_s")):
                assert unit, column

    @pytest.mark.parametrize("name", TABLES)
    def test_columns_are_of_their_types(self, name):
        table = pd.read_csv(
            io.BytesIO((DATA / name).read_bytes()), compression="gzip" if ".gz" in name else None
        )
        for column, (kind, *_) in rows_for(name).items():
            values = table[column].dropna()
            assert len(values)
            if kind == "text":
                assert all(isinstance(value, str) for value in values)
            else:
                assert pd.api.types.is_numeric_dtype(values)
                if kind == "integer":
                    assert (values % 1 == 0).all()

    @pytest.mark.parametrize("name", DOCUMENTS)
    def test_every_key_is_described(self, name):
        assert set(json.loads((DATA / name).read_text(encoding="utf-8"))) <= set(rows_for(name))

    def test_every_section_describes_something(self):
        for pattern in SECTIONS:
            glob = re.sub(r"[A-Z]{2,}", "*", pattern)
            assert fnmatch.filter(FILES, glob), pattern

    def test_every_file_is_of_a_kind(self):
        rest = set(FILES) - set(TABLES) - set(DOCUMENTS)
        assert {name for name in rest if "__pycache__" not in name} == {"README.md", "__init__.py"}

    def test_sources_and_licences(self):
        text = data_file("README.md").read_text(encoding="utf-8")
        facts = [
            "Thesys-lab/Helix-ASPLOS25",
            "Apache-2.0",
            "Azure/AzurePublicDataset",
            "CC-BY 4.0",
            "tatsu-lab/alpaca",
            "separate-t4x2",
            "8 V100, though the cluster has 6",
            "4094",
        ]
        for fact in facts:
            assert fact in text


class TestEverythingLoads:
    @pytest.mark.parametrize("name", cluster_names())
    def test_clusters(self, name):
        cluster = load_cluster(name)
        assert cluster.name == name
        for link in cluster.links:
            assert round(link.latency_s, 6) == link.latency_s, "cleaned of floating-point noise"

    @pytest.mark.parametrize("name", model_names())
    def test_models(self, name):
        model = load_model(name)
        assert set(model.profiles) == set(read_table("profiles/machines.csv")["machine"]) - {"coordinator"}
        machine_throughput(model, dict.fromkeys(model.profiles, 1))

    @pytest.mark.parametrize("name", placement_names())
    def test_placements(self, name):
        placement = load_placement(name)
        cluster, model, _ = name.split("/")
        assert placement.model == model
        own = name.split("/")[-1].startswith("for-")
        assert placement.source.startswith("helixlab, plan(" if own else "Helix artifact, ")
        assert (placement.report is not None) == own
        check_placement(placement, load_cluster(cluster), load_model(model))

    def test_scenarios_name_what_is_there(self):
        scenarios = read_table("published/scenarios.csv")
        assert set(scenarios["placement"]) <= set(placement_names())
        assert set(scenarios["cluster"]) <= set(cluster_names())
        results = read_table("published/results.csv")
        assert set(results["cluster"]) <= set(cluster_names())
        assert set(results["model"]) | set(scenarios["model"]) <= set(model_names())

    def test_what_the_readme_says_of_the_placements(self):
        v100_t4 = load_placement("hetero42/llama-2-70b/separate-v100_t4")
        assert v100_t4.part is not None
        assert v100_t4.part.machine_counts() == {"V100": 8, "T4": 8}
        counts = load_cluster("hetero42").machine_counts()
        assert (counts["V100"], counts["T4"]) == (6, 10)
        assert "hetero42/llama-2-70b/separate-t4x2" not in placement_names()
        for cluster, capacity in (("single24", 491900), ("geo24", 35200), ("hetero42", 35168)):
            stated = load_placement(f"{cluster}/llama-2-70b/separate-a100").kv_capacity_token_layers
            assert set(stated.values()) == {capacity}

    def test_what_the_readme_says_of_the_traces(self):
        code = read_table("workloads/azure-code-lengths.csv.gz")
        assert code["input_tokens"].max() == 4094
        shared = read_table("workloads/sharegpt-lengths.csv.gz")
        assert (shared["output_tokens"] > 1024).sum() == 1
        for trace in ("azure-conv", "azure-code"):
            assert len(read_table(f"workloads/{trace}-arrivals-per-3s.csv")) == 1200
