"""Edge graphs: sources, destinations, numbers of edges, who feeds whom."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from experiments.interventions.edge_graph import EMBED, OUTPUT, EdgeGraph, frozen
from tests.experiments.interventions.made_edges import made_model


def graph(*layers, resolution="layer", **options):
    return EdgeGraph(made_model(*layers, **options), resolution=resolution)


@given(n=st.integers(1, 6), mixer=st.sampled_from(["mamba", "mlp", "base-conv"]))
def test_number_of_edges_between_layers(n, mixer):
    assert len(graph(*[mixer] * n)) == n + n * (n - 1) // 2 + n + 1


def test_number_of_edges_of_48_layers():
    n = 48  # mamba-370m: 1225 edges (Ensign and Garriga-Alonso 2024)
    edges = sum(j + 1 for j in range(n)) + n + 1
    assert edges == n + n * (n - 1) // 2 + n + 1 == 1225


@pytest.mark.parametrize(
    ("layers", "resolution", "edges"),
    [
        (("mamba", "mamba"), "branch", 2 * 1 + 2 * 2 + 3),
        (("mamba", "mamba"), "tap", 5 * 1 + 5 * 2 + 3),  # 18
        (("mamba2",), "branch", 3 + 2),
        (("mamba2",), "tap", 6 + 2),
        (("attention", "mlp"), "branch", 3 * 1 + 1 * 2 + 3),
        (("attention", "mlp"), "tap", 6 * 1 + 1 * 3 + 4),  # two heads: three sources before mlp
        (("attention", "attention"), "tap", 6 * 1 + 6 * 3 + 5),
    ],
)
def test_number_of_edges_at_finer_resolutions(layers, resolution, edges):
    found = graph(*layers, resolution=resolution)
    assert len(found) == edges == int(found.edges.sum())


def test_names_and_blocks():
    found = graph("mamba", "attention", "mlp", resolution="tap")
    assert found.sources == (EMBED, "0", "1.head.0", "1.head.1", "2")
    heads = ("1.q.0", "1.q.1", "1.k.0", "1.k.1", "1.v.0", "1.v.1")
    taps = ("0.tap.0", "0.tap.1", "0.tap.2", "0.tap.3", "0.gate")
    assert found.destinations == (*taps, *heads, "2", OUTPUT)
    assert [found.before(block) for block in range(4)] == [1, 2, 4, 5]
    columns = [found.columns(block) for block in range(4)]
    assert columns == [slice(0, 5), slice(5, 11), slice(11, 12), slice(12, 13)]
    whole = graph("mamba", "attention", "mlp")
    assert (whole.sources, whole.destinations) == ((EMBED, "0", "1", "2"), ("0", "1", "2", OUTPUT))


def test_edges_run_forward():
    found = graph("attention", "mamba", resolution="tap")
    for i, source in enumerate(found.source_block.tolist()):
        for j, destination in enumerate(found.destination_block.tolist()):
            assert found.edges[i, j] == (source < destination)


def test_a_head_is_fed_by_its_own_readers():
    found = graph("attention", "mlp", resolution="tap", options={"attention": {"heads": 16}})
    fed = dict(zip(found.destinations, found.feeds, strict=True))
    for h in (1, 11):
        for name in "qkv":
            assert fed[f"0.{name}.{h}"].nonzero().tolist() == [[1 + h]]
            assert found.sources[1 + h] == f"0.head.{h}"
    assert fed["1"].tolist() == [name == "1" for name in found.sources]
    assert not fed[OUTPUT].any()


@pytest.mark.parametrize("heads", [1, 2])
@torch.no_grad()
def test_heads_and_bias_add_up_to_the_block(heads):
    found = graph("attention", resolution="tap", options={"attention": {"heads": heads}})
    stream = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(0)).double()
    out, written = found.block(0, stream, {})
    assert len(written) == heads
    whole = torch.stack(written).sum(0) + found.model.blocks[0].mixer.out_proj.bias
    torch.testing.assert_close(whole, out, rtol=0, atol=1e-12)


def test_frozen_gives_gradients_back_after_an_error():
    model = made_model("mamba")
    model.embedding.weight.requires_grad_(False)
    during = []

    def fail():
        with frozen(model):
            during.extend(p.requires_grad for p in model.parameters())
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert not any(during)
    assert [n for n, p in model.named_parameters() if not p.requires_grad] == ["embedding.weight"]


def test_unknown_resolution():
    with pytest.raises(ValueError, match="resolution must be one of"):
        graph("mamba", resolution="head")
