"""Requests of the user's own, from tables and from files."""

import gzip

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helixlab.errors import FileFormatError, HelixlabError, WorkloadError
from helixlab.workload import offline, online, read_requests

OFFLINE = "input_tokens,output_tokens\n"
ONLINE = "arrival_s,input_tokens,output_tokens\n"


@pytest.fixture
def csv(tmp_path):
    def write(content, name="mine.csv"):
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


@pytest.mark.parametrize(
    "content",
    [
        OFFLINE + "10,5\n20,6\n",
        OFFLINE + "10,5\r\n20,6",
        OFFLINE + "10.0,5\n2e1,6\n",
        "output_tokens,note,input_tokens\n5,first,10\n6,second,20\n",
        OFFLINE + "10,5\n\n20,6\n\n",
        ("\ufeff" + OFFLINE + "10,5\n20,6\n").encode(),
    ],
    ids=["plain", "windows", "floats", "more columns", "empty lines", "byte order mark"],
)
def test_files_that_are_fine(csv, content):
    table = read_requests(csv(content), with_arrivals=False)
    assert table.to_dict("list") == {"input_tokens": [10, 20], "output_tokens": [5, 6]}
    assert all(str(kind) == "int64" for kind in table.dtypes)


def test_compressed_files(csv):
    path = csv(gzip.compress((ONLINE + "0.5,10,5\n").encode()), "mine.csv.gz")
    assert read_requests(path, with_arrivals=True).to_numpy().tolist() == [[0.5, 10, 5]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (OFFLINE + "0,5\n", "row 0: input_tokens is 0; give whole numbers from 1 to 1000000"),
        (OFFLINE + "5,1\n5,-2\n", "row 1: output_tokens is -2"),
        (OFFLINE + "5,1\n2.5,1\n", "row 1: input_tokens is 2.5"),
        (OFFLINE + "1000001,1\n", "row 0: input_tokens is 1000001"),
        (OFFLINE + "inf,1\n", "row 0: input_tokens is inf"),
        (OFFLINE + ",1\n", "row 0: input_tokens is nan"),
        (OFFLINE + "ten,1\n", "row 0: input_tokens is ten"),
        (OFFLINE + "__import__('os').abort(),1\n", "row 0: input_tokens is __import__"),
        (OFFLINE + "10\n", "row 0: output_tokens is nan"),
        (OFFLINE, "has no rows; give at least one request"),
        ("input_tokens\n5\n", "has no column 'output_tokens'; it needs input_tokens, output_tokens"),
        ("10,5\n20,6\n", "has no column 'input_tokens'"),
    ],
)
def test_rows_that_make_no_sense(csv, content, message):
    with pytest.raises(WorkloadError) as caught:
        read_requests(csv(content), with_arrivals=False)
    assert message in str(caught.value)
    assert "mine.csv" in str(caught.value)


@pytest.mark.parametrize("arrivals", ["5,1", "-1,0", "nan,1", "0,soon", "0,inf"])
def test_arrivals_that_make_no_sense(csv, arrivals):
    rows = "".join(f"{arrival},10,10\n" for arrival in arrivals.split(","))
    with pytest.raises(WorkloadError, match=r"arrival_s is .*; give seconds from 0 on, in rising order"):
        read_requests(csv(ONLINE + rows), with_arrivals=True)


@pytest.mark.parametrize("content", ["", "\n", b"\x00\xff" * 99, b"\x1f\x8b cut off"])
@pytest.mark.parametrize("name", ["mine.csv", "mine.csv.gz"])
def test_files_that_are_something_else(csv, content, name):
    path = csv(content, name)
    with pytest.raises(HelixlabError, match=r"mine\.csv"):
        read_requests(path, with_arrivals=False)


def test_a_compressed_file_that_is_cut_off(csv):
    whole = gzip.compress((OFFLINE + "".join(f"{n},{n}\n" for n in range(1, 5000))).encode())
    with pytest.raises(FileFormatError, match="cannot read"):
        read_requests(csv(whole[: len(whole) // 2], "mine.csv.gz"), with_arrivals=False)


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(FileFormatError, match="there is no such file; check the path"):
        read_requests(tmp_path / "missing.csv", with_arrivals=False)
    with pytest.raises(FileFormatError, match="cannot read"):
        read_requests(tmp_path, with_arrivals=False)


@given(content=st.one_of(st.binary(max_size=200), st.text(max_size=200).map(str.encode)))
def test_any_file_is_read_or_refused(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("any") / "mine.csv"
    path.write_bytes(content)
    with pytest.raises(HelixlabError):
        read_requests(path, with_arrivals=False)


def test_tables_are_checked_and_copied():
    table = pd.DataFrame(
        {"arrival_s": [0, 1], "input_tokens": [3, 4], "output_tokens": [1, 2], "note": "x"}, index=[7, 9]
    )
    workload = online(requests=table, duration_s=10)
    table.loc[7, "input_tokens"] = 0
    np.testing.assert_array_equal(next(workload.batches()), [[0, 3, 1], [1, 4, 2]])
    with pytest.raises(WorkloadError, match="requests, row 0: input_tokens is 0"):
        online(requests=table, duration_s=10)
    with pytest.raises(WorkloadError, match="requests has no rows"):
        offline(requests=table.iloc[:0])
    with pytest.raises(WorkloadError, match="requests has no column 'arrival_s'"):
        online(requests=table.drop(columns="arrival_s"))
