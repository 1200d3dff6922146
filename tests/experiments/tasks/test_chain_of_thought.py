"""Chain of thought: what stands where, what is guessed where, and the size of the numbers."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.tasks.chain_of_thought import ChainOfThought
from experiments.tasks.in_context import InContextTask

SPLITS = ("train", "validation", "test")
tasks = st.builds(
    ChainOfThought,
    d_input=st.integers(1, 6),
    hidden=st.integers(1, 6),
    num_examples=st.integers(1, 5),
)


@settings(max_examples=60)
@given(tasks, st.integers(0, 50), st.sampled_from(SPLITS))
def test_tokens_are_those_of_the_network(task, seed, split):
    prompts = task.sample(3, seed=seed, split=split)
    assert isinstance(task, InContextTask)
    assert prompts.tokens.shape == (3, task.length, task.d)
    xs, steps, ys = (prompts.tokens[:, i::3] for i in range(3))
    assert (xs[..., task.d_input :] == 0).all()
    assert (steps[..., task.hidden :] == 0).all()
    assert (ys[..., 1:] == 0).all()
    W, v = prompts.hidden["W"], prompts.hidden["v"]
    before = torch.einsum("pkd,pnd->pnk", W, xs[..., : task.d_input])
    assert (steps[..., : task.hidden] - before.clamp(min=0)).abs().max() < 1e-12
    expected = torch.einsum("pk,pnk->pn", v, steps[..., : task.hidden])
    assert (ys[..., 0] - expected).abs().max() < 1e-12


@settings(max_examples=60)
@given(tasks, st.integers(0, 50))
def test_a_guess_is_of_the_next_token(task, seed):
    prompts = task.sample(3, seed=seed)
    N, k = task.num_examples, task.hidden
    assert prompts.at.tolist() == [3 * i + j for i in range(N) for j in (0, 1)]
    assert prompts.targets.shape == (3, 2 * N, task.d_output)
    following = prompts.tokens[:, prompts.at + 1, :k]
    assert torch.equal(prompts.targets[prompts.counted], following[prompts.counted])
    assert prompts.counted[:, 0::2].all()
    assert prompts.counted[:, 1::2, 0].all()
    assert not prompts.counted[:, 1::2, 1:].any()
    # What is scored are the y's.
    assert torch.equal(prompts.targets[:, prompts.scored, 0], prompts.tokens[:, 2::3, 0])


def test_one_example_drawn_out():
    """d_input=1, hidden=2: x, 0 | s_1, s_2 | y, 0; guessed (s_1, s_2) and (y, not counted)."""
    prompts = ChainOfThought(d_input=1, hidden=2, num_examples=1).sample(1, seed=0)
    (x, zero), (s_1, s_2), (y, other) = prompts.tokens[0].tolist()
    assert zero == other == 0
    (w_1,), (w_2,) = prompts.hidden["W"][0].tolist()
    v_1, v_2 = prompts.hidden["v"][0].tolist()
    assert [s_1, s_2] == [max(0, w_1 * x), max(0, w_2 * x)]
    assert y == pytest.approx(v_1 * s_1 + v_2 * s_2, abs=1e-15)
    assert prompts.targets[0].tolist() == [[s_1, s_2], [y, 0]]
    assert prompts.counted[0].tolist() == [[True, True], [True, False]]
    assert prompts.scored.tolist() == [1]


@settings(max_examples=20)
@given(tasks, st.integers(0, 50))
def test_equal_seeds_give_equal_prompts_and_other_splits_others(task, seed):
    first, again = (task.sample(3, seed=seed) for _ in range(2))
    assert torch.equal(first.tokens, again.tokens)
    others = [task.sample(3, seed=seed, split=split) for split in SPLITS[1:]]
    for other in (*others, task.sample(3, seed=seed + 1)):
        assert not torch.isin(other.tokens[:, ::3, 0], first.tokens[:, ::3, 0]).any()
        assert not torch.isin(other.hidden["v"], first.hidden["v"]).any()


@pytest.mark.parametrize(("d_input", "hidden"), [(3, 7), (7, 3), (4, 1)])
def test_scale_is_the_mean_square_of_y(d_input, hidden):
    task = ChainOfThought(d_input=d_input, hidden=hidden, num_examples=2)
    prompts = task.sample(40_000, seed=0)
    ys = prompts.targets[:, prompts.scored, 0].square().mean(dim=1)
    error = ys.std() / len(ys) ** 0.5
    assert abs(ys.mean() - task.scale) < 4 * error
    # Negative control: k is not the size of x, which would give the mean square k.
    assert abs(ys.mean() - hidden) > 10 * error
    # Nor is a coordinate of s as large as y: d/k.
    steps = prompts.targets[:, 0::2].square().mean(dim=(1, 2))
    assert abs(steps.mean() - d_input / hidden) < 4 * steps.std() / len(steps) ** 0.5


@pytest.mark.parametrize("name", ["d_input", "hidden", "num_examples"])
def test_bad_arguments_are_named(name):
    with pytest.raises(ValueError, match=f"{name} must be a whole number"):
        ChainOfThought(**{name: 0})
