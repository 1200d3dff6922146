"""Many small memories trained at once, each exactly as if it were alone: `train`."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bounds import checks
from experiments.stack import Stack, cosine, form
from memory.associative import AssociativeMemory
from memory.facts import Facts

PADDING = 16
"""Numbers of keys and of outputs are padded at least to multiples of this: rows are then whole
vectors of the processor, and members of about the same size share a batch."""
SCORES = 2**20
"""Scores held at once (4 MiB in float32): a batch of members is cut so that it stays in the cache.
On a GPU, give `train` as much as its memory takes."""
_NEGLIGIBLE = 60.0
"""Scores count as at most so far below the largest one, $e^{-60} = 10^{-26}$ of its probability:
sums do not change, but subnormal probabilities would slow every processor down by up to 20 times.
"""
_Item = TypeVar("_Item")


@dataclass(frozen=True, kw_only=True)
class Training:
    r"""How a member is trained: full-batch Adam on the softmax cross-entropy, step size to zero.

    Step t of T has the step size $\eta_t = \eta\,(1 + \cos(\pi t/T))/2$. The margins of all keys
    are computed before the first step, after every `check_every` ones and after the last; training
    ends at the first such check at which at least the share `target` of the keys is recalled.
    """

    learning_rate: float
    steps: int
    target: float = 1.0
    check_every: int = 4
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        checks.positive(learning_rate=self.learning_rate, epsilon=self.epsilon)
        checks.count(steps=self.steps, check_every=self.check_every)
        if not 0 < self.target <= 1:
            raise ValueError(f"target must be above 0 and at most 1, got {self.target!r}")

    def step_size(self, step: int) -> float:
        r"""$\eta_t/\eta$ for t = `step`, counted from 0."""
        return cosine(step, self.steps)


LINEAR = Training(learning_rate=40.0, steps=96)
"""For linear memories of unit keys and outputs. At 0.95 to 1.05 times the predicted capacity it
stores 0.69, 0.75 and 0.67 of the instances of d = 8, 16 and 32; 1024 steps at rate 100 store 0.74,
0.75 and 0.78 of them."""
MLP = Training(learning_rate=0.1, steps=512, betas=(0.95, 0.99))
"""For two-layer networks, both layers trained. With 256 steps the capacity is about a tenth lower;
a rate of 0.2 ruins networks of width 64 and more."""


@dataclass(frozen=True, eq=False)
class Member:
    """One training. `memory` has the initial weights, and the final ones once `train` yields it."""

    memory: AssociativeMemory
    facts: Facts
    training: Training

    def __post_init__(self) -> None:
        self.memory.require(self.facts)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    r"""How a training ended. Accuracies are exact: all keys, strictly positive margins only."""

    accuracy: float
    """Share of the keys recalled by the final weights."""
    best_accuracy: float
    """The largest share over all checks: weights that recall so many did occur."""
    steps: int
    """Updates made."""
    loss: float
    """Cross-entropy of the final weights in nats, mean over the keys."""
    margin: float
    r"""$\min_x \mu_x / (\frac1N \sum_x |F(e_x)|^2)^{1/2}$ of the final weights."""
    diverged: bool
    """A weight or score became infinite or NaN; then accuracy is 0, loss and margin are NaN."""

    @property
    def stored(self) -> bool:
        """All facts were stored."""
        return self.best_accuracy == 1

    @property
    def stored_99(self) -> bool:
        """At least 99 % of the facts were stored."""
        return self.best_accuracy >= 0.99

    def metrics(self) -> dict[str, float | int | bool]:
        """All of this by name, for a trial's record."""
        return {**asdict(self), "stored": self.stored, "stored_99": self.stored_99}


def train(
    members: Sequence[Member], *, scores: int = SCORES, device: torch.device | str | None = None
) -> Iterator[tuple[int, Outcome]]:
    """Train all members; yields the index and outcome of each as soon as it ends.

    Members with the same architecture, settings (up to the learning rate) and padded size share a
    batch, of at most `scores` keys times outputs (or one member). What a member computes does not
    depend on the others: on a CPU its results are the same bits in any company. They are computed
    on `device`, by default where the facts are.
    """
    checks.count(scores=scores)
    alike: defaultdict[Any, list[int]] = defaultdict(list)
    for index, member in enumerate(members):
        alike[_signature(member)].append(index)
    for indices in alike.values():
        N, M = _padded(members[indices[0]].facts)
        for chunk in _chunks(indices, max(1, scores // (N * M))):
            batch = _Batch([members[index] for index in chunk], device)
            for position, outcome in batch.run():
                yield chunk[position], outcome


def together(
    items: Iterable[_Item], cost: Callable[[_Item], float], limit: float
) -> list[list[_Item]]:
    """`items` in batches of total cost up to `limit` (or of one item), dearest first.

    Neighbours in cost are alike in size, so they share batches well, and the small ones at the end
    even out the load of several workers.
    """
    batches: list[list[_Item]] = []
    room = 0.0
    for item in sorted(items, key=cost, reverse=True):
        price = cost(item)
        if not batches or price > room:
            batches.append([])
            room = limit
        batches[-1].append(item)
        room -= price
    return batches


class _Batch:
    """Members that are trained in lockstep, stacked along the first dimension B of every tensor."""

    def __init__(self, members: Sequence[Member], device: torch.device | str | None) -> None:
        self.training = members[0].training
        facts = [member.facts for member in members]
        self.keys, self.outputs, self.target, self.weight, self.bar = _stack_facts(facts, device)
        self.minus_one = torch.full_like(self.weight, -1)
        self.unpadded = min(f.M for f in facts)
        """No member has padding among so many outputs."""

        self.stack = Stack(
            [member.memory for member in members],
            learning_rates=(member.training.learning_rate for member in members),
            betas=self.training.betas,
            epsilon=self.training.epsilon,
            device=self.keys.device,
        )
        self.count = self.keys.new_tensor([f.N for f in facts], dtype=torch.float64)
        self.best = torch.zeros_like(self.count)

        N, M = _padded(facts[0])
        self.buffer = self.keys.new_empty(len(members), N, M)
        """The scores, in one place: new memory at every step would be slower than the sums."""

    def run(self) -> Iterator[tuple[int, Outcome]]:
        """Train to the end; yields members by their position at the start."""
        last = self.training.steps
        for step in range(last + 1):
            retrieved, scores = self._forward()
            if step % self.training.check_every == 0 or step == last:
                margins, finite, accuracy = self._check(scores)
                ended = ~finite | (accuracy >= self.training.target) | (step == last)
                if ended.any():
                    at = ended.nonzero().squeeze(1)
                    yield from self._outcomes(
                        step,
                        at,
                        finite[at],
                        accuracy[at],
                        margins[at],
                        scores[at],
                        retrieved[at].detach(),
                    )
                    if ended.all():
                        return
                    self._keep(~ended)
                    retrieved, scores = self._forward()
            gradient = self._loss_gradient(scores)
            gradients = torch.autograd.grad(retrieved, self.stack.parameters, gradient)
            self.stack.update(gradients, step, self.training.step_size(step))

    def _forward(self) -> tuple[Float[Tensor, "B N d_out"], Float[Tensor, "B N M"]]:
        r"""$F(e_x)$ and the scores $u_y \cdot F(e_x)$, -infinity for outputs that are padding."""
        with torch.enable_grad():
            retrieved = self.stack.module(self.keys)
        scores = torch.bmm(retrieved.detach(), self.outputs.mT, out=self.buffer)
        if self.unpadded < scores.shape[2]:
            scores[:, :, self.unpadded :].add_(self.bar[:, :, self.unpadded :])
        return retrieved, scores

    @torch.no_grad()
    def _loss_gradient(self, scores: Float[Tensor, "B N M"]) -> Float[Tensor, "B N d_out"]:
        r"""$\partial L/\partial F(e_x) = \frac1N \sum_y (p_y - [y = f(x)])\,u_y$, scores used up.

        Written out, it takes few passes over the scores, in place. Automatic differentiation of the
        logarithm of the softmax would take more, and as many copies.
        """
        p = torch.softmax(_raise_negligible(scores), -1, out=scores)
        p.scatter_add_(2, self.target, self.minus_one)
        return torch.bmm(p, self.outputs).mul_(self.weight)

    def _check(
        self, scores: Float[Tensor, "B N M"]
    ) -> tuple[Float[Tensor, "B N"], Bool[Tensor, " B"], Float[Tensor, " B"]]:
        """Margins (infinite on the padding), whether all are finite, and accuracies."""
        correct = scores.gather(2, self.target)
        scores.scatter_(2, self.target, -math.inf)
        margins = (correct - scores.amax(2, keepdim=True)).squeeze(2)
        scores.scatter_(2, self.target, correct)  # as they were
        key = self.weight.squeeze(2) > 0
        finite = (margins.isfinite() | ~key).all(1)
        recalled = ((margins > 0) & key).sum(1)
        accuracy = torch.where(finite, recalled / self.count, 0.0)
        self.best = torch.maximum(self.best, accuracy)
        return margins.where(key, math.inf), finite, accuracy

    @torch.no_grad()
    def _outcomes(
        self,
        step: int,
        at: Int[Tensor, " b"],
        finite: Bool[Tensor, " b"],
        accuracy: Float[Tensor, " b"],
        margins: Float[Tensor, "b N"],
        scores: Float[Tensor, "b N M"],
        retrieved: Float[Tensor, "b N d_out"],
    ) -> list[tuple[int, Outcome]]:
        """The outcomes of the members `at`; their weights go back to where they came from."""
        N = self.count[at]
        key = margins < math.inf
        correct = scores.gather(2, self.target[at]).squeeze(2)
        losses = _raise_negligible(scores).logsumexp(2) - correct
        loss = losses.double().where(key, 0.0).sum(1) / N
        norm = (retrieved.double().square().sum(2).where(key, 0.0).sum(1) / N).sqrt()
        margin = margins.amin(1) / norm
        loss, margin = loss.where(finite, math.nan), margin.where(finite, math.nan)
        columns = (accuracy, self.best[at], loss, margin, finite)
        outcomes = []
        for position, *values in zip(
            self.stack.write_back(at), *map(Tensor.tolist, columns), strict=True
        ):
            accurate, best, nats, least, fine = values
            outcome = Outcome(
                accuracy=accurate,
                best_accuracy=best,
                steps=step,
                loss=nats,
                margin=least,
                diverged=not fine,
            )
            outcomes.append((position, outcome))
        return outcomes

    def _keep(self, staying: Bool[Tensor, " B"]) -> None:
        """Drop the other members from every tensor."""
        for name, value in vars(self).items():
            if isinstance(value, Tensor) and name != "buffer":
                setattr(self, name, value[staying])
        self.buffer = self.buffer[: len(self.keys)]
        self.stack.keep(staying)


def _stack_facts(
    facts: Sequence[Facts], device: torch.device | str | None
) -> tuple[
    Float[Tensor, "B N d"],
    Float[Tensor, "B M d_out"],
    Int[Tensor, "B N 1"],
    Float[Tensor, "B N 1"],
    Float[Tensor, "B 1 M"],
]:
    """Keys, outputs and targets, padded; weights of the keys in the loss, and bars of the outputs.

    A key weighs 1/N, padding 0. A bar is added to the scores: 0, on padding -infinity.
    """
    (N, M), B = _padded(facts[0]), len(facts)
    keys = facts[0].keys.new_zeros(B, N, facts[0].d, device=device)
    outputs = keys.new_zeros(B, M, facts[0].d_out)
    target = torch.zeros(B, N, 1, dtype=torch.long, device=keys.device)
    weight, bar = keys.new_zeros(B, N, 1), keys.new_zeros(B, 1, M)
    for b, f in enumerate(facts):
        keys[b, : f.N] = f.keys
        outputs[b, : f.M] = f.outputs
        target[b, : f.N, 0] = f.association
        weight[b, : f.N] = 1 / f.N
        bar[b, :, f.M :] = -math.inf
    return keys, outputs, target, weight, bar


def _raise_negligible(scores: Float[Tensor, "B N M"]) -> Float[Tensor, "B N M"]:
    """The scores, in place, none further below the largest of its key than counts."""
    least = scores.amax(2, keepdim=True).sub_(_NEGLIGIBLE)
    return torch.maximum(scores, least, out=scores)


def _padded(facts: Facts) -> tuple[int, int]:
    """N and M as the member's tensors have them. They depend on nothing but the member."""
    return _padded_size(facts.N), _padded_size(facts.M)


def _padded_size(size: int) -> int:
    """The next multiple of `PADDING`, of which above 128 there are four in every octave."""
    multiple = max(PADDING, 2 ** ((size - 1).bit_length() - 3))
    return -(-size // multiple) * multiple


def _signature(member: Member) -> Any:
    """Equal for members that can share a batch."""
    memory, facts = member.memory, member.facts
    settings = {**vars(member.training), "learning_rate": None}
    return (
        form(memory),
        tuple(settings.values()),
        _padded(facts),
        facts.d,
        facts.d_out,
        facts.keys.dtype,
    )


def _chunks(indices: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    for start in range(0, len(indices), size):
        yield indices[start : start + size]
