"""A placement cannot pass for another one: names that do not match the content cause a warning."""

import json
import warnings
from dataclasses import replace

import pytest

import helixlab as hx
from helixlab.placement import read_placement_ini
from helixlab.placement.io import shown_name

PETALS = hx.load_placement("single24/llama-2-70b/petals")
HELIX = hx.load_placement("single24/llama-2-70b/helix")


def quietly(path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return hx.load_placement(path)


def test_bundled_ones_say_nothing():
    for name in hx.placement_names():
        placement = quietly(name)
        assert shown_name(placement) == placement.name == name


def test_what_was_saved_as_it_is(tmp_path):
    hx.save_placement(PETALS, tmp_path / "petals.json")
    assert quietly(tmp_path / "petals.json") == PETALS
    hx.save_placement(PETALS, tmp_path / "any.json")
    assert quietly(tmp_path / "any.json") == PETALS


def test_the_name_of_another_one_inside(tmp_path):
    hx.save_placement(replace(HELIX, name=PETALS.name), tmp_path / "mine.json")
    message = (
        r"mine.json calls its placement 'single24/llama-2-70b/petals', but it holds"
        r" 'single24/llama-2-70b/helix'; rename it, or results are taken for those of another placement"
    )
    with pytest.warns(UserWarning, match=message):
        placement = hx.load_placement(tmp_path / "mine.json")
    assert shown_name(placement) == f"{PETALS.name}@{HELIX.content_hash[:8]}"


@pytest.mark.parametrize("name", [f"{PETALS.name} ", f" {PETALS.name}", "Single24/LLaMA-2-70b/Petals"])
def test_blanks_and_capitals_make_no_other_name(tmp_path, name):
    hx.save_placement(replace(PETALS, name=name), tmp_path / "mine.json")
    same = quietly(tmp_path / "mine.json")
    assert shown_name(same) == name
    hx.save_placement(replace(HELIX, name=name), tmp_path / "mine.json")
    with pytest.warns(UserWarning, match=f"mine.json calls its placement '{name}', but it holds"):
        other = hx.load_placement(tmp_path / "mine.json")
    assert shown_name(other) == f"{name.strip()}@{HELIX.content_hash[:8]}"


@pytest.mark.parametrize("file", ["Petals.json", "PETALS .json"])
def test_blanks_and_capitals_in_the_name_of_the_file(tmp_path, file):
    hx.save_placement(replace(HELIX, name="mine", method="by hand", links=HELIX.links[:-1]), tmp_path / file)
    with pytest.warns(UserWarning, match="is named after 'single24/llama-2-70b/petals'"):
        hx.load_placement(tmp_path / file)
    hx.save_placement(PETALS, tmp_path / file)
    assert quietly(tmp_path / file) == PETALS


def test_the_name_of_another_one_outside(tmp_path):
    hx.save_placement(HELIX, tmp_path / "petals.json")
    text = r"petals.json is named after 'single24/llama-2-70b/petals', but it holds 'single24/llama-2-70b/hel"
    with pytest.warns(UserWarning, match=text):
        hx.load_placement(tmp_path / "petals.json")


def test_a_changed_one_under_the_old_name(tmp_path):
    hx.save_placement(PETALS, tmp_path / "petals.json")
    content = json.loads((tmp_path / "petals.json").read_text())
    content["links"] = content["links"][:-1]
    (tmp_path / "petals.json").write_text(json.dumps(content))
    with pytest.warns(UserWarning, match="but its content is none of the published ones"):
        hx.load_placement(tmp_path / "petals.json")


def test_planned_ones_share_names_and_differ_by_their_hashes(tmp_path):
    cluster, model = hx.load_cluster("small10"), hx.load_model("llama-1-30b")
    planned = hx.plan(cluster, model, method="petals", rng=3)
    published = (
        hx.load_placement("small10/llama-1-30b/petals") if planned.name in hx.placement_names() else None
    )
    if published is not None and published.content_hash != planned.content_hash:
        assert shown_name(planned) == f"{planned.name}@{planned.content_hash[:8]}"
    hx.save_placement(planned, tmp_path / "petals.json")
    assert quietly(tmp_path / "petals.json") == planned


def test_a_planned_one_is_no_published_one(tmp_path):
    claimed = replace(HELIX, name=PETALS.name, source="planned by helixlab")
    hx.save_placement(claimed, tmp_path / "mine.json")
    with pytest.warns(UserWarning, match="calls its placement 'single24/llama-2-70b/petals', but it holds"):
        hx.load_placement(tmp_path / "mine.json")


def test_the_method_does_not_excuse_the_name_of_the_file(tmp_path):
    hx.save_placement(replace(PETALS, name="mine", links=PETALS.links[:-1]), tmp_path / "petals.json")
    with pytest.warns(UserWarning, match="is named after 'single24/llama-2-70b/petals', but its content is"):
        hx.load_placement(tmp_path / "petals.json")


@pytest.mark.parametrize("file", ["petals-run.json", "run_of_Petals.json", "single24-petals-2.json"])
def test_a_longer_name_of_the_file(tmp_path, file):
    hx.save_placement(HELIX, tmp_path / file)
    message = (
        r"is named after 'single24/llama-2-70b/petals', but it holds 'single24/llama-2-70b/helix' and is"
    )
    with pytest.warns(UserWarning, match=message):
        hx.load_placement(tmp_path / file)
    hx.save_placement(PETALS, tmp_path / file)
    assert quietly(tmp_path / file) == PETALS


def test_names_of_files_that_claim_nothing(tmp_path):
    mine = replace(HELIX, name="my-helix", method="by hand", links=HELIX.links[:-1])
    for file in ("my-helix.json", "helixes.json", "petals-by-hand.json"):
        hx.save_placement(mine, tmp_path / file)
        assert quietly(tmp_path / file) == mine
    hx.save_placement(HELIX, tmp_path / "helix-not-petals.json")
    assert quietly(tmp_path / "helix-not-petals.json") == HELIX


@pytest.mark.parametrize("file", ["petals.ini", "petals-run.ini"])
def test_files_that_state_layers_only(tmp_path, file):
    subject = hx.load_cluster("single24"), hx.load_model("llama-2-70b")

    def written(placement):
        lines = ["[Settings]", "offset=2", "[Solution]"]
        lines += [
            f"compute_node_{each.node + 2}={list(range(each.first_layer, each.end_layer))}"
            for each in placement.layers
        ]
        (tmp_path / file).write_text("\n".join(lines))
        return tmp_path / file

    with pytest.warns(UserWarning, match="but it holds 'single24/llama-2-70b/helix'"):
        read_placement_ini(written(HELIX), *subject)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_placement_ini(written(PETALS), *subject).layers == PETALS.layers


def test_flows_show_whose_they_are():
    changed = replace(PETALS, links=PETALS.links[:-1])
    subject = hx.load_cluster("single24"), hx.load_model("llama-2-70b")
    assert hx.max_flow(*subject, PETALS).placement == PETALS.name
    assert hx.max_flow(*subject, changed).placement == f"{PETALS.name}@{changed.content_hash[:8]}"


def test_hash_is_of_the_content():
    assert replace(PETALS, name="mine", method="mine").content_hash == PETALS.content_hash
    assert replace(PETALS, links=PETALS.links[:-1]).content_hash != PETALS.content_hash
    assert HELIX.content_hash != PETALS.content_hash
