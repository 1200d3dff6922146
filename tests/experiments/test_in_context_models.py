"""The models of in-context learning: their blocks, sizes and costs, positions, matched widths."""

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from experiments.in_context_models import MODELS, block_flops, block_parameters, build, matched
from experiments.models.cost import matmul_flops
from experiments.models.scan import VARIABLE
from experiments.tasks.in_context import InContextTask, Prompts

NAMES = st.sampled_from(tuple(MODELS))


@dataclass(frozen=True, kw_only=True)
class Task:
    d: int = 3
    d_output: int = 2
    length: int = 10
    scale: float = 1.0
    signs: bool = False

    def sample(self, prompts: int, *, seed: int, split: str = "train") -> Prompts:
        raise NotImplementedError


def made(name, *, task=Task(), d_model=8, layers=1, heads=2, seed=0):
    return build(name, task, d_model=d_model, layers=layers, heads=heads, seed=seed)


def prompts(task=Task(), count=2, seed=0):
    return torch.randn(count, task.length, task.d, generator=torch.Generator().manual_seed(seed))


def read_in_and_out(model, task=Task()):
    """Parameters that the sizes of blocks leave out."""
    d = model.config.d_model
    positions = task.length * d if model.config.positions == "learned" else 0
    return (task.d + 1) * d + (d + 1) * task.d_output + positions


def test_the_task_of_these_tests_is_one():
    assert isinstance(Task(), InContextTask)


def test_blocks():
    blocks = {name: made(name, layers=2).config.layers for name in MODELS}
    assert blocks == {
        "transformer": ("attention", "mlp", "attention", "mlp"),
        "transformer-without-positions": ("attention", "mlp", "attention", "mlp"),
        "mamba-transformer": ("mamba", "attention", "mlp", "attention", "mlp"),
        "s4": ("s4d",) * 4,
        "s4-mamba": ("s4-mamba",) * 4,
        "mamba": ("mamba",) * 4,
        "mamba-mlp": ("mamba", "mlp", "mamba", "mlp"),
        "hybrid": ("attention", "mamba", "attention", "mamba"),
        "hybrid-without-positions": ("attention", "mamba", "attention", "mamba"),
        "mambaformer": ("mamba", "attention", "mamba", "attention", "mamba"),
    }


COLUMNS = ("transformer", "mamba", "hybrid", "mambaformer", "s4", "s4-mamba")
SIZES = {
    (256, 12): (9_477_632, 10_519_040, 8_423_936, 8_862_208, 3_379_712, 9_929_216),
    (128, 12): (2_379_520, 2_801_920, 2_196_736, 2_313_472, 903_424, 2_605_312),
    (64, 12): (599_936, 786_560, 594_560, 627_328, 255_104, 712_832),
    (128, 2): (396_800, 467_200, 366_336, 483_072, 150_784, 434_432),
    (64, 2): (100_096, 131_200, 99_200, 131_968, 42_624, 118_912),
}
"""By width and layers: what the formulas of the blocks sum to with 2 D for each norm. The
Transformer of 256 and 12: 12 (4 * 256^2 + 4 * 256 + 8 * 256^2 + 5 * 256 + 4 * 256) + 2 * 256."""


@pytest.mark.parametrize(("d_model", "layers"), SIZES)
def test_sizes(d_model, layers):
    for name, size in zip(COLUMNS, SIZES[d_model, layers], strict=True):
        assert block_parameters(name, d_model=d_model, layers=layers) == size
        with torch.device("meta"):
            model = made(name, d_model=d_model, layers=layers, heads=8)
        counted = sum(p.numel() for p in model.parameters())
        assert counted - read_in_and_out(model) == size


@settings(max_examples=20)
@given(name=NAMES, half=st.integers(1, 12), layers=st.integers(1, 2), length=st.integers(1, 9))
def test_stated_costs_are_the_counted_ones(name, half, layers, length):
    task, d = Task(length=length), 2 * half
    model = made(name, task=task, d_model=d, layers=layers)
    counted = sum(p.numel() for p in model.parameters()) - read_in_and_out(model, task)
    assert counted == block_parameters(name, d_model=d, layers=layers)
    assert counted != block_parameters(name, d_model=d, layers=layers + 1)

    totals = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv(VARIABLE, "reference")  # without matrix products in the scan
        for batch in (1, 2):
            with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
                model(prompts(task, batch))
            totals.append(counter.get_total_flops())
    blocks = MODELS[name].blocks(layers)
    stated = sum(matmul_flops(mixer, d_model=d, length=length) for mixer in blocks)
    assert totals[1] - totals[0] == length * (stated + 2 * task.d * d + 2 * d * task.d_output)
    assert block_flops(name, d_model=d, layers=layers, length=length) >= stated


def test_operations_of_a_layer_at_the_published_size():
    # D = 256, T = 82. Attention 8 D^2 + 4 T D, MLP 16 D^2, Mamba 12.5 D^2 + 370 D.
    pairs = {
        name: block_flops(name, d_model=256, layers=1, length=82)
        for name in ("transformer", "mamba", "hybrid")
    }
    assert pairs == {"transformer": 1_656_832, "mamba": 1_827_840, "hybrid": 1_522_176}
    behind_mamba = block_flops("mambaformer", d_model=256, layers=1, length=82)
    assert behind_mamba - pairs["hybrid"] == pairs["mamba"] / 2


@given(name=NAMES, at=st.integers(0, 8), layers=st.integers(1, 2), seed=st.integers(0, 99))
@settings(max_examples=25)
def test_guesses_know_nothing_of_later_tokens(name, at, layers, seed):
    model, tokens = made(name, layers=layers, seed=seed), prompts()
    changed = tokens.clone()
    changed[:, at + 1 :] += 1
    with torch.no_grad():
        before, after = model(tokens), model(changed)
    assert torch.allclose(before[:, : at + 1], after[:, : at + 1], atol=1e-5)
    assert not torch.allclose(before[:, at + 1 :], after[:, at + 1 :], atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_all_but_attention_alone_see_the_order_of_earlier_tokens(name):
    model, tokens = made(name), prompts()
    order = [3, 0, 4, 1, 8, 2, 7, 6, 5, 9]
    with torch.no_grad():
        last, shuffled = model(tokens)[:, -1], model(tokens[:, order])[:, -1]
    assert torch.allclose(last, shuffled, atol=1e-5) == (name == "transformer-without-positions")


@pytest.mark.parametrize("name", MODELS)
def test_only_learned_positions_end_with_the_prompt(name):
    model, longer = made(name), prompts(Task(length=13))
    if name in ("transformer", "hybrid"):
        assert model.positions.shape == (10, 8)
        with pytest.raises(ValueError, match="the sequence has length 13"):
            model(longer)
    else:
        assert not hasattr(model, "positions")
        assert model(longer).shape == (2, 13, 2)


def test_seeds():
    first, again, other = (made("mambaformer", seed=seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["embedding.weight"], other["embedding.weight"])


@settings(max_examples=30)
@given(
    name=NAMES, reference=NAMES, by=st.sampled_from(("parameters", "flops")),
    heads=st.integers(1, 4), times=st.integers(1, 6), layers=st.integers(1, 2),
    length=st.integers(1, 100),
)  # fmt: skip
def test_no_other_width_is_nearer(name, reference, by, heads, times, layers, length):
    width = matched(
        name, reference, by=by, d_model=heads * times, layers=layers, heads=heads, length=length
    )

    def cost(model, d_model):
        if by == "parameters":
            return block_parameters(model, d_model=d_model, layers=layers)
        return block_flops(model, d_model=d_model, layers=layers, length=length)

    aim = cost(reference, heads * times)
    distances = {d: abs(cost(name, d) - aim) for d in range(heads, 2 * width + 1, heads)}
    assert distances[width] == min(distances.values())
    assert name != reference or width == heads * times


def test_matched_widths():
    same = {"d_model": 64, "layers": 2, "heads": 4, "length": 22}
    assert matched("s4", "transformer", by="depth", **same) == 64
    # The Transformer has 100 096 at 64; 4 (2 D^2 + 36 D) + 10 D is 95 400 at 100, 102 544 at 104.
    assert matched("s4", "transformer", by="parameters", **same) == 104
    assert block_parameters("s4", d_model=100, layers=2) == 95_400
    assert block_parameters("s4", d_model=104, layers=2) == 102_544
    assert matched("mamba", "transformer", by="flops", **same) < 64


def test_what_cannot_be_built_is_refused():
    same = {"by": "flops", "d_model": 8, "layers": 1, "heads": 2, "length": 4}
    with pytest.raises(ValueError, match="name must be one of 'transformer'"):
        made("gpt2")
    with pytest.raises(ValueError, match="layers must be a whole number"):
        made("mamba", layers=0)
    with pytest.raises(ValueError, match="heads divides d_model = 8"):
        made("hybrid", heads=3)
    with pytest.raises(ValueError, match="reference must be one of"):
        matched("mamba", "gpt2", **same)
    with pytest.raises(ValueError, match="by must be one of 'depth'"):
        matched("mamba", "transformer", **{**same, "by": "seconds"})
    with pytest.raises(ValueError, match="heads must divide d_model = 8, got 3"):
        matched("mamba", "transformer", **{**same, "heads": 3})
