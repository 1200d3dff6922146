r"""One fact of a transformer changed in closed form, and what that does to all others.

The memory that is edited is a linear readout $W$ of features k: the output matrix of the MLP, with
k its hidden layer, or the output matrices of attention alone, with k what all heads read.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bounds import checks
from memory.factual_transformer import FactualTransformer

Site = Literal["attention", "mlp"]

RIDGE = 1e-6
"""Added to the second moment of features, relative to its mean eigenvalue."""


class UnreachableError(ValueError):
    """The margin is out of reach along the difference of the two answers' embeddings."""


@dataclass(frozen=True, eq=False)
class Edit:
    r"""$W \leftarrow W + p\,\Delta^T$: adds $(p \cdot k)\,\Delta$ to the output at features k.

    `model` is the edited copy. `direction` p is 1 on the features of the edited fact; `shift`
    $\Delta = v^* - W k$ is what its output gains, `multiple` times $u_{new} - u_{old}$.
    """

    model: FactualTransformer
    site: Site
    direction: Float[Tensor, " features"]
    shift: Float[Tensor, " d"]
    multiple: float

    def overlap(self, features: Float[Tensor, "n features"]) -> Float[Tensor, " n"]:
        r"""Share $p \cdot k$ of the edit that other features see; 1 for those of the fact."""
        return features @ self.direction

    def crosstalk(self, features: Float[Tensor, "n features"]) -> Float[Tensor, "n answers"]:
        r"""Change of every logit at other features, $(p \cdot k)\, U \Delta$: exact."""
        return self.overlap(features)[:, None] * (self.model.unembedding @ self.shift)

    def score_variance(self, features: Float[Tensor, "n features"]) -> float:
        r"""Variance that the edit adds to a logit, $|\Delta|^2 \kappa^2 / d$.

        $\kappa^2$ is the mean of $(p \cdot k)^2$ over the features of other facts. For answers
        other than the new and the old one, which know nothing of the edit; these two move by more.
        Source: seqtheory, editing.
        """
        kappa = self.overlap(features).square().mean()
        return (self.shift.square().sum() * kappa / len(self.shift)).item()


def edited_features(
    model: FactualTransformer, tokens: Int[Tensor, "n T"], site: Site
) -> Float[Tensor, "n features"]:
    """What the edited matrix reads; ValueError where the logits are not linear in it."""
    checks.one_of(get_args(Site), site=site)
    if site == "mlp":
        return model.hidden_features(model.attended(tokens)).detach()
    if model.hidden is not None:
        raise ValueError("site must be 'mlp' for a model with an MLP, which sees what heads write")
    return model.heads_output(tokens).detach()


def second_moment(
    features: Float[Tensor, "n features"], ridge: float = RIDGE
) -> Float[Tensor, "features features"]:
    r"""$C = \frac1n \sum k k^T$ with a ridge relative to its mean eigenvalue, in double precision.

    Of all facts: whether the edited one is among them changes C but not $C^{-1} k$ up to a factor,
    which the edit does not depend on.
    """
    checks.positive(ridge=ridge)
    k = features.double()
    moment = k.mT @ k / len(k)
    moment.diagonal().add_(ridge * moment.diagonal().mean())
    return moment


@torch.no_grad()
def edit(
    model: FactualTransformer,
    tokens: Int[Tensor, "fillings T"],
    *,
    old: int,
    new: int,
    site: Site,
    margin: float,
    moment: Float[Tensor, "features features"] | None = None,
) -> Edit:
    r"""Make the fact that the prompts `tokens` ask for be answered `new` instead of `old`.

    $W \leftarrow W + (C^{-1} k)(v^* - W k)^T / (k^T C^{-1} k)$ (W maps k from the left here), the
    rank-one edit known as ROME, k the mean of the features over the prompts, which are
    different fillings of the same question. C is `moment`, the identity if there is none: then a
    plain outer product is added. $v^* - W k$ is the smallest multiple of $u_{new} - u_{old}$ with
    which, at k, the logit of `new` exceeds all others by `margin`; `UnreachableError`, a
    ValueError, where none does: another answer is then nearly in the same direction.
    """
    checks.nonnegative(margin=margin)
    answers = len(model.unembedding)
    for name, answer in (("old", old), ("new", new)):
        if isinstance(answer, bool) or answer not in range(answers):
            raise ValueError(f"{name} must be an answer from 0 to {answers - 1}, got {answer!r}")
    if old == new:
        raise ValueError(f"new must be another answer than old, got {new} for both")
    features = edited_features(model, tokens, site)
    k = features.mean(dim=0)
    towards = k.double() if moment is None else torch.linalg.solve(moment, k.double())
    direction = (towards / (towards @ k.double())).to(k)
    u = model.unembedding
    step = u[new] - u[old]
    multiple = _smallest_multiple(model(tokens).mean(dim=0), u @ step, new, margin)
    shift = multiple * step
    edited = copy.deepcopy(model)
    if site == "mlp":
        assert edited.mlp_output is not None
        edited.mlp_output.add_(torch.outer(direction, shift))
    else:
        edited.output.add_(torch.outer(direction, shift).view_as(edited.output))
    return Edit(edited, site, direction, shift, multiple)


def _smallest_multiple(
    logits: Float[Tensor, " answers"], gain: Float[Tensor, " answers"], new: int, margin: float
) -> float:
    """Smallest c >= 0 for which logits + c gain are largest at `new`, by `margin`."""
    others = torch.arange(len(logits), device=logits.device) != new
    missing = margin - (logits[new] - logits[others])
    rate = gain[new] - gain[others]
    rising = rate > 0
    least = (
        (missing[rising] / rate[rising]).amax().clamp(min=0) if rising.any() else rate.new_zeros(())
    )
    if (missing > least * rate + 1e-9 * (1 + margin)).any():
        raise UnreachableError(
            f"margin must be one that the new answer reaches along u_new - u_old, got {margin}"
        )
    return least.item()
