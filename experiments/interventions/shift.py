"""How far a block's convolution carries what matters: effects by look-back tap and role.

A , B ...      tap 1 at the comma reads the name before it: the role of the name, a shift of 1
"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

ELSEWHERE = "elsewhere"
"""The role of all tokens that have none."""


def shift_table(
    effects: Float[Tensor, "blocks taps positions pairs"],
    roles: Mapping[str, Int[Tensor, " pairs"]],
    formats: Int[Tensor, " pairs"],
) -> pd.DataFrame:
    """One row for each format, block, tap and role, with its effect and its share of the block's.

    Tap k at position p reads position p - k, and its effect is that of the role which stands there.
    Effects are means over the pairs of a format, the negative ones counted as 0, so that shares of
    a block add up to 1; they are NaN in a block without any. Taps whose effects are NaN, as a block
    does not have them, have no rows. Positions without a role are summed under "elsewhere". -1 is
    the position of a role that a pair lacks. Raises ValueError for a role outside the prompt and
    for two roles of one pair at one position.
    """
    taps, length = effects.shape[1:3]
    if ELSEWHERE in roles or not roles:
        raise ValueError(f"roles must be names other than {ELSEWHERE!r}, got {list(roles)}")
    at = torch.stack(list(roles.values()))
    if at.min() < -1 or at.max() >= length:
        raise ValueError(f"roles must be from -1 to {length - 1}, got {at.min()} to {at.max()}")
    read = torch.arange(length) - torch.arange(taps)[:, None]  # (taps, positions)
    there = (read[..., None] == at[:, None, None]) & (at[:, None, None] >= 0)
    if (there.sum(dim=0) > 1).any():
        raise ValueError("roles must be at different positions, but two of one pair are not")
    rows = []
    for format_ in formats.unique().tolist():
        of_format = formats == format_
        found, here = effects[..., of_format].double(), there[..., of_format]
        by_role = torch.einsum("bkpn,rkpn->bkr", found, here.double()) / int(of_format.sum())
        rest = (found * ~here.any(dim=0)).mean(dim=-1).clamp(min=0).sum(dim=-1)
        cells = torch.cat([by_role.clamp(min=0), rest[..., None]], dim=-1)
        shares = cells / cells.nansum(dim=(1, 2), keepdim=True)
        for block, tap, role in (~cells.isnan()).nonzero().tolist():
            effect, share = float(cells[block, tap, role]), float(shares[block, tap, role])
            rows.append((format_, block, tap, [*roles, ELSEWHERE][role], effect, share))
    return pd.DataFrame(rows, columns=["format", "block", "tap", "role", "effect", "share"])


def dominant_shift(table: pd.DataFrame) -> pd.DataFrame:
    """The block and tap with the largest effect at tokens of roles, one row for each format.

    Roles are summed; `share` is that of the block's effect. The taps are the offsets at which names
    are to be swapped.
    """
    named = table.query("role != @ELSEWHERE").groupby(["format", "block", "tap"])
    sums = pd.DataFrame(named[["effect", "share"]].sum()).reset_index()
    best = sums.groupby("format")["effect"].idxmax()
    return sums.loc[best].reset_index(drop=True)
