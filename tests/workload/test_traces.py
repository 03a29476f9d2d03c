"""The bundled traces."""

import pytest

from helixlab.errors import UnknownNameError
from helixlab.workload import arrival_names, trace_lengths, trace_names


@pytest.mark.parametrize("name", trace_names())
def test_lengths_are_whole_and_within_the_papers_limits(name):
    lengths = trace_lengths(name)
    assert list(lengths) == ["input_tokens", "output_tokens"]
    assert all(str(kind) == "int64" for kind in lengths.dtypes)
    assert lengths["input_tokens"].between(4, 2048).all()
    assert lengths["output_tokens"].between(4, 1024).all()
    assert len(lengths) > 1000
    assert list(lengths.index) == list(range(len(lengths)))


def test_a_table_of_ones_own_each_time():
    changed = trace_lengths("alpaca")
    changed.loc[:, "input_tokens"] = 0
    assert trace_lengths("alpaca")["input_tokens"].min() > 0


def test_arrivals_belong_to_traces():
    assert set(arrival_names()) <= set(trace_names())


def test_unknown_trace():
    with pytest.raises(UnknownNameError, match="unknown trace 'azure-convo'; did you mean 'azure-conv'"):
        trace_lengths("azure-convo")
