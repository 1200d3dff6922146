"""Associative recall of vectors: pairs of a key and a value, then keys whose values are guessed.

    tokens   k_1 v_1 k_2 v_2 ... k_n v_n q_1 q_2 ... q_m      q_1 = k_5, q_2 = k_2, ...
    targets   -   -   -   -  ...  -   -  v_5 v_2 ...          no answer is written

Park et al. 2024 (arXiv:2402.04248): vector-valued multi-query associative recall.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from bounds import checks
from experiments.tasks.associative_recall import draw_distinct
from experiments.tasks.in_context import Prompts
from experiments.tasks.recall import generator


@dataclass(frozen=True, kw_only=True)
class VectorRetrieval:
    r"""Every token is a vector of norm $\sqrt d$ in a uniform direction.

    A query is $\sqrt d (k + \sigma g) / |k + \sigma g|$ for a key k of the prompt, g ~ N(0, I) and
    $\sigma$ the `query_noise`; the keys of one prompt's queries are drawn without replacement. The
    target is the value of that key. `hidden`: "pair", the number of the pair with the target
    (prompts x queries).

    The released variant, of one query, draws among the keys and the query itself: once in
    `num_pairs` + 1 times the query is a new vector. Its target is the value of the key that is
    nearest to the query, whichever was drawn, also where noise brought another key nearer.
    """

    d: int = 20
    num_pairs: int = 64
    num_queries: int = 1
    query_noise: float = 0.0
    variant: str = "paper"
    """One of "paper", "released" (published code)."""

    scale = 1.0
    signs = False

    def __post_init__(self) -> None:
        checks.count(d=self.d, num_pairs=self.num_pairs, num_queries=self.num_queries)
        checks.nonnegative(query_noise=self.query_noise)
        checks.one_of(("paper", "released"), variant=self.variant)
        checks.ordered(num_queries=self.num_queries, num_pairs=self.num_pairs)
        if self.d < 2:
            raise ValueError(f"d must be at least 2, or different keys are equal, got {self.d}")
        if self.variant == "released" and self.num_queries != 1:
            raise ValueError(f"num_queries must be 1 if released, got {self.num_queries}")

    @property
    def d_output(self) -> int:
        """Size of a guess, that of a value."""
        return self.d

    @property
    def length(self) -> int:
        """Tokens of a prompt."""
        return 2 * self.num_pairs + self.num_queries

    def sample(self, prompts: int, *, seed: int, split: str = "train") -> Prompts:
        """Prompts of one split."""
        rng = generator(self, documents=prompts, seed=seed, split=split)
        n, m, released = self.num_pairs, self.num_queries, self.variant == "released"
        tokens = rescaled(rng.normal(size=(prompts, self.length, self.d)))
        keys, values = tokens[:, : 2 * n : 2], tokens[:, 1 : 2 * n : 2]
        # Behind the keys the released variant has the query itself to choose.
        pair = draw_distinct(rng, prompts, m, among=n + released)
        queries = tokens[np.arange(prompts)[:, None], 2 * pair]
        if self.query_noise > 0:
            queries = rescaled(queries + self.query_noise * rng.normal(size=queries.shape))
        tokens[:, 2 * n :] = queries
        if released:
            pair = (queries @ keys.transpose(0, 2, 1)).argmax(axis=2)
        targets = torch.from_numpy(np.take_along_axis(values, pair[..., None], axis=1))
        return Prompts(
            tokens=torch.from_numpy(tokens),
            at=torch.arange(2 * n, self.length),
            targets=targets,
            counted=torch.ones_like(targets, dtype=torch.bool),
            scored=torch.arange(m),
            hidden={"pair": torch.from_numpy(pair)},
        )


def rescaled(vectors: Float[ndarray, "*batch d"]) -> Float[ndarray, "*batch d"]:
    r"""The directions of the vectors, with norm $\sqrt d$."""
    norm = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors * (np.sqrt(vectors.shape[-1]) / norm)
