"""Hypothesis strategies: rates, lengths, step sequences, matrices, and classes of models."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from hypothesis import strategies as st

LARGEST_COUNT = 2**53
VARIANTS = (
    "shared",
    "per_channel",
    "step_rank",
    "per_head",
    "log_norm",
    "transient",
    "step_logits",
    "vocab",
    "outputs",
)
"""Every kind of class the theory distinguishes; see `budgets`."""

# Where an implementation may switch branches: around each of these a value and its neighbours.
_THRESHOLDS = (1e-14, 1e-9, 1e-8, 1e-5, 0.5, math.log(2), 1.0, 2.0, 50.0)
_NUDGES = (1 - 1e-3, 1 - 2**-53, 1.0, 1 + 2**-52, 1 + 1e-3)


def log_uniform(low: float, high: float) -> st.SearchStrategy[float]:
    """Positive numbers, uniform in the logarithm."""
    logs = st.floats(math.log(low), math.log(high))
    return logs.map(lambda value: min(max(math.exp(value), low), high))


def signed(magnitudes: st.SearchStrategy[float]) -> st.SearchStrategy[float]:
    return st.tuples(st.sampled_from((-1, 1)), magnitudes).map(math.prod)


def tenths(low: int, high: int) -> st.SearchStrategy[float]:
    """Ordinary numbers, without the tiny ones whose squares leave the range of doubles."""
    return st.integers(10 * low, 10 * high).map(lambda k: k / 10)


def near_thresholds() -> st.SearchStrategy[float]:
    """Magnitudes at, just below and just above every branch threshold."""
    return st.builds(
        lambda value, nudge: value * nudge,
        st.sampled_from(_THRESHOLDS),
        st.sampled_from(_NUDGES),
    )


def lengths(longest: int = LARGEST_COUNT) -> st.SearchStrategy[int]:
    """Sequence lengths: short ones, powers of ten, anything log-uniform, the longest."""
    return st.one_of(
        st.integers(1, min(50, longest)),
        log_uniform(1, longest).map(lambda T: min(max(round(T), 1), longest)),
        st.sampled_from([T for T in (1, 2, 3, 10**9, 10**15, longest) if T <= longest]),
    )


@st.composite
def rates_and_lengths(draw: st.DrawFn, largest: float = 50.0) -> tuple[float, int]:
    """A rate per step and a length; often with rate * length on a threshold."""
    T = draw(lengths())
    rate = draw(
        st.one_of(
            signed(log_uniform(1e-14, largest)),
            signed(near_thresholds()),
            signed(near_thresholds()).map(lambda x: x / T),
            signed(st.sampled_from((700.0, 709.5, 745.0))).map(lambda x: x / max(T, 15)),
            st.sampled_from((0.0, -0.0, 5e-324, -5e-324, 1e-310, -1e-300)),
        )
    )
    return rate, T


@st.composite
def step_sequences(draw: st.DrawFn) -> tuple[float, float, np.ndarray]:
    """D_min, D and steps between them: constant, two-valued, almost all tiny, random, sorted."""
    D = draw(log_uniform(1e-3, 20))
    D_min = draw(st.one_of(st.just(0.0), st.floats(0, 1).map(lambda share: share * D)))
    T = draw(st.integers(1, 40))
    kind = draw(st.sampled_from(("constant", "two", "tiny", "random", "rising", "falling")))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    if kind == "constant":
        steps = np.full(T, D)
    elif kind == "two":
        steps = np.where(rng.random(T) < rng.random(), D_min, D)
    elif kind == "tiny":
        steps = np.where(rng.random(T) < 0.3, D, np.maximum(D_min, D * 10 ** rng.uniform(-12, -3)))
    else:
        steps = D_min + (D - D_min) * rng.random(T) ** draw(st.sampled_from((0.2, 1.0, 5.0)))
    if kind in ("rising", "falling"):
        steps = np.sort(steps)[:: 1 if kind == "rising" else -1]
    return D_min, D, np.clip(steps, D_min, D)


@st.composite
def square_matrices(draw: st.DrawFn, largest: int = 6) -> np.ndarray:
    """Normal, triangular, nearly defective and random matrices."""
    n = draw(st.integers(1, largest))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scale = draw(log_uniform(1e-2, 1e2))
    kind = draw(st.sampled_from(("normal", "jordan", "triangular", "random", "zero")))
    if kind == "zero":
        return np.zeros((n, n))
    if kind == "normal":
        Q, _ = np.linalg.qr(rng.normal(size=(n, n)))
        return Q @ np.diag(rng.normal(size=n)) @ Q.T * scale
    if kind == "jordan":
        return -rng.random() * np.eye(n) + scale * np.eye(n, k=1)
    A = rng.normal(size=(n, n)) * scale
    return np.triu(A) if kind == "triangular" else A


@st.composite
def budgets(
    draw: st.DrawFn,
    variant: str = "shared",
    *,
    signs: tuple[int, ...] = (-1, 0, 1),
    sizes: tuple[int, int] = (1, 6),
) -> dict[str, Any]:
    """Keyword arguments of a class that is not empty; sum budgets are sometimes left out."""
    d, N = draw(st.integers(*sizes)), draw(st.integers(*sizes))
    named: dict[str, Any] = dict(d=d, N=N, p_lo=draw(tenths(-6, 2)))
    named["p_hi"] = named["p_lo"] + draw(tenths(0, 3))
    named["s_A"] = draw(st.sampled_from(signs)) * draw(log_uniform(1e-3, 3))
    named["a_lo"] = min(named["s_A"], 0.0) - draw(tenths(0, 4))
    for name in ("B_u", "B_w", "B_B", "B_C"):
        named[name] = draw(log_uniform(0.2, 4))
    named["B_q"] = draw(st.one_of(st.just(0.0), log_uniform(0.1, 2)))
    n_steps = 1
    if variant in ("per_channel", "step_rank"):
        named["steps"], n_steps = "per_channel", d
        if variant == "step_rank":
            named["step_rank"] = draw(st.integers(1, d))
    if variant == "per_head":
        n_steps = draw(st.sampled_from([h for h in range(1, d + 1) if d % h == 0]))
        named |= dict(steps="per_head", heads=n_steps)
    if variant in ("log_norm", "transient"):
        named |= dict(state_matrix=variant, B_A=abs(named["s_A"]) + draw(log_uniform(0.1, 4)))
        if variant == "transient":
            named["transient_constant"] = draw(st.floats(1, 20))
    else:
        n_A = n_steps if variant == "per_head" else d * N
        if draw(st.booleans()):
            named["M_A"] = n_A * max(-named["s_A"], 0.0) + draw(log_uniform(0.05, 20))
    for name, n in (("w", d), ("B", d * N), ("C", d * N), ("q", d * n_steps)):
        if draw(st.booleans()):
            named[f"M_{name}"] = named[f"B_{name}"] * draw(st.floats(0.5, 1.5)) * math.sqrt(n)
    if draw(st.booleans()):
        named["F_B"] = named["B_B"] * draw(st.floats(0.8, 2))
    if variant == "step_logits":
        reach = min(named["B_q"], named.get("M_q", math.inf)) * named["B_u"]
        share = sorted((draw(st.floats(0, 1)), draw(st.floats(0, 1))))
        low, span = named["p_lo"] - reach, named["p_hi"] - named["p_lo"] + 2 * reach
        named["step_logits"] = (low + share[0] * span, low + share[1] * span)
    if variant == "vocab":
        named["vocab"] = draw(st.integers(1, 50))
    if variant == "outputs":
        named["outputs"] = draw(st.integers(2, 5))
    return named


LOOSER_WHEN_LARGER = (
    "B_u", "B_w", "B_B", "B_C", "B_q", "M_w", "M_B", "M_C", "M_q", "M_A", "F_B", "F_C",
    "p_hi", "s_A", "B_A", "transient_constant",
)  # fmt: skip
SIZES = ("d", "N", "vocab", "outputs", "step_rank")
LOOSER_WHEN_SMALLER = ("p_lo", "a_lo")


@st.composite
def loosened(draw: st.DrawFn, named: dict[str, Any], *, sizes: bool = True) -> dict[str, Any]:
    """The same budgets with one of them loosened, so that every model stays in the class.

    With `sizes=False`, numbers of parameters stay as they are.
    """
    names = (*LOOSER_WHEN_LARGER, *LOOSER_WHEN_SMALLER, *(SIZES if sizes else ()))
    present = [name for name in names if named.get(name) is not None]
    name = draw(st.sampled_from(present))
    value = named[name]
    more: dict[str, Any]
    if name in LOOSER_WHEN_SMALLER:
        more = {name: value - draw(tenths(0, 2))}
    elif name in ("p_hi", "s_A"):
        more = {name: value + draw(tenths(0, 2))}
    elif isinstance(value, int):
        times = draw(st.integers(2, 3))
        more = {name: value * times}
        if name in ("d", "N") and "M_A" in named:
            # Further channels and states need further room, or the class would become empty.
            more["M_A"] = named["M_A"] * times
    else:
        more = {name: value * draw(tenths(1, 3))}
    if name == "s_A" and "B_A" in named:
        more["B_A"] = max(named["B_A"], abs(more["s_A"]))
    if name == "step_rank":
        more[name] = min(more[name], named["d"])
    return {**named, **more}
