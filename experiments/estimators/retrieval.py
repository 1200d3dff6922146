"""What answers a query from pairs of keys and values without learning, for all prompts at once."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def nearest_key(
    keys: Float[Tensor, "prompts pairs d"],
    values: Float[Tensor, "prompts pairs d"],
    queries: Float[Tensor, "prompts queries d"],
) -> Float[Tensor, "prompts queries d"]:
    """The value of the key at the least Euclidean distance from the query."""
    distances = torch.cdist(queries, keys, compute_mode="donot_use_mm_for_euclid_dist")
    pair = distances.argmin(dim=-1, keepdim=True)
    return values.gather(1, pair.expand(-1, -1, values.shape[-1]))


def linear_attention_readout(
    keys: Float[Tensor, "prompts pairs d"],
    values: Float[Tensor, "prompts pairs d"],
    queries: Float[Tensor, "prompts queries d"],
) -> Float[Tensor, "prompts queries d"]:
    r"""$\sum_i v_i (k_i \cdot q) / d$: exact where keys of norm $\sqrt d$ are orthogonal."""
    return queries @ (keys.mT @ values) / keys.shape[-1]


def mean_value(
    keys: Float[Tensor, "prompts pairs d"],
    values: Float[Tensor, "prompts pairs d"],
    queries: Float[Tensor, "prompts queries d"],
) -> Float[Tensor, "prompts queries d"]:
    """The mean of all values, whatever the keys and the query."""
    return values.mean(dim=1, keepdim=True).expand_as(queries)
