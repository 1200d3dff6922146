"""Layers as papers count them."""

import pytest

from experiments.interventions.layers import COMPONENTS, Layer, layers


def test_the_mlp_behind_a_mixer_belongs_to_its_layer():
    assert layers(("mamba", "mlp", "attention", "mlp")) == (Layer(0, 1), Layer(2, 3))
    assert layers(("mamba", "mamba")) == (Layer(0), Layer(1))
    assert layers(("base-conv", "attention", "mlp")) == (Layer(0), Layer(1, 2))
    assert layers(("mlp", "attention", "mlp", "mlp")) == (Layer(0), Layer(1, 2), Layer(3))


def test_components_are_sites():
    with_mlp = {component: Layer(2, 3).site(component) for component in COMPONENTS}
    assert with_mlp == {
        "block_input": "blocks.2.resid_pre",
        "mixer_input": "blocks.2.normed",
        "mixer_output": "blocks.2.out",
        "mlp_input": "blocks.3.normed",
        "mlp_output": "blocks.3.out",
        "block_output": "blocks.3.resid_post",
    }
    without = Layer(1)
    assert without.site("mlp_input") is None
    assert without.site("mlp_output") is None
    assert without.site("block_output") == "blocks.1.resid_post"
    assert without.site("mixer.h.{t}") == "blocks.1.mixer.h.{t}"
    with pytest.raises(ValueError, match=r"component must be one of .* got 'conv'"):
        without.site("conv")
