"""Factual-recall transformers trained on fresh prompts, many at once: `train`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bounds import checks
from experiments.stack import Stack, cosine, form
from memory.factual_recall import FactualRecall, Prompts
from memory.factual_transformer import FactualTransformer, margin

PROMPTS = 2**12
"""Prompts held at once: a batch of members is cut so that it stays in the cache. On a GPU, give
`train` as much as its memory takes."""
_AHEAD = 16
"""Steps whose prompts are drawn at once, since drawing few takes as long as drawing many."""
_BETAS, _EPSILON = (0.9, 0.999), 1e-8


@dataclass(frozen=True, kw_only=True)
class Training:
    r"""Adam on the cross-entropy of fresh prompts, the step size falling to zero as a cosine.

    Before the first step, after every `check_every` and after the last, every fact is asked
    `fillings` times with other noise at other places, always the same prompts. Training ends at the
    first check at which the share `target` of these prompts is answered rightly.
    """

    learning_rate: float = 0.02
    steps: int = 2000
    batch_size: int = 256
    target: float = 1.0
    check_every: int = 50
    fillings: int = 4

    def __post_init__(self) -> None:
        checks.positive(learning_rate=self.learning_rate)
        checks.count(steps=self.steps, batch_size=self.batch_size)
        checks.count(check_every=self.check_every, fillings=self.fillings)
        if not 0 < self.target <= 1:
            raise ValueError(f"target must be above 0 and at most 1, got {self.target!r}")


@dataclass(frozen=True, eq=False)
class Member:
    """One training. `model` has the initial weights, and the final ones once `train` yields it."""

    model: FactualTransformer
    task: FactualRecall
    training: Training
    seed: int
    """Of the prompts."""

    def __post_init__(self) -> None:
        checks.nonnegative(seed=self.seed)
        tokens, answers = len(self.model.embedding), len(self.model.unembedding)
        if (tokens, answers) != (self.task.vocabulary, self.task.A):
            raise ValueError(
                f"model must have {self.task.vocabulary} tokens and {self.task.A} answers, those "
                f"of the task, got {tokens} and {answers}"
            )


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a training ended, on prompts that ask for every fact; ties are failures."""

    accuracy: float
    """Share of the prompts that the final weights answer."""
    best_accuracy: float
    """The largest share over all checks."""
    facts: float
    """Share of the facts that the final weights recall whatever the noise."""
    right_relation: float
    """Share of the prompts whose best answer is at least one of the relation asked for."""
    steps: int
    """Updates made."""
    loss: float
    """Cross-entropy of the final weights in nats."""
    diverged: bool
    """A score became infinite or NaN; then all shares but the best are 0 and the loss is NaN."""

    def metrics(self) -> dict[str, float | int | bool]:
        """All of this by name, for a trial's record."""
        return asdict(self)


def train(
    members: Sequence[Member], *, prompts: int = PROMPTS, device: torch.device | str | None = None
) -> Iterator[tuple[int, Outcome]]:
    """Train all members; yields the index and outcome of each as soon as it ends.

    Members of one architecture and one size of the task share a batch, of at most `prompts` prompts
    a step (or one member), with each its own facts, prompts and learning rate. What a member
    computes does not depend on the others: on a CPU its results are the same bits in any company.
    """
    checks.count(prompts=prompts)
    alike: defaultdict[object, list[int]] = defaultdict(list)
    for index, member in enumerate(members):
        alike[_signature(member)].append(index)
    for indices in alike.values():
        size = max(1, prompts // members[indices[0]].training.batch_size)
        for start in range(0, len(indices), size):
            chunk = indices[start : start + size]
            batch = _Batch([members[index] for index in chunk], device)
            for position, outcome in batch.run():
                yield chunk[position], outcome


def _signature(member: Member) -> object:
    """Equal for members that can share a batch."""
    task, model = member.task, member.model
    settings = replace(member.training, learning_rate=1.0)
    return form(model), settings, task.S, task.R, task.D, task.length


class _Batch:
    """Members that are trained in lockstep, stacked along the first dimension B of every tensor."""

    def __init__(self, members: Sequence[Member], device: torch.device | str | None) -> None:
        self.training = members[0].training
        self.tasks = [member.task for member in members]
        self.D = self.tasks[0].D
        self.device = torch.device(members[0].model.embedding.device if device is None else device)
        self.stack = Stack(
            [member.model for member in members],
            learning_rates=(member.training.learning_rate for member in members),
            betas=_BETAS,
            epsilon=_EPSILON,
            device=self.device,
        )
        self.generators = [_generator(member, 0) for member in members]
        self.ahead: list[tuple[Tensor, Tensor]] = []
        asked = [
            member.task.every_fact(_generator(member, 1), self.training.fillings)
            for member in members
        ]
        self.tokens, self.answers = self._stacked(asked)
        self.best = torch.zeros(len(members), dtype=torch.float64, device=self.device)

    def run(self) -> Iterator[tuple[int, Outcome]]:
        """Train to the end; yields members by their position at the start."""
        training = self.training
        for step in range(training.steps + 1):
            if step % training.check_every == 0 or step == training.steps:
                ended = self._check(step)
                yield from ended
                if not len(self.stack.position):
                    return
            tokens, answers = self._next()
            logits = self.stack.module(tokens)
            gradient = _loss_gradient(logits.detach(), answers)
            gradients = torch.autograd.grad(logits, self.stack.parameters, gradient)
            self.stack.update(gradients, step, cosine(step, training.steps))

    @torch.no_grad()
    def _check(self, step: int) -> list[tuple[int, Outcome]]:
        """Ask for every fact; members that have ended leave with their outcomes."""
        logits = self.stack.module(self.tokens)
        finite = logits.isfinite().flatten(1).all(1)
        right = (margin(logits, self.answers) > 0) & finite[:, None]
        accuracy = right.double().mean(1)
        self.best = torch.maximum(self.best, accuracy)
        ended = ~finite | (accuracy >= self.training.target)
        if step == self.training.steps:
            ended = torch.ones_like(ended)
        if not ended.any():
            return []
        relation = margin(logits.unflatten(2, (-1, self.D)).amax(3), self.answers // self.D) > 0
        own = logits.gather(2, self.answers[..., None]).squeeze(2)
        losses = (logits.logsumexp(2) - own).double()
        # One by one: a single row that is long would be summed by several threads.
        loss = torch.stack([row.mean() for row in losses])
        columns = {
            "accuracy": accuracy,
            "best_accuracy": self.best,
            "facts": right.unflatten(1, (self.training.fillings, -1)).all(1).double().mean(1),
            "right_relation": (relation & finite[:, None]).double().mean(1),
            "loss": loss.where(finite, torch.nan),
            "diverged": ~finite,
        }
        rows = ended.nonzero().squeeze(1)
        values = {name: column[rows].tolist() for name, column in columns.items()}
        outcomes = [
            (position, Outcome(steps=step, **dict(zip(values, each, strict=True))))
            for position, *each in zip(self.stack.write_back(rows), *values.values(), strict=True)
        ]
        self._keep(~ended)
        return outcomes

    def _next(self) -> tuple[Int[Tensor, "B n T"], Int[Tensor, "B n"]]:
        """The prompts of a step."""
        if not self.ahead:
            size = self.training.batch_size
            drawn = [
                task.sample(_AHEAD * size, generator)
                for task, generator in zip(self.tasks, self.generators, strict=True)
            ]
            tokens, answers = self._stacked(drawn)
            self.ahead = list(zip(tokens.split(size, 1), answers.split(size, 1), strict=True))
        return self.ahead.pop()

    def _stacked(self, prompts: Sequence[Prompts]) -> tuple[Tensor, Tensor]:
        tokens = torch.stack([each.tokens.to(self.device) for each in prompts])
        return tokens, torch.stack([each.answer.to(self.device) for each in prompts])

    def _keep(self, staying: Bool[Tensor, " B"]) -> None:
        """Drop the other members."""
        self.stack.keep(staying)
        for name in ("tokens", "answers", "best"):
            setattr(self, name, getattr(self, name)[staying])
        self.ahead = [(tokens[staying], answers[staying]) for tokens, answers in self.ahead]
        kept = staying.nonzero().squeeze(1).tolist()
        self.tasks = [self.tasks[i] for i in kept]
        self.generators = [self.generators[i] for i in kept]


def _loss_gradient(
    logits: Float[Tensor, "B n A"], answers: Int[Tensor, "B n"]
) -> Float[Tensor, "B n A"]:
    """Of each member's cross-entropy, mean over the prompts; takes fewer passes than Autograd."""
    p = torch.softmax(logits, -1)
    p.scatter_add_(2, answers[..., None], p.new_full((*answers.shape, 1), -1.0))
    return p.div_(answers.shape[1])


def _generator(member: Member, role: int) -> torch.Generator:
    """Where the facts are, and so the prompts are drawn: 0 for training, 1 for the checks."""
    return torch.Generator(member.task.answers.device).manual_seed(2 * member.seed + role)
