"""Outliers: where they lie, what is counted, and the two variants of the orthogonal ones."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, ks_2samp

from experiments.tasks.in_context import Curriculum, InContextTask, Ramp, interleaved
from experiments.tasks.outlier_regression import ManyOutliers, OrthogonalOutliers

SPLITS = ("train", "validation", "test")


@st.composite
def tasks(draw, kinds=("paper", "released", "many")):
    d, kind = draw(st.integers(3, 8)), draw(st.sampled_from(kinds))
    sizes = {
        "d": d,
        "num_examples": draw(st.integers(1, 12)),
        "share": draw(st.sampled_from((0.0, 0.5, 0.9))),
        "active": draw(st.none() | st.integers(3, d)),
    }
    return ManyOutliers(**sizes) if kind == "many" else OrthogonalOutliers(**sizes, variant=kind)


def outlier_tokens(prompts):
    """The x and the y tokens of the outliers, and the numbers of their prompts."""
    outlier = ~prompts.hidden["clean"]
    return prompts.xs[outlier], prompts.tokens[:, 1::2][outlier], outlier.nonzero()[:, 0]


def cosine(a, b):
    return (a * b).sum(dim=-1) / (a.norm(dim=-1) * b.norm(dim=-1))


@settings(max_examples=60)
@given(tasks(), st.integers(0, 50), st.sampled_from(SPLITS))
def test_clean_examples_are_linear_and_only_they_are_counted(task, seed, split):
    prompts = task.sample(4, seed=seed, split=split)
    weights, clean = prompts.hidden["weights"], prompts.hidden["clean"]
    assert isinstance(task, InContextTask)
    assert prompts.tokens.shape == (4, task.length, task.d)
    assert torch.equal(prompts.counted.squeeze(2), clean)
    assert task.share > 0 or clean.all()
    exact = torch.einsum("pnd,pd->pn", prompts.xs, weights)
    assert torch.allclose(prompts.ys[clean], exact[clean])
    assert torch.equal(prompts.targets.squeeze(2)[clean], prompts.ys[clean])
    plain = interleaved(prompts.xs, prompts.ys)
    both = clean.repeat_interleave(2, dim=1)
    assert torch.equal(prompts.tokens[both], plain[both])
    assert (prompts.xs[clean][:, task.num_active :] == 0).all()
    assert (weights[:, task.num_active :] == 0).all()
    assert (weights[:, : task.num_active] != 0).all()


@settings(max_examples=40)
@given(tasks(kinds=("paper",)), st.integers(0, 50))
def test_outliers_of_the_paper_lie_in_a_plane_orthogonal_to_the_weights(task, seed):
    prompts = task.sample(4, seed=seed)
    weights = prompts.hidden["weights"]
    xs, ys, prompt = outlier_tokens(prompts)
    for tokens in (xs, ys):
        assert torch.allclose(cosine(tokens, weights[prompt]), torch.zeros(1).double(), atol=1e-12)
        square = tokens.square().sum(dim=1)
        assert torch.allclose(square, torch.full_like(square, task.num_active))
        assert (tokens[:, task.num_active :] == 0).all()
    for i in prompt.unique():
        singular = torch.linalg.svdvals(torch.cat([xs[prompt == i], ys[prompt == i]]))
        assert (singular[:2] > 1e-9).all()
        assert (singular[2:] < 1e-9).all()


@settings(max_examples=40)
@given(tasks(kinds=("released",)), st.integers(0, 50))
def test_released_outliers_of_a_prompt_repeat_one_pair_of_tokens(task, seed):
    prompts = task.sample(4, seed=seed)
    xs, ys, prompt = outlier_tokens(prompts)
    for i in prompt.unique():
        for tokens in (xs[prompt == i], ys[prompt == i]):
            assert (tokens == tokens[0]).all()
            assert (tokens != 0).all()  # y tokens are not padded, inactive coordinates not zero
        assert not torch.equal(xs[prompt == i][0], ys[prompt == i][0])


def test_released_outliers_are_not_orthogonal_to_the_weights():
    """The squared cosine of the weights and an unrelated direction is 1 / d on average, with
    standard deviation below sqrt(2) / d: it is Beta(1/2, (d - 1)/2)."""
    prompts = OrthogonalOutliers(d=6, num_examples=1, share=0.99, variant="released").sample(
        3000, seed=0
    )
    xs, ys, prompt = outlier_tokens(prompts)
    for tokens in (xs, ys):
        square = cosine(tokens, prompts.hidden["weights"][prompt]) ** 2
        assert abs(square.mean() - 1 / 6) < 4 * np.sqrt(2) / 6 / np.sqrt(len(square))
        assert (square > 1e-6).double().mean() > 0.99


def test_directions_in_the_plane_of_the_paper_are_uniform_and_independent():
    """Of the cosine of a uniform angle: mean 0, mean square 1/2, mean fourth power 3/8. In three
    dimensions instead of a plane the mean square would be 1/3."""
    task = OrthogonalOutliers(d=7, num_examples=2, share=0.99)
    prompts = task.sample(4000, seed=0)
    both = ~prompts.hidden["clean"].any(dim=1)
    tokens = prompts.tokens[both]
    n = int(both.sum())
    for i in range(4):
        for j in range(i):
            c = cosine(tokens[:, i], tokens[:, j])
            assert abs(c.mean()) < 4 * np.sqrt(1 / 2 / n)
            assert abs(c.square().mean() - 1 / 2) < 4 * np.sqrt(1 / 8 / n)
            assert abs((c**4).mean() - 3 / 8) < 4 * np.sqrt(35 / 128 / n)
            assert abs(c.square().mean() - 1 / 3) > 10 * np.sqrt(1 / 8 / n)


def norms(prompts, rng, second):
    """Norms of a u + b v as the published code computes them, in plain steps."""
    w, u, v = rng.normal(size=(3, prompts, 5))

    def off(x, y):
        return x - y * (x * y).sum(axis=1, keepdims=True) / (y * y).sum(axis=1, keepdims=True)

    u, v = off(u, w), off(v, w)
    v = off(v, u)
    a, b = rng.normal(size=(2, prompts, 1))
    first = a / (a * a + b * b)
    b = b / ((first if second else a) ** 2 + b * b)
    return np.linalg.norm(first * u + b * v, axis=1)


def test_released_norms_are_scaled_twice():
    task = OrthogonalOutliers(d=5, num_examples=1, share=0.99, variant="released")
    xs, ys, _ = outlier_tokens(task.sample(6000, seed=0))
    rng = np.random.default_rng(0)
    for tokens in (xs, ys):
        found = tokens.norm(dim=1)
        assert ks_2samp(found, norms(20_000, rng, second=True)).pvalue > 0.01
        assert ks_2samp(found, norms(20_000, rng, second=False)).pvalue < 1e-6
        assert found.max() > 10 * found.median()  # heavy tail


@settings(max_examples=20)
@given(tasks(kinds=("many",)), st.integers(0, 50))
def test_many_outliers_are_all_the_same(task, seed):
    xs, ys, _ = outlier_tokens(task.sample(4, seed=seed))
    assert (xs == 1).all()
    assert (ys[:, 0] == 1).all()
    assert (ys[:, 1:] == 0).all()


@pytest.mark.parametrize("task", [OrthogonalOutliers(), ManyOutliers(), ManyOutliers(share=0.25)])
def test_share_and_scale(task):
    prompts = task.sample(200, seed=0)
    clean = prompts.hidden["clean"]
    assert binomtest(int((~clean).sum()), clean.numel(), task.share).pvalue > 0.01
    squares = torch.stack([y[c].square().mean() for y, c in zip(prompts.ys, clean, strict=True)])
    assert abs(squares.mean() - task.scale) < 4 * squares.std() / np.sqrt(200)
    few = replace(task, num_examples=40, active=4)
    squares = (few.sample(400, seed=0).targets ** 2).mean(dim=(1, 2))
    assert few.scale == 4
    assert abs(squares.mean() - 4) < 4 * squares.std() / np.sqrt(400)


@pytest.mark.parametrize(
    "task", [OrthogonalOutliers(), OrthogonalOutliers(variant="released"), ManyOutliers()]
)
def test_clean_examples_determine_the_weights_and_outliers_mislead(task):
    prompts = task.sample(10, seed=0)
    for xs, ys, clean, w in zip(
        prompts.xs, prompts.ys, prompts.hidden["clean"], prompts.hidden["weights"], strict=True
    ):
        assert clean.sum() >= 20
        assert torch.allclose(torch.linalg.lstsq(xs[clean], ys[clean]).solution, w)
        assert not torch.allclose(torch.linalg.lstsq(xs, ys).solution, w, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("variant", "told"), [("paper", True), ("released", False)])
def test_outliers_stand_for_two_clean_examples(variant, told):
    """In the plane that the outliers span w is zero; what is left has d - 2 dimensions."""
    task = OrthogonalOutliers(d=6, num_examples=40, variant=variant)
    prompts = task.sample(20, seed=0)
    for tokens, clean, w in zip(
        prompts.tokens, prompts.hidden["clean"], prompts.hidden["weights"], strict=True
    ):
        xs, ys = tokens[0::2][clean][:4], tokens[1::2, 0][clean][:4]
        outliers = tokens[0::2][~clean]
        known = torch.cat([xs, outliers]), torch.cat([ys, torch.zeros(len(outliers)).double()])
        found = torch.linalg.lstsq(*known, driver="gelsd").solution
        assert torch.allclose(found, w, rtol=0, atol=1e-6) == told
        alone = torch.linalg.lstsq(xs, ys, driver="gelsd").solution
        assert not torch.allclose(alone, w, rtol=0, atol=1e-6)


def test_a_curriculum_ramps_both_up():
    curriculum = Curriculum(
        active=Ramp(start=4, end=20, interval=2000),
        num_examples=Ramp(start=12, end=512, increment=2, interval=200),
    )
    assert curriculum.task(ManyOutliers(), 50_000) == ManyOutliers(active=20)
    assert curriculum.task(ManyOutliers(), 4000) == ManyOutliers(active=6, num_examples=52)


@settings(max_examples=10)
@given(tasks(), st.integers(0, 50))
def test_equal_seeds_give_equal_prompts_and_other_splits_others(task, seed):
    first, again = (task.sample(3, seed=seed) for _ in range(2))
    assert torch.equal(first.tokens, again.tokens)
    others = [task.sample(3, seed=seed, split=split) for split in SPLITS[1:]]
    for other in (*others, task.sample(3, seed=seed + 1)):
        weights = first.hidden["weights"][:, : task.num_active]
        assert not torch.isin(weights, other.hidden["weights"]).any()


@pytest.mark.parametrize("kind", [OrthogonalOutliers, ManyOutliers])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"d": 0}, "d must be a whole number"),
        ({"num_examples": 0}, "num_examples must be a whole number"),
        ({"share": 1.0}, "share must be below 1"),
        ({"share": -0.1}, "share must be a number from 0 to 1"),
        ({"active": 0}, "active must be a whole number"),
        ({"active": 21}, "active must be at most d"),
    ],
)
def test_bad_arguments_are_named(kind, change, message):
    with pytest.raises(ValueError, match=message):
        kind(**change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"d": 2}, "d must be at least 3, for weights and a plane orthogonal to them, got 2"),
        ({"active": 2}, "active must be at least 3"),
        ({"variant": "blog"}, "variant must be one of 'paper', 'released'"),
    ],
)
def test_bad_arguments_of_orthogonal_outliers_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        OrthogonalOutliers(**change)
