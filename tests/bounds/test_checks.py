"""What a user sees who passes something wrong: ValueError with argument, value and allowed range.

Outside of the tests nothing checks types, so every call here is made with the tests' type checker
switched off (`laws.as_users_call`).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bounds import checks, concentration, covering, losses, matrices, stability
from bounds.capacity import covering_number
from bounds.generalization import generalization_gap, rademacher_lower, rademacher_upper
from bounds.lipschitz import lipschitz_constants, output_range
from bounds.ssm import SelectiveSSMClass
from tests import laws

NOT_NUMBERS = (
    math.nan,
    math.inf,
    -math.inf,
    "1",
    b"1",
    True,
    None,
    1j,
    [],
    "",
    {},
    (0.5, math.nan),
)
BAD: dict[str, tuple[Any, ...]] = {
    "real": NOT_NUMBERS,
    "positive": (*NOT_NUMBERS, 0.0, -1.0, -5e-324, np.array([1.0, 0.0])),
    "nonnegative": (*NOT_NUMBERS, -1e-300, -1, np.array([1.0, -1.0])),
    "count": (*NOT_NUMBERS, 0, -1, 1.5, 2**53 + 1, 10**400, 1e300, np.array([1, 0])),
    "probability": (*NOT_NUMBERS, 0.0, 1.0, -0.1, 1.1, 5),
    "fraction": (*NOT_NUMBERS, -1e-9, 1 + 1e-9),
}
CHECKS = {
    "real": checks.numeric,
    "positive": checks.positive,
    "nonnegative": checks.nonnegative,
    "count": checks.count,
    "probability": checks.probability,
    "fraction": checks.fraction,
}
ALLOWED = {
    "real": "finite real number",
    "positive": "number > 0",
    "nonnegative": "number >= 0",
    "count": "whole number from 1 to 2**53",
    "probability": "strictly between 0 and 1",
    "fraction": "from 0 to 1",
}

BASE = dict(d=4, N=3, s_A=-0.5, a_lo=-2.0, p_lo=-1.0, p_hi=0.0)
SSM = SelectiveSSMClass(**BASE)


def make(**more: Any) -> SelectiveSSMClass:
    return SelectiveSSMClass(**{**BASE, **more})


def gap(**more: Any) -> Any:
    return generalization_gap(SSM, **{**dict(m=9, T=5, delta=0.1, loss=losses.ramp()), **more})


def cover(**more: Any) -> Any:
    return covering_number(SSM, **{**dict(T=5, radius=1.0, cover="maurey"), **more})


# Every public function with an argument, and the kind of argument that is.
CALLS: list[tuple[Any, dict[str, Any], dict[str, str]]] = [
    (stability.softplus, dict(v=1.0), dict(v="real")),
    (stability.log_c, dict(x=1.0), dict(x="nonnegative")),
    (stability.log_S1, dict(rate=1.0, T=5), dict(rate="real", T="count")),
    (stability.log_S2, dict(rate=1.0, T=5), dict(rate="real", T="count")),
    (stability.log_J, dict(s=1.0, Y=5.0), dict(s="real", Y="nonnegative")),
    (stability.I, dict(s=1.0, Y=5.0), dict(s="real", Y="nonnegative")),
    (stability.S1, dict(rate=1.0, T=5), dict(rate="real", T="count")),
    (stability.S2, dict(rate=1.0, T=5), dict(rate="real", T="count")),
    (stability.J, dict(s=1.0, Y=5.0), dict(s="real", Y="nonnegative")),
    (stability.G1, dict(s=1.0, D=1.0, T=5), dict(s="real", D="positive", T="count")),
    (
        stability.G2,
        dict(s=1.0, D=1.0, D_min=0.1, T=5),
        dict(s="real", D="positive", D_min="nonnegative", T="count"),
    ),
    (
        stability.H,
        dict(s=1.0, D=1.0, D_min=0.1, a_lo=-1.0, T=5),
        dict(s="real", D="positive", D_min="nonnegative", a_lo="real", T="count"),
    ),
    (concentration.log_xi, dict(m=5), dict(m="count")),
    (concentration.xi, dict(m=5), dict(m="count")),
    (concentration.sign_sums, dict(m=5), dict(m="count")),
    (
        concentration.hoeffding_slack,
        dict(loss_range=1.0, m=5, log_inverse_delta=1.0),
        dict(loss_range="positive", m="count", log_inverse_delta="nonnegative"),
    ),
    (concentration.kl_bernoulli, dict(q=0.1, p=0.2), dict(q="fraction", p="fraction")),
    (concentration.kl_inverse, dict(q=0.1, budget=0.2), dict(q="fraction", budget="nonnegative")),
    (covering.log_maurey_coefficient, dict(M=1.0, n=5), dict(M="nonnegative", n="count")),
    (
        covering.maurey_log_cover,
        dict(M=1.0, n=5, radius=1.0),
        dict(M="nonnegative", n="count", radius="positive"),
    ),
    (
        covering.volumetric_log_cover,
        dict(R=1.0, n=5, radius=1.0),
        dict(R="nonnegative", n="count", radius="positive"),
    ),
    (
        covering.box_log_cover,
        dict(width=1.0, n=5, radius=1.0),
        dict(width="nonnegative", n="count", radius="positive"),
    ),
    (
        covering.allocate_radii,
        dict(alpha=np.ones(2), beta=np.ones(2), radius=1.0),
        dict(radius="positive"),
    ),
    (
        losses.Loss,
        dict(name="x", range=1.0, lipschitz=1.0),
        dict(range="positive", lipschitz="positive"),
    ),
    (losses.ramp, dict(margin=1.0), dict(margin="positive")),
    (losses.multiclass_margin, dict(margin=1.0), dict(margin="positive")),
    (losses.binary_cross_entropy, dict(output_bound=1.0), dict(output_bound="positive")),
    (
        losses.cross_entropy,
        dict(n_classes=3, output_bound=1.0),
        dict(n_classes="count", output_bound="positive"),
    ),
    (matrices.transient_constant, dict(A=np.eye(2), margin=1.0), dict(margin="positive")),
    (
        make,
        {},
        dict(d="count", N="count", outputs="count", B_u="positive", B_w="positive", B_B="positive",
             B_C="positive", B_q="nonnegative", s_A="real", a_lo="real", p_lo="real", p_hi="real"),
    ),
    (lambda **more: make(vocab=3, **more), {}, dict(M_E="positive")),
    (make, {}, dict(M_w="positive", M_B="positive", M_C="positive", F_B="positive", F_C="positive",
                    M_q="nonnegative", M_A="nonnegative")),
    (lambda **more: make(steps="per_channel", **more), {}, dict(step_rank="count")),
    (lambda **more: make(steps="per_head", **more), dict(heads=2), dict(heads="count")),
    (lambda **more: make(state_matrix="log_norm", **more), dict(B_A=1.0), dict(B_A="nonnegative")),
    (
        lambda **more: make(state_matrix="transient", B_A=1.0, **more),
        dict(transient_constant=1.0),
        dict(transient_constant="positive"),
    ),
    (lambda T: output_range(SSM, T=T), dict(T=5), dict(T="count")),
    (lambda T: lipschitz_constants(SSM, T=T), dict(T=5), dict(T="count")),
    (lambda **more: rademacher_upper(SSM, **more), dict(m=9, T=5), dict(m="count", T="count")),
    (lambda **more: rademacher_lower(SSM, **more), dict(m=9, T=5), dict(m="count", T="count")),
    (gap, {}, dict(m="count", T="count", delta="probability", union_cost="nonnegative")),
    (cover, {}, dict(T="count", radius="positive")),
]  # fmt: skip
OPTIONAL = {"M_w", "M_B", "M_C", "M_q", "M_A", "M_E", "F_B", "F_C", "B_A", "heads", "step_rank"}
ROWS = [
    pytest.param(
        function, valid, name, kind, id=f"{getattr(function, '__name__', 'call')}-{name}-{i}"
    )
    for i, (function, valid, arguments) in enumerate(CALLS)
    for name, kind in arguments.items()
]


def assert_refused(call: Any, name: str, value: Any, allowed: str) -> None:
    with laws.as_users_call(), pytest.raises(ValueError) as caught:  # noqa: PT011
        call()
    message = str(caught.value)
    assert message.startswith(f"{name} must be "), message
    assert repr(value) in message
    assert allowed in message


@pytest.mark.parametrize(("function", "valid", "name", "kind"), ROWS)
def test_every_argument_of_every_function(function, valid, name, kind):
    with laws.as_users_call():
        function(**valid)  # the call itself is right
    for value in BAD[kind]:
        if value is None and name in OPTIONAL:
            continue
        arguments = {**valid, name: value}
        assert_refused(lambda a=arguments: function(**a), name, value, ALLOWED[kind])


@pytest.mark.parametrize("kind", CHECKS)
def test_checks(kind):
    for value in BAD[kind]:
        assert_refused(lambda v=value: CHECKS[kind](T=v), "T", value, ALLOWED[kind])


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_what_passes_is_what_is_allowed(value):
    allowed = {
        "real": True,
        "positive": value > 0,
        "nonnegative": value >= 0,
        "count": 1 <= value <= 2**53 and value == int(value),
        "probability": 0 < value < 1,
        "fraction": 0 <= value <= 1,
    }
    for kind, check in CHECKS.items():
        for form in (value, np.float64(value), np.array([value, value])):
            if allowed[kind]:
                check(x=form)
            else:
                with pytest.raises(ValueError, match="x must be"):
                    check(x=form)


def test_integers_of_any_size():
    for value in (1, 2**53, np.int8(3), np.uint64(2**53), np.array([1, 2**53])):
        checks.count(n=value)
    for value in (2**53 + 1, 2**63, 2**64 + 1, np.uint64(2**63), 10**400):
        with pytest.raises(ValueError, match=r"n must be a whole number from 1 to 2\*\*53"):
            checks.count(n=value)


def test_order():
    checks.ordered(a=1, b=1.0, c=np.array([2, 3]))
    with pytest.raises(ValueError, match="b must be at most c, got b=2 and c=1"):
        checks.ordered(a=0, b=2, c=1)
    with laws.as_users_call(), pytest.raises(ValueError, match="D_min must be at most D"):
        stability.G2(-1.0, 1.0, 2.0, 5)
    with pytest.raises(ValueError, match="a_lo must be at most s"):
        stability.H(-1.0, 1.0, 0.5, 0.0, 5)


def test_words():
    checks.one_of(("a", "b"), word="a")
    with pytest.raises(ValueError, match="word must be one of 'a', 'b', got 'c'"):
        checks.one_of(("a", "b"), word="c")
    for bad in ("dudley", "", None, 3, []):
        with laws.as_users_call(), pytest.raises(ValueError, match="cover must be one of 'maurey'"):
            cover(cover=bad)


@pytest.mark.parametrize("bad", [1.0, (1.0,), (1.0, 2.0, 3.0), ("0", "1"), (0.0, math.nan), "ab"])
def test_step_logits(bad):
    with laws.as_users_call(), pytest.raises(ValueError, match="step_logit"):
        make(step_logits=bad)


@pytest.mark.parametrize("bad", ["", None, False, -1, 1.5, "3", math.nan])
def test_vocab(bad):
    with laws.as_users_call(), pytest.raises(ValueError, match="vocab must be"):
        make(vocab=bad)


def test_matrices_of_the_wrong_shape():
    calls = (
        matrices.spectral_abscissa,
        matrices.logarithmic_norm,
        lambda A: matrices.transient_constant(A, margin=1.0),
    )
    for call in calls:
        for A in (np.zeros((2, 3)), np.zeros(3), np.zeros((0, 0)), np.zeros((2, 2, 2))):
            with (
                laws.as_users_call(),
                pytest.raises(ValueError, match="A must be a non-empty square"),
            ):
                call(A)
        for bad in (math.nan, math.inf):
            with (
                laws.as_users_call(),
                pytest.raises(ValueError, match="A must have finite entries"),
            ):
                call(np.array([[0.0, bad], [1.0, 2.0]]))


def test_blocks_of_the_wrong_shape():
    with laws.as_users_call(), pytest.raises(ValueError, match=r"alpha|beta"):
        covering.allocate_radii(np.ones(2), np.ones(3), radius=1.0)


def test_too_large_to_enumerate_and_too_few_classes():
    with pytest.raises(ValueError, match="m must be at most 20"):
        concentration.sign_sums(21)
    with pytest.raises(ValueError, match="n_classes must be at least 2"):
        losses.cross_entropy(n_classes=1, output_bound=1.0)


@pytest.mark.parametrize(
    "more",
    [dict(p_lo=-800.0, p_hi=-800.0, B_q=0.0), dict(B_q=1e200, B_u=1e200)],
    ids=["underflow", "overflow"],
)
def test_steps_outside_the_range_of_doubles_name_what_the_user_gave(more):
    """A step that underflows or overflows is not a mystery argument `D`."""
    with pytest.raises(ValueError, match=r"p_hi|B_q|largest_step_logit"):
        output_range(make(**more), T=5)
