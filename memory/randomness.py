"""Random weights of memories, the same on every device and in every type."""

from __future__ import annotations

from enum import IntEnum

import numpy as np
import torch
from jaxtyping import Float
from scipy.special import ndtr, ndtri
from torch import Tensor


class Role(IntEnum):
    """What is drawn; roles draw independently of each other and of the facts with the same seed."""

    HIDDEN = 10
    HIDDEN_BIAS = 11
    OUTPUT = 12
    QUERY = 13
    KEY = 14
    VALUE = 15
    SINK = 16
    PROJECTION = 17
    EMBEDDING = 18
    UNEMBEDDING = 19
    ATTENTION_OUTPUT = 20
    SUBJECT_CODE = 21
    RELATION_CODE = 22
    HIDDEN_PARTNER = 23


def gaussian(seed: int, role: Role, rows: int, columns: int) -> Float[Tensor, "rows columns"]:
    """Independent standard normal entries; the first rows do not depend on how many there are."""
    drawn = np.random.default_rng([seed, columns, role]).standard_normal((rows, columns))
    return torch.from_numpy(drawn)


def sphere(seed: int, role: Role, rows: int, columns: int) -> Float[Tensor, "rows columns"]:
    """Rows uniform on the unit sphere."""
    return torch.nn.functional.normalize(gaussian(seed, role, rows, columns), dim=1)


def lecun_normal(
    seed: int, role: Role, rows: int, columns: int, fan_in: int
) -> Float[Tensor, "rows columns"]:
    """Normal entries cut off at two standard deviations, rescaled to variance 1/fan_in."""
    low, high = ndtr(-2), ndtr(2)
    uniform = np.random.default_rng([seed, columns, role]).uniform(low, high, (rows, columns))
    density = np.exp(-2) / np.sqrt(2 * np.pi)
    variance = 1 - 4 * density / (high - low)
    return torch.from_numpy(ndtri(uniform) / np.sqrt(variance * fan_in))
