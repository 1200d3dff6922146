"""Examples to guess from, and estimators applied to one prompt and prefix after the other."""

import torch
from hypothesis import strategies as st


def examples(prompts, count, d, *, seed=0, noise=0.0):
    """Of independent normal x and w, y = w x and noise."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    xs, weights = draw(prompts, count, d), draw(prompts, d, 1)
    return xs, (xs @ weights).squeeze(-1) + noise * draw(prompts, count)


@st.composite
def small_examples(draw):
    """Whole numbers, so that x are repeated, zero, and dependent in every way."""
    prompts, count, d = (draw(st.integers(1, n)) for n in (3, 9, 4))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    xs = torch.randint(-1, 2, (prompts, count, d), generator=generator).double()
    return xs, torch.randint(-2, 3, (prompts, count), generator=generator).double()


def one_at_a_time(fit, xs, ys, known=None):
    """Guesses w x_i with w = fit(x, y) of the known examples before i; 0 if there are none."""
    guesses = torch.zeros_like(ys)
    known = torch.ones_like(ys, dtype=torch.bool) if known is None else known
    for prompt in range(len(xs)):
        for i in range(xs.shape[1]):
            used = known[prompt, :i]
            if used.any():
                weights = fit(xs[prompt, :i][used], ys[prompt, :i][used])
                guesses[prompt, i] = weights @ xs[prompt, i]
    return guesses
