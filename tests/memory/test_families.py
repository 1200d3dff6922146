"""All kinds of memories: the laws, the parameter formulas, and refusals."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from memory import readout, states
from memory.facts import Facts, draw
from memory.families import FAMILIES
from tests.memory import laws

# Kernel and quantised memories answer in the coordinates they are given; recurrent ones forget.
ORDERED = ("linear-attention", "delta-rule")
FIXED_OUTPUT_AXES = ("one-bit", "two-bit", "kernel-quadratic", "kernel-relu")
INVARIANT_TO_KEYS = (
    "outer-product",
    "pseudo-inverse",
    "low-rank",
    "hopfield",
    "linear-attention",
    "delta-rule",
)

everywhere = pytest.mark.parametrize("name", FAMILIES)
few = settings(max_examples=8)


def facts_of(N: int, d: int, d_out: int, seed: int, association: str = "random") -> Facts:
    return draw(
        N=N,
        d=d,
        M=max(2, N // 2),
        d_out=d_out,
        seed=seed,
        association=association,
        dtype=torch.float64,
    )


def builder(name: str, d: int, d_out: int, **sizes: int) -> laws.Build:
    return lambda: FAMILIES[name].build(d, d_out, dtype=torch.float64, **sizes)


def rotation(d: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64)).Q


dimensions = st.integers(6, 12)
numbers = st.integers(1, 40)
seeds = st.integers(0, 10**6)


@everywhere
@few
@given(dimensions, dimensions, numbers, seeds)
def test_laws_of_all(name: str, d: int, d_out: int, N: int, seed: int) -> None:
    facts, others = facts_of(N, d, d_out, seed), facts_of(N + 3, d, d_out, seed + 1)
    build = builder(name, d, d_out)
    memory = build().store(facts)
    assert memory(facts.keys).dtype == torch.float64
    laws.states_its_parameters(memory)
    laws.reads_keys_one_by_one(memory, facts)
    laws.forgets(build, facts, others)
    laws.refuses_other_dimensions(build(), facts)
    if N > 1 or name not in ("kernel-quadratic", "kernel-relu"):
        order = torch.randperm(facts.M, generator=torch.Generator().manual_seed(seed))
        laws.follows_relabelled_outputs(build, facts, order)


@everywhere
@few
@given(dimensions, dimensions, numbers, seeds)
def test_symmetries(name: str, d: int, d_out: int, N: int, seed: int) -> None:
    # Least squares is as sensitive as its features are near to dependent: one readout well below
    # and one well above their number, not at it.
    facts, build = facts_of(N, d, d_out, seed), builder(name, d, d_out)
    if name == "pseudo-inverse" and 0.5 * d < N < 2 * d:
        return
    if name in ("mlp-readout", "attention") and N > d:
        facts = facts_of(d, d, d_out, seed)
    laws.scales_with_outputs(build, facts, 3.7)
    if name not in ORDERED:
        order = torch.randperm(facts.N, generator=torch.Generator().manual_seed(seed))
        laws.ignores_order(build, facts, order)
    if name not in FIXED_OUTPUT_AXES:
        laws.turns_with_outputs(build, facts, rotation(d_out, seed))
    if name in INVARIANT_TO_KEYS:
        laws.turns_with_keys(build, facts, rotation(d, seed))


@pytest.mark.parametrize("name", ORDERED)
def test_order_matters_to_states_that_forget(name: str) -> None:
    facts = facts_of(30, 8, 8, 0)
    with pytest.raises(AssertionError):
        laws.ignores_order(builder(name, 8, 8), facts, torch.arange(29, -1, -1))


@pytest.mark.parametrize("name", FIXED_OUTPUT_AXES)
def test_axes_matter_where_features_are_fixed(name: str) -> None:
    with pytest.raises(AssertionError):
        laws.turns_with_outputs(builder(name, 8, 8), facts_of(30, 8, 8, 0), rotation(8, 0))


@everywhere
def test_stacked_weights_broadcast(name: str) -> None:
    memories = [
        FAMILIES[name].build(6, 9, seed=seed, dtype=torch.float64).store(facts_of(20, 6, 9, seed))
        for seed in range(3)
    ]
    keys = torch.stack([facts_of(11, 6, 9, 7 + seed).keys for seed in range(3)])
    laws.stacks(memories, keys)


@everywhere
def test_blocks_do_not_matter(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = facts_of(50, 7, 5, 3)
    whole = builder(name, 7, 5)().store(facts)(facts.keys)
    monkeypatch.setattr(readout, "BLOCK_ENTRIES", 200)
    monkeypatch.setattr(states, "_CHUNK", 7)
    laws.close(builder(name, 7, 5)().store(facts)(facts.keys), whole, 1e-7)


@everywhere
def test_single_precision_agrees_with_double(name: str) -> None:
    facts = facts_of(12, 16, 16, 5, "cyclic")
    double = builder(name, 16, 16)().store(facts)(facts.keys)
    single = FAMILIES[name].build(16).store(facts)(facts.keys.float())
    assert single.dtype == torch.float32
    if name != "kernel-relu":  # Its step, and with it the gates it misses, depends on the type.
        laws.close(single.double(), double, 2e-3)


@everywhere
def test_seeds_draw_other_features_only_where_there_are_any(name: str) -> None:
    facts = facts_of(40, 8, 8, 0)
    first, again, other = (
        FAMILIES[name].build(8, seed=seed, dtype=torch.float64).store(facts)(facts.keys)
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert torch.equal(first, other) != FAMILIES[name].seeded


@everywhere
def test_a_few_orthonormal_facts_are_recalled(name: str) -> None:
    facts = draw(N=4, d=64, embedding="orthonormal", dtype=torch.float64)
    sizes = {"width": 4096} if name.startswith("kernel") else {}
    assert laws.error(builder(name, 64, 64, **sizes)().store(facts), facts) == 0


@everywhere
def test_an_empty_memory_recalls_nothing(name: str) -> None:
    facts = facts_of(5, 6, 6, 0)
    assert laws.error(builder(name, 6, 6)(), facts) == 1


@pytest.mark.parametrize(
    ("name", "sizes", "named"),
    [
        ("one-bit", {"bits_per_weight": 0}, "bits"),
        ("one-bit", {"bits_per_weight": 17}, "bits"),
        ("low-rank", {"rank": 0}, "rank"),
        ("low-rank", {"rank": 9}, "rank"),
        ("projection", {"rank": 9}, "rank"),
        ("mlp-readout", {"width": 0}, "width"),
        ("kernel-relu", {"width": 7}, "width"),
        ("attention", {"heads": 0}, "heads"),
        ("attention", {"head_dim": 0}, "head_dim"),
        ("attention", {"inverse_temperature": -1.0}, "inverse_temperature"),
        ("hopfield", {"inverse_temperature": 0.0}, "inverse_temperature"),
        ("delta-rule", {"rate": 0.0}, "rate"),
        ("linear-attention", {"decay": 0.0}, "decay"),
        ("linear-attention", {"decay": 1.1}, "decay"),
        ("diagonal-ssm", {"state_size": 0}, "state_size"),
        ("diagonal-ssm", {"decay": [0.5, 0.5, 0.5]}, "decay"),
        ("outer-product", {"d_out": 0}, "d_out"),
    ],
)
def test_refused_sizes_are_named(name: str, sizes: dict, named: str) -> None:
    family = FAMILIES[name]
    arguments = {"d_out": 8, **family.options, **family.sizes(8), **sizes}
    with pytest.raises(ValueError, match=named):
        family.memory(d=8, **arguments)
