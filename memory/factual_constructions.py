r"""Transformers that recall facts by construction: in attention alone, or in the MLP.

Both look at tokens in the same way. Subjects and relations are split into groups of at most
head_dim tokens, one head for each. A head attends to a token of its group where the prompt has one,
and otherwise to EOS, the sink, which it maps to zero; so it adds a chosen vector $w_z$ for the
token z of its group, and nothing without one. The constructions differ in the vectors $w_z$.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.optimize import linprog
from torch import Tensor

from bounds import checks
from memory.factual_capacity import independent_features
from memory.factual_recall import FactualRecall, Prompts
from memory.factual_transformer import Activation, FactualTransformer, TokenEmbedding, margin
from memory.randomness import Role, gaussian, sphere
from memory.readout import RANK_TOLERANCE, RIDGE

Separator = Literal["exact", "margin", "naive"]

LARGEST_LEAK = 1e-6
"""Attention that may go elsewhere than to the token of the group, or else EOS: little, because an
MLP with just enough units to fit all facts has large outputs that cancel."""
GAP = 0.5
"""By which scores differ between the group, EOS and the rest, in units of the inverse temperature.
"""
_BIAS_DEVIATION = 0.5
"""Of the random biases of ReLU units, against pre-activations of variance 2."""
_CODE_LENGTH = 0.1
"""Of the codes that attention hands to the MLP: on their own they move no answer."""


def attention_only(
    task: FactualRecall,
    d: int,
    head_dim: int,
    *,
    inverse_temperature: float = 60.0,
    separator: Separator = "exact",
    embedding: TokenEmbedding = "sphere",
    seed: int = 0,
    enforce: bool = True,
    dtype: torch.dtype = torch.float64,
) -> FactualTransformer:
    r"""Facts in the values and outputs of the heads: the answers of s and those of r are added.

    $w_s = \sum_r u_{a^*(s,r)}$, $w_r = \sum_{a \in A_r} u_a$: the logit of the answer is 2, that of
    R + D - 2 others 1, all up to cross-talk of variance (R + D - 2)/d. How often it fails:
    `memory.factual_capacity`. Source: seqtheory, with the sizes of nichani2024facts, theorem 3.

    `separator` says how heads tell their group from other tokens. "exact": all scores as wanted,
    by least squares, for a vocabulary of at most d tokens. "margin": other tokens score EOS's less
    `GAP` or lower, by a linear program, while there is a solution. "naive": the sum of the group's
    embeddings, which fails at practical sizes. With `enforce` a ValueError names the condition
    that a model does not meet; without, it is built all the same, to see it fail.
    """
    model = _empty(task, d, head_dim, 0, "relu", False, embedding, seed, dtype)
    _attend(model, task, inverse_temperature, separator, enforce)
    u = model.unembedding
    w = torch.cat([u[task.answers].sum(dim=1), u.view(task.R, task.D, d).sum(dim=1)])
    return _write(model, task, w)


def attention_with_mlp(
    task: FactualRecall,
    d: int,
    head_dim: int,
    width: int,
    *,
    activation: Activation = "relu",
    inverse_temperature: float = 60.0,
    separator: Separator = "exact",
    embedding: TokenEmbedding = "sphere",
    seed: int = 0,
    enforce: bool = True,
    dtype: torch.dtype = torch.float64,
) -> FactualTransformer:
    r"""Facts in the output matrix of the MLP: heads only name the subject and the relation.

    Attention hands over the code $x_{attn} = [c_s; b_r]$, random vectors that know no answers, of
    half the coordinates each and so short that they move no answer either. Random hidden units,
    then the output matrix by least squares to $u_{a^*(s,r)} - x_{attn}$, which also takes the
    direct path out. Quadratic units come in pairs that make products $(p_i \cdot c_s)(q_i \cdot
    b_r)$. Exact while these features of the S R facts are independent, see
    `memory.factual_capacity.independent_features`.
    `separator` and `enforce` as in `attention_only`. Source: seqtheory, with the sizes of
    nichani2024facts, theorem 4.
    """
    count = int(
        float(independent_features(S=task.S, R=task.R, d=d, width=width, activation=activation))
    )
    if enforce and count < task.S * task.R:
        raise ValueError(
            f"width must give S*R = {task.S * task.R} independent features for an exact fit, "
            f"got {count} from width={width}, d={d} and {activation} units"
        )
    model = _empty(
        task, d, head_dim, width, activation, activation == "relu", embedding, seed, dtype
    )
    _attend(model, task, inverse_temperature, separator, enforce)
    half = d // 2
    subjects = sphere(seed, Role.SUBJECT_CODE, task.S, half)
    relations = sphere(seed, Role.RELATION_CODE, task.R, d - half)
    codes = _CODE_LENGTH * torch.block_diag(subjects, relations).to(model.value)
    _write(model, task, codes)
    x = (codes[: task.S, None] + codes[task.S :]).flatten(0, 1)
    _fit(model, x, model.unembedding[task.answers.flatten()] - x, half)
    if enforce and not _fits(model, x, task.answers.flatten()):
        raise ValueError(
            f"seed must draw hidden units with independent features of all {len(x)} facts, "
            f"got {seed}: take another one, or a larger width than {width}"
        )
    return model


@torch.no_grad()
def _fits(
    model: FactualTransformer, x: Float[Tensor, "facts d"], answers: Int[Tensor, " facts"]
) -> bool:
    """Whether every fact is recalled where attention hands over exactly its codes."""
    scores = (x + model.mlp(x)) @ model.unembedding.mT
    return bool((margin(scores, answers) > 0).all())


def _empty(
    task: FactualRecall,
    d: int,
    head_dim: int,
    width: int,
    activation: Activation,
    bias: bool,
    embedding: TokenEmbedding,
    seed: int,
    dtype: torch.dtype,
) -> FactualTransformer:
    checks.count(d=d, head_dim=head_dim)
    return FactualTransformer(
        task.vocabulary, task.A, d, len(_groups(task, head_dim)), head_dim, width,
        activation=activation, bias=bias, embedding=embedding, seed=seed, dtype=dtype,
        device=task.answers.device,
    )  # fmt: skip


def _groups(task: FactualRecall, head_dim: int) -> list[range]:
    """The tokens of every head: subjects first, then relations."""
    ends = ((0, task.S), (task.S, task.S + task.R))
    return [
        range(start, min(start + head_dim, end))
        for begin, end in ends
        for start in range(begin, end, head_dim)
    ]


@torch.no_grad()
def _attend(
    model: FactualTransformer,
    task: FactualRecall,
    inverse_temperature: float,
    separator: Separator,
    enforce: bool,
) -> None:
    """Queries and keys: EOS asks every head for its group."""
    checks.positive(inverse_temperature=inverse_temperature)
    checks.one_of(get_args(Separator), separator=separator)
    d, head_dim = model.sizes["d"], model.sizes["head_dim"]
    groups = _groups(task, head_dim)
    largest = max(map(len, groups))
    if enforce:
        if largest + 1 > d:
            raise ValueError(
                f"head_dim must leave at most d - 1 = {d - 1} tokens to a head, "
                f"got {largest} at head_dim={head_dim}"
            )
        if separator == "exact" and task.vocabulary > d:
            raise ValueError(
                f"d must be at least the vocabulary, {task.vocabulary} tokens, for separator "
                f"'exact', got {d}"
            )
        needed = math.log((task.length - 1) / LARGEST_LEAK) / GAP
        if inverse_temperature < needed:
            raise ValueError(
                f"inverse_temperature must be at least {needed:.4g} for prompts of length "
                f"{task.length}, got {inverse_temperature}"
            )
    phi, eos = model.embedding, model.embedding[-1]
    wanted = phi.new_zeros(task.vocabulary, len(groups))
    for head, group in enumerate(groups):
        wanted[list(group), head] = 2 * GAP
    wanted[-1] = GAP
    if separator == "naive":
        directions = phi.mT @ wanted
    elif separator == "exact":
        directions = torch.linalg.pinv(phi) @ wanted
    else:
        directions = _separated(phi, wanted)
    model.query[:, 0] = eos / eos.square().sum()
    model.key[:, 0] = inverse_temperature * head_dim**0.5 * directions.mT
    if separator == "naive" and enforce:
        scores = phi @ directions
        group = wanted == 2 * GAP
        gap = torch.minimum(
            scores.masked_fill(~group, torch.inf).amin(dim=0) - scores[-1],
            scores[-1] - scores[:-1].masked_fill(group[:-1], -torch.inf).amax(dim=0),
        ).min()
        if gap < GAP / 2:
            raise ValueError(
                f"separator 'naive' must leave a gap of {GAP / 2} between the scores of a group, "
                f"EOS and other tokens, got {gap:.3g} at d={d}"
            )


def _separated(
    phi: Float[Tensor, "vocabulary d"], wanted: Float[Tensor, "vocabulary heads"]
) -> Float[Tensor, "d heads"]:
    """Directions in which the group and EOS score as wanted, and all others at most as wanted."""
    rows, targets = phi.cpu().double().numpy(), wanted.cpu().double().numpy()
    found = []
    for head, target in enumerate(targets.T):
        fixed = target > 0
        # Of all solutions one with small entries: bounded by t, and t is minimised.
        d = rows.shape[1]
        ones = np.ones((d, 1))
        bounded = np.block([[np.eye(d), -ones], [-np.eye(d), -ones]])
        others = np.hstack([rows[~fixed], np.zeros((int((~fixed).sum()), 1))])
        solution = linprog(
            np.append(np.zeros(d), 1.0),
            A_ub=np.vstack([others, bounded]), b_ub=np.zeros(len(others) + 2 * d),
            A_eq=np.hstack([rows[fixed], np.zeros((int(fixed.sum()), 1))]), b_eq=target[fixed],
            bounds=(None, None),
        )  # fmt: skip
        if not solution.success:
            raise ValueError(
                f"d must be large enough to tell {int(fixed.sum()) - 1} tokens from "
                f"{len(target) - int(fixed.sum())} others, got {d} (head {head})"
            )
        found.append(solution.x[:-1])
    return torch.from_numpy(np.stack(found, axis=1)).to(phi)


@torch.no_grad()
def _write(
    model: FactualTransformer, task: FactualRecall, vectors: Float[Tensor, "tokens d"]
) -> FactualTransformer:
    """Values and outputs that map every subject and relation to its vector, and EOS to zero."""
    phi = model.embedding
    for head, group in enumerate(_groups(task, model.sizes["head_dim"])):
        tokens = list(group)
        dual = torch.linalg.pinv(phi[[*tokens, task.eos]])
        model.value[head, : len(tokens)] = dual[:, :-1].mT
        model.output[head, : len(tokens)] = vectors[tokens]
    return model


@torch.no_grad()
def _fit(
    model: FactualTransformer,
    x: Float[Tensor, "facts d"],
    wanted: Float[Tensor, "facts d"],
    half: int,
) -> None:
    """Random hidden units, and outputs by least squares to what the MLP is to add."""
    assert model.hidden is not None
    assert model.mlp_output is not None
    width, d = model.hidden.shape
    if model.activation == "relu":
        model.hidden.copy_(gaussian(model.seed, Role.HIDDEN, width, d) / _CODE_LENGTH)
        if model.hidden_bias is not None:
            bias = gaussian(model.seed, Role.HIDDEN_BIAS, width, 1).squeeze(1)
            model.hidden_bias.copy_(_BIAS_DEVIATION * bias)
        output = _least_squares(fitted_features(model, x), wanted)
    else:
        p = gaussian(model.seed, Role.HIDDEN, width // 2, half)
        q = gaussian(model.seed, Role.HIDDEN_PARTNER, width // 2, d - half)
        rows = torch.cat([torch.cat([p, q], dim=1), torch.cat([p, -q], dim=1)]) / _CODE_LENGTH
        model.hidden.copy_(rows)
        half_output = _least_squares(fitted_features(model, x), wanted) / 4
        output = torch.cat([half_output, -half_output])
    model.mlp_output.copy_(output)


def fitted_features(
    model: FactualTransformer, attended: Float[Tensor, "facts d"]
) -> Float[Tensor, "facts features"]:
    """What `attention_with_mlp` fits a readout of: ReLU units, or a product per quadratic pair."""
    hidden = model.hidden_features(attended)
    if model.activation == "relu":
        return hidden
    plus, minus = hidden.chunk(2, dim=-1)
    return (plus - minus) / 4


@torch.no_grad()
def fact_kernel(model: FactualTransformer, prompts: Prompts) -> Float[Tensor, "facts facts"]:
    r"""The hat matrix of the MLP's features: fact $x'$ has the weight $K_{x'x}$ in the answer to x.

    It knows nothing about the answers; `memory.factual_capacity.readout_error` is the share of
    wrong ones that follows.
    """
    features = fitted_features(model, model.attended(prompts.tokens)).double()
    eye = torch.eye(len(features), dtype=features.dtype, device=features.device)
    return (features @ _least_squares(features, eye)).mT


def _least_squares(
    features: Float[Tensor, "facts width"], wanted: Float[Tensor, "facts d"]
) -> Float[Tensor, "width d"]:
    """Outputs of least squares in double precision: exact and of least norm, where they can be."""
    phi, y = features.double(), wanted.double()
    if phi.shape[1] >= phi.shape[0]:
        found = torch.linalg.lstsq(phi.cpu(), y.cpu(), rcond=RANK_TOLERANCE, driver="gelsd")
        return found.solution.to(features)
    gram = phi.mT @ phi
    gram.diagonal().add_(RIDGE * gram.diagonal().mean())
    return torch.cholesky_solve(phi.mT @ y, torch.linalg.cholesky(gram)).to(features)
