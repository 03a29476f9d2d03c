"""One look: fixed colours that can be told apart, also in grey, and a style that ends with its context."""

from importlib import import_module
from itertools import pairwise

import matplotlib.pyplot as plt
import pytest
from matplotlib import colors

from helixlab._data import read_table
from helixlab.plotting import METHOD_COLOURS, METHOD_LABELS, panels, style
from helixlab.plotting.style import MACHINE_COLOURS, in_order, ink_on, machine_colours, method_colours


def grey(colour: str) -> float:
    red, green, blue = colors.to_rgb(colour)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_the_style_holds_in_its_context_only() -> None:
    before = plt.rcParams["font.size"]
    with style():
        assert plt.rcParams["font.size"] == 7
        assert plt.rcParams["pdf.fonttype"] == 42
    assert plt.rcParams["font.size"] == before


def test_every_published_method_has_a_colour_and_a_label() -> None:
    methods = set(read_table("published/results.csv")["method"])
    assert methods <= set(METHOD_COLOURS)
    assert set(METHOD_LABELS) == set(METHOD_COLOURS)


@pytest.mark.parametrize("palette", [METHOD_COLOURS, MACHINE_COLOURS])
def test_colours_differ(palette: dict[str, str]) -> None:
    assert len(set(palette.values())) == len(palette)


def test_what_is_compared_most_can_be_told_apart_in_grey() -> None:
    lightness = [grey(METHOD_COLOURS[method]) for method in ("helix", "petals", "separate", "swarm")]
    assert all(later - earlier > 0.08 for earlier, later in pairwise(lightness))


def test_a_method_keeps_its_colour_whoever_is_beside_it() -> None:
    assert method_colours(["mine", "swarm"])["swarm"] == method_colours(["helix", "swarm"])["swarm"]
    assert list(method_colours(["mine", "swarm", "helix"])) == ["helix", "swarm", "mine"]
    assert len(set(method_colours(["mine", "yours", "helix"]).values())) == 3
    assert len(set(machine_colours(["H100", "B200", "A100"]).values())) == 3


def test_order_is_fixed() -> None:
    assert in_order(reversed(METHOD_COLOURS)) == list(METHOD_COLOURS)


def test_ink_is_legible() -> None:
    for colour in [*METHOD_COLOURS.values(), *MACHINE_COLOURS.values()]:
        assert abs(grey(colour) - grey(ink_on(colour))) > 0.35


def test_panels_have_the_width_of_a_column() -> None:
    figure, axes = panels(2, 3)
    assert figure.get_size_inches()[0] == 3.3
    assert axes.shape == (2, 3)


def test_other_scripts_have_fonts_where_there_are_some(monkeypatch):
    # The second and the third come with matplotlib, and the third has no bold letters.
    fonts = import_module("helixlab.plotting.style")  # the package has a function of that name
    monkeypatch.setattr(fonts, "_OTHER_FAMILIES", ("No such font", "STIXGeneral", "cmsy10"))
    fonts.families.cache_clear()
    try:
        with style():
            assert plt.rcParams["font.family"] == ["DejaVu Sans", "STIXGeneral"]
    finally:
        fonts.families.cache_clear()
