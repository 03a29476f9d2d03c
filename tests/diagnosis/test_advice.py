"""Suggestions and words of findings: they fit the run, and each other."""

import numpy as np
import pandas as pd
import pytest

import helixlab as hx
from helixlab.diagnosis import losses
from helixlab.diagnosis.facts import facts_of

SYSTEM = (
    hx.load_cluster("small10"),
    hx.load_model("llama-1-30b"),
    hx.load_placement("small10/llama-1-30b/helix"),
)


def run(workload, **how):
    return hx.simulate(*SYSTEM, workload=workload, **{"keep_breakdown": True, **how})


def given(*spans):
    """Offline requests: so many, of so many input tokens."""
    tokens = np.concatenate([[tokens] * count for count, tokens in spans])
    table = pd.DataFrame({"input_tokens": tokens, "output_tokens": 5})
    return hx.offline(requests=table, warmup_s=10, duration_s=60)


def found(result):
    return {finding.cause: finding for finding in hx.diagnose(result)}


def add_up(result):
    facts = facts_of(result)
    return losses(result)["tokens_per_s"].sum() == pytest.approx(facts.lost_tokens_per_s)


@pytest.mark.parametrize("number", [5, 5000])
@pytest.mark.parametrize("keep_breakdown", [True, False])
def test_queries_that_are_all_refused(number, keep_breakdown):
    result = run(given((number, 20_000)), keep_breakdown=keep_breakdown)
    refused = result.summary["queries_refused"].item()
    first = hx.diagnose(result)[0]
    assert first.cause == "rejected"
    assert first.text.startswith(
        f"All {refused} queries were turned away for good, because no pipeline has room for such a query"
    )
    assert not {"requests ran out", "waiting"} & set(found(result))
    assert add_up(result)


def test_queries_that_are_refused_last():
    """They run out with the last one, whether it is served or not."""
    result = run(given((20, 100), (5000, 20_000)))
    assert result.summary["queries_finished"].item() == 20
    assert "requests ran out" not in found(result)
    assert "rejected" in found(result)
    assert add_up(result)
