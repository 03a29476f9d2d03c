"""Requests of the user's own, from tables and from files."""

import bz2
import datetime as dt
import gzip
import lzma
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st

from helixlab.errors import FileFormatError, HelixlabError, WorkloadError
from helixlab.workload import Workload, check_requests, offline, online, read_requests

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
        OFFLINE + "10,5\n\n20,6\n  \n",
        ("\ufeff" + OFFLINE + "10,5\n20,6\n").encode(),
        OFFLINE + "10,5\r20,6\r",
        "input_tokens , output_tokens\n 10, 5\n20 ,6\n",
        '"input_tokens","output_tokens"\n"10","5"\n"20","6"\n',
        "# two requests\n\n" + OFFLINE + "10,5\n20,6\n",
        ",input_tokens,output_tokens\n0,10,5\n1,20,6\n",
        'note,note,input_tokens,output_tokens\n"a, b",,10,5\n"two\nlines",,20,6\n',
    ],
    ids=[
        "plain",
        "windows",
        "floats",
        "more columns",
        "empty lines",
        "byte order mark",
        "old mac",
        "blanks",
        "quotes",
        "comments",
        "index",
        "other columns twice",
    ],
)
def test_files_that_are_fine(csv, content):
    table = read_requests(csv(content), with_arrivals=False)
    assert table.to_dict("list") == {"input_tokens": [10, 20], "output_tokens": [5, 6]}
    assert all(str(kind) == "int64" for kind in table.dtypes)


@pytest.mark.parametrize("packed", [(gzip, "gz"), (bz2, "bz2"), (lzma, "xz")], ids=lambda packed: packed[1])
def test_compressed_files(csv, packed):
    module, ending = packed
    path = csv(module.compress(("\ufeff" + ONLINE + "0.5,10,5\n").encode()), f"mine.csv.{ending}")
    assert read_requests(path, with_arrivals=True).to_numpy().tolist() == [[0.5, 10, 5]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (OFFLINE + "0,5\n", "row 0: input_tokens is 0; give whole numbers from 1 to 1000000"),
        (OFFLINE + "5,1\n5,-2\n", "row 1: output_tokens is -2"),
        (OFFLINE + "5,1\n2.5,1\n", "row 1: input_tokens is 2.5"),
        (OFFLINE + "1000001,1\n", "row 0: input_tokens is 1000001"),
        (OFFLINE + "inf,1\n", "row 0: input_tokens is inf"),
        (OFFLINE + ",1\n", "line 2, row 0: input_tokens is missing"),
        (OFFLINE + "nan,1\n", "row 0: input_tokens is nan"),
        (OFFLINE + "ten,1\n", "row 0: input_tokens is ten"),
        (OFFLINE + "__import__('os').abort(),1\n", "row 0: input_tokens is __import__"),
        ("\n# mine\n" + OFFLINE + "\n10,5\n\n10,x\n", "line 7, row 1: output_tokens is x"),
        (OFFLINE + '"1,000",5\n', "row 0: input_tokens is 1,000"),
        (OFFLINE + "0x10,5\n", "row 0: input_tokens is 0x10"),
        (OFFLINE + "1_0,5\n", "row 0: input_tokens is 1_0"),
        (OFFLINE + "True,5\n", "row 0: input_tokens is True"),
        (OFFLINE + "1" * 400 + ",5\n", f"row 0: input_tokens is {'1' * 57}...; give"),
        ("\ufeff" * 2 + OFFLINE + "1,5\n", "has no column 'input_tokens'"),
        (OFFLINE + "\ufeff1,5\n", r"row 0: input_tokens is '\ufeff1'"),
        (OFFLINE + "1,5\n" + OFFLINE, "line 3, row 1: input_tokens is input_tokens"),
        (OFFLINE, "has no rows; give at least one request"),
        ("input_tokens\n5\n", "has no column 'output_tokens'; it needs input_tokens, output_tokens"),
        ("10,5\n20,6\n", "has no column 'input_tokens'"),
        (
            "10,5\n20,6\n",
            "has the columns '10', '5', separated by ','; these are no names, name the columns",
        ),
        ("Input_Tokens,output_tokens\n1,1\n", "did you mean 'Input_Tokens' by 'input_tokens'? Rename"),
        (
            "input_tokens;output_tokens\n1;1\n",
            "'input_tokens', 'output_tokens', separated by ';'; separate them",
        ),
        ("input_tokens\toutput_tokens\n1\t1\n", "separated by tabs; separate them by ','"),
        ("input_tokens output_tokens\n1 1\n", "separated by blanks; separate them by ','"),
        ("input_tokens,output_tokens,input_tokens\n1,1,1\n", "has 2 columns 'input_tokens'; keep one"),
        ("name\nx\n", "has the columns 'name'"),
        ("2024-03-04T09:00:10,1\n", "these are no names, name the columns"),
        (
            "TIMESTAMP,ContextTokens,GeneratedTokens\n2024-03-04 09:00:10.25,1,1\n",
            "did you mean 'ContextTokens' by 'input_tokens' and 'GeneratedTokens' by 'output_tokens'?",
        ),
    ],
)
def test_rows_that_make_no_sense(csv, content, message):
    with pytest.raises(WorkloadError) as caught:
        read_requests(csv(content), with_arrivals=False)
    assert message in str(caught.value)
    assert "mine.csv" in str(caught.value)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("400,50,7\n300,40,8\n", "line 2, row 0: 3 fields where the header has 2"),
        ("400,50\n300\n", "line 3, row 1: 1 field where the header has 2"),
        ("400,50,\n300,40,\n", "line 2, row 0: 3 fields"),
        ("400,1,5\n", "line 2, row 0: 3 fields where the header has 2; give as many, and put a field that"),
        ("# 400,50,3\n", "line 2, row 0: 3 fields"),
    ],
)
def test_rows_that_are_longer_or_shorter_than_the_header(csv, rows, message):
    with pytest.raises(FileFormatError) as caught:
        read_requests(csv(OFFLINE + rows), with_arrivals=False)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("mine.csv", (OFFLINE + "1,1\n").encode("utf-16"), "it is text in UTF-16; give a CSV file"),
        ("mine.csv", (OFFLINE + "1,1\n").encode("utf-16-le"), "binary, or text in UTF-16"),
        (
            "mine.csv",
            ("caf\xe9," + OFFLINE + "1,1,1\n").encode("latin-1"),
            "not UTF-8 text .*; save it as UTF-8",
        ),
        ("mine.csv", gzip.compress(OFFLINE.encode(), mtime=0), "compressed by gzip"),
        ("mine.csv.gz", OFFLINE + "1,1\n", "Not a gzipped file"),
        ("mine.csv.zst", b"\x28\xb5\x2f\xfd" * 9, "compressed by zstd"),
        ("mine.xlsx", b"PK\x03\x04" * 9, "a zip archive, as Excel workbooks are"),
        ("mine.parquet", b"PAR1" * 9, "a Parquet file"),
        (
            "mine.jsonl",
            '{"timestamp": 0, "input_length": 7}\n',
            "JSON lines with the keys 'timestamp', 'input_length'",
        ),
        ("mine.json", "[\n1]", "holds JSON, which is not read as a table; give a CSV file"),
        (
            "mine.csv",
            OFFLINE + '1,1\n"1,1\n2,2\n',
            "mine.csv, line 4: unexpected end of data; end every field",
        ),
        ("mine.csv", OFFLINE + "1," + "1" * 200_000, "line 2: field larger than field limit"),
        ("mine.csv", OFFLINE + "1" * 2_000_000, "a line of 1048576 characters or more"),
        ("mi\0ne.csv", None, "null byte"),
    ],
)
def test_files_of_another_kind(csv, tmp_path, name, content, message):
    path = tmp_path / name if content is None else csv(content, name)
    with pytest.raises(FileFormatError, match=message) as caught:
        read_requests(path, with_arrivals=False)
    assert "\n" not in str(caught.value)


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


def with_arrivals(arrivals):
    """A table of requests that arrive so; the arrivals it is checked to."""
    table = pd.DataFrame({"input_tokens": 10, "output_tokens": 5, "arrival_s": arrivals})
    return check_requests(table, "mine", with_arrivals=True)["arrival_s"].tolist()


TIMES = pd.Series(pd.to_datetime(["2024-03-31 00:59:58.5", "2024-03-31 01:00:00.0"]))


@pytest.mark.parametrize(
    "arrivals",
    [
        *(TIMES.astype(f"datetime64[{unit}]") for unit in ("ms", "us", "ns")),
        *(TIMES.dt.tz_localize(zone).dt.tz_convert("Europe/Berlin") for zone in ("UTC", "America/New_York")),
        TIMES.astype("timestamp[ns][pyarrow]"),
        TIMES.dt.tz_localize("UTC").astype("timestamp[us, tz=UTC][pyarrow]"),
        TIMES.astype("category"),
        TIMES.astype(str),
        TIMES.astype(object),
        list(TIMES.dt.to_pydatetime()),
        ["2024-03-31T00:59:58.5000000Z", "2024-03-31 01:00Z"],
        ["2024-03-31 00:59:58.5+00:00", "2024-03-31T02:00:00+01:00"],
        *((TIMES - TIMES[0]).astype(f"timedelta64[{unit}]") for unit in ("ms", "us", "ns")),
        (TIMES - TIMES[0]).astype("duration[ms][pyarrow]"),
        [dt.timedelta(), dt.timedelta(seconds=1.5)],
        [0, 1.5],
        ["-0.0", "15e-1"],
        [Decimal(0), Decimal("1.5")],
        pd.array([0, 1.5], "Float64"),
        pd.array([0, 1.5], "double[pyarrow]"),
        pd.array([0, 1.5], "Sparse[float]"),
    ],
    ids=lambda arrivals: f"{getattr(arrivals, 'dtype', 'list')}",
)
def test_arrivals_of_any_dtype_are_seconds(arrivals):
    assert with_arrivals(arrivals) == [0.0, 1.5]
    table = pd.DataFrame({"arrival_s": arrivals, "input_tokens": 10, "output_tokens": 5})
    table.index = [7, 7]
    for made in (online(requests=table), Workload("online", 0, 9, 0, requests=table)):
        assert next(made.batches()).tolist() == [[0.0, 10, 5], [1.5, 10, 5]]


def test_durations_do_not_count_from_the_first():
    assert with_arrivals(pd.to_timedelta([2, 3], unit="s")) == [2, 3]
    assert with_arrivals(["2024-03-31", "2024-04-01"]) == [0, 86400]


@pytest.mark.parametrize(
    ("arrivals", "message"),
    [
        ([False, True], "row 0: arrival_s is False"),
        (pd.array([False, True], "boolean"), "row 0: arrival_s is False"),
        ([0j, 1j], "row 0: arrival_s is 0j"),
        (TIMES[::-1].tolist(), "row 1: arrival_s is 2024-03-31 00:59:58"),
        (pd.period_range("2024-01-01", periods=2, freq="s"), "row 0: arrival_s is 2024-01-01 00:00:00"),
        (pd.array([0, 1], "time64[us][pyarrow]"), "row 0: arrival_s is 00:00:00"),
        ([TIMES[0], 5], "row 1: arrival_s is 5"),
        ([5, TIMES[0]], "row 1: arrival_s is 2024"),
        ([TIMES[0], pd.NaT], "row 1: arrival_s is missing"),
        ([None, 5.0], "row 0: arrival_s is missing"),
        (pd.array([0, None], "Int64"), "row 1: arrival_s is missing"),
        (pd.array([0, None], "duration[s][pyarrow]"), "row 1: arrival_s is missing"),
        (["2024-03-31 01:00:00Z", "2024-03-31 01:00:01"], "row 1: arrival_s is 2024-03-31 01:00:01"),
        (["2024-03-31 01:00:59", "2024-03-31 01:00:60"], "row 1: arrival_s is 2024-03-31 01:00:60"),
        (["2024-03-31 01:00", "2024-13-31 01:00"], "row 1: arrival_s is 2024-13-31 01:00"),
        (["03/04/2024", "03/05/2024"], "row 0: arrival_s is 03/04/2024"),
        (["0 days 00:00:01.5", "0 days 00:00:02"], "row 0: arrival_s is 0 days 00:00:01.5"),
        (pd.Series([np.timedelta64(1), np.timedelta64(2)], dtype=object), "row 0: arrival_s is 1"),
        ([0, 10**400], "row 1: arrival_s is 1000"),
        ([0, 1e300], r"row 1: arrival_s is 1e\+300"),
        ([0, Decimal("sNaN")], "row 1: arrival_s is sNaN"),
        ([[1, 2], [3]], r"row 0: arrival_s is \[1, 2\]"),
        ([b"1", b"2"], "row 0: arrival_s is b'1'"),
    ],
)
def test_arrivals_of_any_dtype_that_make_no_sense(arrivals, message):
    with pytest.raises(WorkloadError, match=f"{message}.*; give seconds from 0 on, in rising order"):
        with_arrivals(arrivals)


@pytest.mark.parametrize(
    "dtype", ["Int64", "Float64", "int64[pyarrow]", "uint8", "float16", "string", "category", "O"]
)
def test_tokens_of_any_dtype_are_whole(dtype):
    tokens = pd.Series(["10", "20"] if dtype == "string" else [10, 20], dtype=dtype)
    table = check_requests(
        pd.DataFrame({"input_tokens": tokens, "output_tokens": tokens}), "mine", with_arrivals=False
    )
    assert table.to_numpy().tolist() == [[10, 10], [20, 20]]
    assert set(map(str, table.dtypes)) == {"int64"}


@pytest.mark.parametrize(
    "tokens",
    [
        [True], pd.array([True], "boolean"), pd.array([True], "bool[pyarrow]"), [1 + 0j], [10.5], [np.inf],
        pd.to_timedelta([5], unit="s"), pd.to_datetime(["2024-03-31"]), pd.array([None], "Int64"),
        pd.array([5], "timestamp[ns][pyarrow]"), pd.array([5], "duration[ns][pyarrow]"), [2**70], [None],
    ],
)  # fmt: skip
def test_tokens_that_are_no_numbers(tokens):
    table = pd.DataFrame({"input_tokens": tokens, "output_tokens": 5})
    for make in (
        lambda: offline(requests=table),
        lambda: Workload("offline", 0, 9, 0, "", 1, requests=table),
    ):
        with pytest.raises(WorkloadError, match=r"row 0: input_tokens is .*; give whole numbers from 1"):
            make()


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            pd.DataFrame([[1, 2, 3]], columns=["input_tokens", "output_tokens", "input_tokens"]),
            "has 2 columns",
        ),
        (pd.DataFrame([[1, 2]]), "has the columns 0, 1; these are no names"),
        (
            pd.DataFrame([[1, 2]], columns=pd.MultiIndex.from_product([["tokens"], ["input", "output"]])),
            r"has the columns \('tokens', 'input'\), \('tokens', 'output'\); give columns of one level",
        ),
        (pd.DataFrame(), "has no columns at all"),
        (
            pd.DataFrame({" input_tokens": [1], "output_tokens": [1]}),
            "did you mean ' input_tokens' by 'input_tokens'",
        ),
        (pd.DataFrame({f"c{i}": [1] for i in range(50)}), "'c11', ...$"),
        ({"input_tokens": [1]}, r"got dict; pandas.DataFrame\(...\) makes one"),
        (np.ones((2, 2)), "got ndarray"),
        (pd.Series([1]), "got Series"),
    ],
)
def test_tables_of_another_shape(table, message):
    with pytest.raises(WorkloadError, match=message):
        offline(requests=table)


def test_files_are_read_in_parts(csv, monkeypatch):
    monkeypatch.setattr("helixlab.workload.requests.CHUNK_ROWS", 2)
    times = [f"2024-03-04 09:00:0{second},10,{second + 1}\n" for second in range(5)]
    table = read_requests(csv(ONLINE + "".join(times)), with_arrivals=True)
    assert table.to_numpy().tolist() == [[second, 10, second + 1] for second in range(5)]
    for wrong, message in [
        ("2024-03-04 09:00:03,10,5\n", "line 7, row 5: arrival_s is 2024-03-04 09:00:03"),
        ("9,10,5\n", "line 7, row 5: arrival_s is 9"),
    ]:
        with pytest.raises(WorkloadError, match=message):
            read_requests(csv(ONLINE + "".join(times) + wrong), with_arrivals=True)
    monkeypatch.setattr("helixlab.workload.requests.MOST_REQUESTS", 3)
    with pytest.raises(
        WorkloadError, match="more than 3 requests, more than one run takes; give part of them"
    ):
        read_requests(csv(ONLINE + "".join(times)), with_arrivals=True)


VALUES = (
    st.integers(-1, 2_000_000), st.integers(), st.floats(), st.floats(1, 9), st.booleans(), st.none(),
    st.just(pd.NA), st.just(pd.NaT), st.decimals(), st.complex_numbers(), st.binary(max_size=3),
    st.datetimes(), st.datetimes(timezones=st.timezones()), st.timedeltas(), st.dates(), st.times(),
    st.integers(1, 9).map(str), st.floats().map(str), st.text(max_size=3), st.just([1, 2]),
    st.sampled_from([np.int8(3), np.float32(0.5), np.bool_(True), np.datetime64("2024-03-04")]),
)  # fmt: skip


@settings(max_examples=150)
@given(data=st.data())
def test_any_values_are_taken_right_or_refused(data):
    rows = data.draw(st.integers(1, 3))
    one = data.draw(st.sampled_from([st.one_of(VALUES), *VALUES]))
    tokens = data.draw(st.lists(st.integers(1, 9) | one, min_size=rows, max_size=rows))
    arrivals = data.draw(st.lists(st.integers(0, 9) | one, min_size=rows, max_size=rows))
    kind = data.draw(st.sampled_from([object, None]))
    try:
        columns = [pd.Series(values, dtype=kind) for values in (tokens, arrivals)]
    except (OverflowError, ValueError, TypeError):  # pandas does not make such a column
        return
    table = pd.DataFrame({"input_tokens": columns[0], "output_tokens": 1, "arrival_s": columns[1]})
    try:
        checked = check_requests(table, "mine", with_arrivals=True)
    except HelixlabError as error:
        message = str(error)
    else:
        message = ""
    if message:
        assert message.startswith("mine, row ")
        assert len(message.splitlines()) == 1
        assert "_tokens is " in message or "arrival_s is " in message
        return
    assert checked["input_tokens"].tolist() == [float(value) for value in tokens]
    assert not any(isinstance(value, bool | np.bool_) for value in tokens + arrivals)
    seconds = checked["arrival_s"]
    assert seconds.between(0, 1e12).all()
    assert seconds.is_monotonic_increasing
    for value, second in zip(arrivals, seconds, strict=True):
        if isinstance(value, dt.timedelta):
            assert second == pytest.approx(value.total_seconds())
        elif isinstance(value, dt.date):
            assert second == pytest.approx((value - arrivals[0]).total_seconds())
        elif not isinstance(value, np.datetime64):
            assert second == float(value)


@pytest.mark.parametrize("unit", ["ns", "us", "ms", "s", "D", None])
@pytest.mark.parametrize("column", ["arrival_s", "input_tokens"])
def test_durations_of_numpy_among_numbers_are_refused(column, unit):
    """numpy regards them as whole numbers."""
    table = pd.DataFrame({"arrival_s": [0.0, 1.0], "input_tokens": [3, 4], "output_tokens": [1, 2]})
    duration = np.timedelta64(2, unit) if unit else np.timedelta64(2)
    table[column] = pd.Series([table[column].iloc[0], duration], dtype=object)
    with pytest.raises(WorkloadError, match=f"row 1: {column} is"):
        online(requests=table)
