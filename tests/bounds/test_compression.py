"""Bounds that count bits: reference values, honest counts, validity on a learning problem."""

import inspect
import itertools
import math

import mpmath as mp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, binomtest

from bounds import compression
from bounds.concentration import kl_bernoulli, kl_inverse

OCCAM = dict(train_error=0.1, m=1000, delta=0.05, n_parameters=65, n_tensors=6, bits=3)
PAC = dict(sampled_error=0.1, draws=1000, kl=20.0, m=1000, delta=0.05, draw_delta=0.01)


def _kl_inverse(q: float, budget: float) -> float:
    """Root above q of kl(q || p) = budget, 0 < q < 1, by Newton's method with 40 digits."""
    with mp.workdps(40):
        q, p = mp.mpf(q), q + (1 - mp.mpf(q)) * mp.mpf("0.999999")
        for _ in range(200):  # kl is convex in p, so that Newton from the right is monotone
            kl = q * mp.log(q / p) + (1 - q) * mp.log((1 - q) / (1 - p))
            p -= (kl - budget) * p * (1 - p) / (p - q)
        return float(p)


def test_occam_by_hand():
    # 65*3 + 8*6 = 243 bits; (243 ln 2 + ln 20)/1000 = 0.171430...
    price = (243 * math.log(2) + math.log(20)) / 1000
    bound = compression.occam_bound(**OCCAM)
    assert bound["length"] == 243
    assert bound["price"] == pytest.approx(price, rel=1e-14)
    assert kl_bernoulli(0.1, float(bound)) == pytest.approx(price, rel=1e-12)
    assert float(bound) == pytest.approx(_kl_inverse(0.1, price), rel=1e-12)
    assert float(bound) == pytest.approx(0.35346611762, rel=1e-10)
    # No training error: 1 - exp(-price); with four widths tried ln 4 more.
    perfect = compression.occam_bound(**(OCCAM | dict(train_error=0.0, widths_tried=4)))
    assert float(perfect) == pytest.approx(1 - math.exp(-price - math.log(4) / 1000), rel=1e-13)
    # Far too many bits: everything is allowed.
    assert float(compression.occam_bound(**(OCCAM | dict(n_parameters=10**6)))) == 1


def test_pac_bayes_by_hand():
    bound = compression.pac_bayes_bound(**PAC, priors_tried=8)
    gibbs = _kl_inverse(0.1, math.log(100) / 1000)
    price = (20 + math.log(8) + math.log(2 * math.sqrt(1000) / 0.05)) / 1000
    assert bound["gibbs_error"] == pytest.approx(gibbs, rel=1e-12)
    assert float(bound) == pytest.approx(_kl_inverse(gibbs, price), rel=1e-12)


@given(q=st.floats(0, 1) | st.sampled_from((0.0, 1e-9, 0.5)), budget=st.floats(1e-4, 20))
@settings(max_examples=30)
def test_kl_inverse_against_mpmath(q, budget):
    p = kl_inverse(q, budget)
    assert q <= p <= 1
    if q < 1 - 1e-9 and p < 1 - 1e-9:
        with mp.workdps(40):
            p = mp.mpf(p)
            kl = (q * mp.log(q / p) if q else 0) + (1 - q) * mp.log((1 - mp.mpf(q)) / (1 - p))
        # The result is rounded upwards; near 1, one unit in its last place is worth much.
        unit = 2.0**-52 * float((p - q) / (p * (1 - p))) if p > q else 0.0
        assert budget <= float(kl) * (1 + 1e-12)
        assert float(kl) <= budget * (1 + 1e-9) + 8 * unit


@given(
    train_error=st.floats(0, 1), m=st.integers(1, 10**7), delta=st.floats(1e-6, 0.9),
    n=st.integers(1, 10**6), bits=st.integers(1, 16), widths=st.integers(1, 16),
    kl=st.floats(0, 1e6), draws=st.integers(1, 10**6),
)  # fmt: skip
@settings(max_examples=10)
def test_agrees_and_moves(train_error, m, delta, n, bits, widths, kl, draws):
    occam = dict(train_error=train_error, m=m, delta=delta, n_parameters=n, n_tensors=1,
                 bits=bits, widths_tried=widths)  # fmt: skip
    bound = compression.occam_bound(**occam)
    assert bound.audit().agrees, bound.audit()
    assert train_error <= float(bound) <= 1
    for more in (dict(n_parameters=2 * n), dict(widths_tried=2 * widths), dict(delta=delta / 2)):
        assert float(compression.occam_bound(**(occam | more))) >= float(bound)
    assert float(compression.occam_bound(**(occam | dict(m=2 * m)))) <= float(bound)
    pac = dict(sampled_error=train_error, draws=draws, kl=kl, m=m, delta=delta, draw_delta=delta,
               priors_tried=widths)  # fmt: skip
    bound = compression.pac_bayes_bound(**pac)
    assert bound.audit().agrees, bound.audit()
    assert train_error <= bound["gibbs_error"] <= float(bound) <= 1
    for more in (dict(kl=2 * kl), dict(priors_tried=2 * widths), dict(draw_delta=delta / 2)):
        assert float(compression.pac_bayes_bound(**(pac | more))) >= float(bound)
    assert float(compression.pac_bayes_bound(**(pac | dict(draws=2 * draws)))) <= float(bound)


@given(
    shape=st.lists(st.integers(1, 5), min_size=0, max_size=3), bits=st.integers(1, 16),
    seed=st.integers(0, 10**6), log_size=st.floats(-6, 4),
)  # fmt: skip
@settings(max_examples=30)
def test_quantiser(shape, bits, seed, log_size):
    """Decodes from n b + 8 bits, within half a level of a scale at most 9 % too large."""
    tensor = 10**log_size * np.random.default_rng(seed).normal(size=tuple(shape))
    message = compression.encode(tensor, bits=bits)
    assert len(message) == tensor.size * bits + 8
    decoded = compression.decode(message, bits=bits, shape=tensor.shape)
    values, length = compression.quantise(tensor, bits=bits)
    assert length == len(message)
    np.testing.assert_array_equal(values, decoded)
    largest = np.abs(tensor).max()
    if 2**-15.8 < largest < 2**15.8:
        level = 2 * 2 ** (1 / 8) * largest / (2**bits - 1)
        assert np.abs(values - tensor).max() <= level / 2 * (1 + 1e-9)
    assert len(np.unique(values)) <= 2**bits


def test_quantiser_extremes():
    zeros, length = compression.quantise(np.zeros((2, 3)), bits=4)
    assert (length, np.abs(zeros).max()) == (32, 0)
    large, _ = compression.quantise(np.array([1e30, -1.0]), bits=4)
    assert large[0] == 2 ** (127 / 8)
    one_bit, _ = compression.quantise(np.array([1.0, -0.9, 0.2]), bits=1)
    np.testing.assert_array_equal(one_bit, [1, -1, 1])


@pytest.mark.parametrize(("n", "bits"), [(1, 1), (1, 3), (2, 1), (3, 1)])
def test_no_more_models_than_counted(n, bits):
    """All 2^(n b + 8) messages, decoded: at most so many different tensors."""
    messages = itertools.product((False, True), repeat=n * bits + 8)
    models = {
        compression.decode(np.array(message), bits=bits, shape=(n,)).tobytes()
        for message in messages
    }
    assert len(models) <= 2 ** (n * bits + 8)
    rng = np.random.default_rng(0)
    for _ in range(200):
        tensor = rng.normal(size=n) * 10 ** rng.uniform(-8, 8)
        assert compression.quantise(tensor, bits=bits)[0].tobytes() in models


def test_one_hypothesis_never_exceeds_delta():
    """Exactly: P(kl_inverse(errors/m, ln(1/delta)/m) < risk) <= delta for binomial errors."""
    for m, delta in ((1, 0.3), (10, 0.05), (60, 0.01)):
        ends = np.array([kl_inverse(k / m, math.log(1 / delta) / m) for k in range(m + 1)])
        for risk in np.linspace(0.001, 0.999, 200):
            assert binom.pmf(np.arange(m + 1), m, risk)[ends < risk].sum() <= delta


def _maurer(m: int) -> float:
    """E exp(m kl(mean || p)) at its largest: sum_k C(m,k) (k/m)^k (1-k/m)^(m-k)."""
    k = np.arange(m + 1)
    return float(binom.pmf(k, m, k / m).sum())


def test_maurer_constant():
    assert all(_maurer(m) <= 2 * math.sqrt(m) for m in [*range(1, 200), 1000, 10**4])


def _threshold_problem(rng, trials, m, noise=0.2):
    """Inputs uniform on [0,1], label 1 beyond 0.5, flipped with probability `noise`."""
    x = rng.random((trials, m))
    return x, (x > 0.5) ^ (rng.random((trials, m)) < noise)


def _risk(threshold, noise=0.2):
    return noise + (1 - 2 * noise) * np.abs(np.clip(threshold, 0, 1) - 0.5)


def test_occam_holds_for_the_best_quantised_threshold():
    """The best on the sample of all quantised thresholds; the bound fails in 5 % or fewer."""
    rng, trials, m, bits = np.random.default_rng(0), 400, 30, 2
    messages = itertools.product((False, True), repeat=bits + 8)
    grid = np.unique([compression.decode(np.array(message), bits=bits, shape=(1,))
                      for message in messages])  # fmt: skip
    x, y = _threshold_problem(rng, trials, m)
    errors = np.stack([((x > threshold) != y).mean(1) for threshold in grid])
    chosen, best = grid[errors.argmin(0)], errors.min(0)
    given = dict(m=m, n_parameters=1, n_tensors=1, bits=bits, delta=0.05)
    risk = {
        e: float(compression.occam_bound(train_error=e, **given)) for e in np.unique(best).tolist()
    }
    violations = sum(_risk(chosen) > [risk[e] for e in best])
    assert binomtest(int(violations), trials, 0.05, "greater").pvalue > 0.01
    # Negative control: without the price of the choice it fails far more often.
    careless = {e: kl_inverse(e, math.log(1 / 0.05) / m / 20) for e in risk}
    violations = sum(_risk(chosen) > [careless[e] for e in best])
    assert binomtest(int(violations), trials, 0.05, "greater").pvalue < 1e-6


def test_pac_bayes_holds_for_a_random_threshold():
    """Posterior around the best threshold, prior scale from a grid, 20 draws of the weights."""
    rng, trials, m, draws, scale = np.random.default_rng(1), 100, 50, 20, 0.1
    x, y = _threshold_problem(rng, trials, m)
    candidates = np.linspace(-1, 1, 41)
    errors = np.stack([((x > threshold) != y).mean(1) for threshold in candidates])
    means = candidates[errors.argmin(0)]
    scales = (0.1, 0.3, 1.0)
    violations = 0
    for i in range(trials):
        thresholds = means[i] + scale * rng.normal(size=draws)
        sampled = float(((x[i] > thresholds[:, None]) != y[i]).mean())
        kl, _ = compression.smallest_gaussian_kl(
            mean=means[i : i + 1], posterior_scale=scale, prior_scales=scales
        )
        bound = compression.pac_bayes_bound(
            sampled_error=sampled, draws=draws, kl=kl, m=m, delta=0.04, draw_delta=0.01,
            priors_tried=len(scales),
        )  # fmt: skip
        true = _risk(means[i] + scale * rng.normal(size=2000)).mean()
        violations += true > float(bound)
    assert binomtest(int(violations), trials, 0.05, "greater").pvalue > 0.01


def test_gaussian_kl_by_hand():
    # (4 - 1 - ln 4)/2 + 9/2 for one coordinate, and independent coordinates add
    one = compression.gaussian_kl(mean=np.array([3.0]), posterior_scale=2.0, prior_scale=1.0)
    assert one == pytest.approx(1.5 - math.log(2) + 4.5, rel=1e-14)
    two = compression.gaussian_kl(
        mean=np.array([3.0, 1.0]), posterior_scale=np.array([2.0, 1.0]), prior_scale=1.0,
        prior_mean=np.array([0.0, 1.0]),
    )  # fmt: skip
    assert two == pytest.approx(one, rel=1e-14)
    same = compression.gaussian_kl(
        mean=np.ones(9), posterior_scale=0.3, prior_scale=0.3, prior_mean=1.0
    )
    assert same == 0
    grid = dict(mean=np.full(50, 0.5), posterior_scale=0.1, prior_scales=(0.1, 0.5, 2.0))
    kl, scale = compression.smallest_gaussian_kl(**grid)
    assert scale == 0.5
    assert kl == compression.gaussian_kl(mean=grid["mean"], posterior_scale=0.1, prior_scale=0.5)


def test_gaussian_kl_by_sampling():
    rng = np.random.default_rng(0)
    sample = 0.7 + 0.4 * rng.normal(size=200_000)
    log_ratio = (
        -0.5 * ((sample - 0.7) / 0.4) ** 2
        - math.log(0.4)
        + 0.5 * (sample / 1.5) ** 2
        + math.log(1.5)
    )
    kl = compression.gaussian_kl(mean=np.array([0.7]), posterior_scale=0.4, prior_scale=1.5)
    assert log_ratio.mean() == pytest.approx(kl, abs=0.01)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        *[(lambda change=change: compression.occam_bound(**(OCCAM | change)), name)
          for name, change in (
              ("train_error", dict(train_error=1.1)), ("train_error", dict(train_error=math.nan)),
              ("m", dict(m=0)), ("delta", dict(delta=0.0)), ("bits", dict(bits=0)),
              ("bits", dict(bits=17)), ("n_tensors", dict(n_tensors=66)),
              ("n_parameters", dict(n_parameters=0)), ("widths_tried", dict(widths_tried=0)))],
        *[(lambda change=change: compression.pac_bayes_bound(**(PAC | change)), name)
          for name, change in (
              ("sampled_error", dict(sampled_error=-0.1)), ("kl", dict(kl=-1.0)),
              ("kl", dict(kl=math.inf)), ("draws", dict(draws=0)), ("delta", dict(delta=1.0)),
              ("draw_delta", dict(draw_delta=0.0)), ("priors_tried", dict(priors_tried=0)))],
        (lambda: inspect.unwrap(compression.occam_bound)(**(OCCAM | dict(m="9"))), "m"),
        (lambda: compression.encode(np.array([math.nan]), bits=3), "tensor"),
        (lambda: compression.decode(np.zeros(9, dtype=bool), bits=3, shape=(1,)), "message"),
        (lambda: compression.gaussian_kl(mean=np.ones(2), posterior_scale=0.0, prior_scale=1.0),
         "posterior_scale"),
        (lambda: compression.smallest_gaussian_kl(mean=np.ones(2), posterior_scale=1.0,
                                                  prior_scales=()), "prior_scales"),
    ],
)  # fmt: skip
def test_bad_input_is_named(call, named):
    with pytest.raises(ValueError, match=rf"\b{named}\b"):
        call()
