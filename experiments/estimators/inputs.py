"""The one check of what estimators read."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def check_examples(
    xs: Float[Tensor, "prompts examples d"], ys: Float[Tensor, "prompts examples"]
) -> None:
    """ValueError unless both are finite, of type float64, and there is a y for every x."""
    if xs.ndim != 3 or xs.numel() == 0:
        raise ValueError(f"xs must be prompts x examples x d, not empty, got {tuple(xs.shape)}")
    if ys.shape != xs.shape[:2]:
        raise ValueError(f"ys must have shape {tuple(xs.shape[:2])}, got {tuple(ys.shape)}")
    for name, numbers in (("xs", xs), ("ys", ys)):
        if numbers.dtype != torch.float64 or not numbers.isfinite().all():
            raise ValueError(f"{name} must be finite and of type float64, got {numbers.dtype}")
