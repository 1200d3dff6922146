"""One loop that trains any sequence model: seeds in, metrics out, resumable: `train`."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from bounds import checks
from experiments import device, training_state
from experiments.batches import EVALUATION, TRAINING, Batch, derived, require_seed
from experiments.progress import bar
from experiments.recipe import Plateau, Recipe

Status = Literal["finished", "target reached", "diverged"]

SMALL = 2**20
"""Models with fewer parameters are trained by one thread on a CPU: several only wait for each
other. It also makes their results independent of the number of processors."""
_DETAILS = "loss {task.fields[loss]:.4g}, learning rate {task.fields[rate]:.3g}"
"""What the progress bar says besides."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a training ended."""

    status: Status
    """A training whose loss, or the norm of its gradient, becomes infinite or NaN has diverged. The
    model then has the parameters with which both were finite last: those before the last update,
    or the initial ones."""
    steps: int
    """Updates that made the parameters."""
    diverged_at: int | None
    """The step, counted from 0, whose loss, gradient or (after the last step) parameters were not
    finite."""
    evaluations: Mapping[int, Mapping[str, float]]
    """The metrics by the number of updates before; the last ones are those of the parameters."""
    losses: tuple[float, ...]
    """Training losses, averaged over each epoch (see `train`), the last of which may be partial."""
    seconds: float
    """On the wall, without the time between a kill and the continuation."""

    @property
    def final(self) -> Mapping[str, float]:
        """The metrics of the parameters that the model has now."""
        return self.evaluations[self.steps]


def train(
    model: nn.Module,
    loss: Callable[[nn.Module, Any], Tensor],
    batch: Callable[[int], Batch],
    recipe: Recipe,
    *,
    seed: int,
    evaluate: Callable[[nn.Module], Mapping[str, float]] | None = None,
    checkpoint: Path | None = None,
    checkpoint_every: float = 60.0,
    progress: bool = False,
) -> Outcome:
    """Train `model` in place on the chosen device (`experiments.device`); it ends in `eval` mode.

    Step t minimizes `loss(model, batch(t))`, a scalar. `batch` is a function of the step alone, so
    a continued training needs no state of the data; its tensors are moved to the device. `evaluate`
    returns metrics of the model in `eval` mode, without gradients. PyTorch's own random numbers
    (dropout) follow from `seed` and the step; the caller's generators are left as they were. On a
    CPU the same arguments give the same bits.

    An epoch is `batch.steps_per_epoch` steps where `batch` has that attribute, as `Epochs` do, and
    else those between two evaluations.

    With a `checkpoint`, the state of the training is written to this file whenever
    `checkpoint_every` seconds have passed. A call with the same arguments, the initial weights
    among them, continues from there with the same bits as if it had not been interrupted. Another
    training's file is a CheckpointError; only what `loss` computes, and batches after the first,
    cannot be compared. The file is removed at the end. `progress` shows a bar on
    terminals.
    """
    require_seed(seed)
    checks.nonnegative(checkpoint_every=checkpoint_every)
    if recipe.stop_when is not None and evaluate is None:
        raise ValueError(f"evaluate must be given for stop_when={recipe.stop_when!r}")
    if recipe.schedule == "plateau" and not (
        recipe.evaluate_every or hasattr(batch, "steps_per_epoch")
    ):
        raise ValueError("schedule 'plateau' needs epochs: give evaluate_every, or use Epochs")
    where = torch.device(device.chosen())
    if recipe.bfloat16 and where.type != "cuda":
        raise ValueError(f"bfloat16 must be False on the device '{where}', got True")
    forked = [where] if where.type == "cuda" else []
    model.to(where)
    start = {"loss": math.nan, "rate": recipe.rate(0)}
    drawn = bar("step", recipe.steps, shown=progress, details=_DETAILS, **start)
    with _threads(model, where), torch.random.fork_rng(forked), drawn as show:
        run = _Run(model, loss, batch, recipe, seed, evaluate or (lambda model: {}), where)
        mark = run.fingerprint() if checkpoint is not None else {}
        if checkpoint is not None:
            run.resume(training_state.read(checkpoint, mark, where))
        written = time.monotonic()
        while (status := run.advance(show)) is None:
            if checkpoint is not None and time.monotonic() - written >= checkpoint_every:
                training_state.write(checkpoint, mark, run.state())
                written = time.monotonic()
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    return run.outcome(status)


class _Run:
    """A training between two of its steps."""

    def __init__(
        self,
        model: nn.Module,
        loss: Callable[[nn.Module, Any], Tensor],
        batch: Callable[[int], Batch],
        recipe: Recipe,
        seed: int,
        evaluate: Callable[[nn.Module], Mapping[str, float]],
        where: torch.device,
    ) -> None:
        self.model, self.loss, self.batch, self.recipe = model, loss, batch, recipe
        self.seed, self.evaluate, self.where = seed, evaluate, where
        self.trained = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = _optimizer(self.trained, recipe)
        self.epoch: int = getattr(batch, "steps_per_epoch", recipe.evaluate_every or recipe.steps)
        self.live = [t.detach() for t in (*model.parameters(), *model.buffers())]
        """Shares its storage with the model."""
        self.kept = [tensor.clone() for tensor in self.live]
        """As `live` was before the last update."""
        self.step = 0
        self.diverged_at: int | None = None
        self.plateau = Plateau()
        self.evaluations: dict[int, dict[str, float]] = {}
        self.losses: list[float] = []
        self.in_epoch: list[float] = []
        """Losses of the steps of this epoch."""
        self.before, self.started = 0.0, time.monotonic()

    def advance(self, show: Callable[..., object]) -> Status | None:
        """Evaluate if it is time to, and make one update; the status if that is the end."""
        if self.recipe.evaluates(self.step):
            metrics = self._evaluate()
            if self.recipe.stop_when is not None:
                name, target = self.recipe.stop_when
                if name not in metrics:
                    known = ", ".join(map(repr, metrics)) or "none"
                    raise ValueError(f"stop_when must name a metric ({known}), got {name!r}")
                if metrics[name] >= target:
                    return "target reached"
        if self.step == self.recipe.steps:
            if all(p.isfinite().all() for p in self.trained):
                return "finished"
            return self._diverged()
        rate = self.recipe.rate(self.step) * self.plateau.factor
        value = self._update(rate)
        if value is None:
            return self._diverged()
        self.step += 1
        self.in_epoch.append(value)
        if self.step % self.epoch == 0:
            self.losses.append(_mean(self.in_epoch))
            self.in_epoch = []
            if self.recipe.schedule == "plateau":
                self.plateau.epoch(self.losses[-1])
        show(self.step, loss=value, rate=rate)
        return None

    def _update(self, rate: float) -> float | None:
        """One step at this learning rate; its loss, or None and no update if it is not finite."""
        _reseed(self.where, self.seed, self.step, TRAINING)
        self.model.train()
        with self._precision():
            loss = self.loss(self.model, self._batch(self.step))
        self.optimizer.zero_grad()
        loss.backward()
        limit = math.inf if self.recipe.clip is None else self.recipe.clip
        norm = nn.utils.clip_grad_norm_(self.trained, limit)
        # Together, as each is a wait for the device.
        value, length = torch.stack([loss.detach().double(), norm.double()]).tolist()
        if not (math.isfinite(value) and math.isfinite(length)):
            return None
        _copy(self.kept, self.live)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        return value

    @torch.no_grad()
    def _evaluate(self) -> dict[str, float]:
        _reseed(self.where, self.seed, self.step, EVALUATION)
        self.model.eval()
        with self._precision():
            metrics = {name: float(value) for name, value in self.evaluate(self.model).items()}
        self.evaluations[self.step] = metrics
        return metrics

    def _diverged(self) -> Status:
        """Go back to the last step that was finite, and evaluate its parameters."""
        self.diverged_at = self.step
        _copy(self.live, self.kept)
        self.evaluations.pop(self.step, None)
        self.step = max(0, self.step - 1)
        self._evaluate()
        return "diverged"

    def _precision(self) -> torch.autocast:
        return torch.autocast(self.where.type, torch.bfloat16, enabled=self.recipe.bfloat16)

    def _batch(self, step: int) -> Batch:
        batch = self.batch(step)
        if isinstance(batch, Mapping):
            return {name: tensor.to(self.where) for name, tensor in batch.items()}
        if not isinstance(batch, tuple):
            kind = type(batch).__name__
            raise ValueError(f"batch must return a tuple or mapping of tensors, got a {kind}")
        return tuple(tensor.to(self.where) for tensor in batch)

    def fingerprint(self) -> dict[str, Any]:
        """What a checkpoint has to agree with, taken before the first step."""
        _reseed(self.where, self.seed, 0, TRAINING)
        batch = self._batch(0)
        first = batch.values() if isinstance(batch, Mapping) else batch
        return {
            **asdict(self.recipe),
            "seed": self.seed,
            "device": self.where.type,
            "epoch": self.epoch,
            **training_state.described(self.model.state_dict()),
            "first batch": training_state.digest(first),
        }

    def state(self) -> dict[str, Any]:
        """Everything that the rest of the training depends on, and what there is to report."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "kept": self.kept,
            "step": self.step,
            "plateau": asdict(self.plateau),
            "evaluations": self.evaluations,
            "losses": self.losses,
            "in_epoch": self.in_epoch,
            "seconds": self._seconds(),
        }

    def resume(self, state: dict[str, Any] | None) -> None:
        """Continue from there, if there is a state."""
        if state is None:
            return
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        _copy(self.kept, state["kept"])
        self.step = state["step"]
        self.plateau = Plateau(**state["plateau"])
        self.evaluations = state["evaluations"]
        self.losses, self.in_epoch = state["losses"], state["in_epoch"]
        self.before = state["seconds"]

    def outcome(self, status: Status) -> Outcome:
        losses = [*self.losses, _mean(self.in_epoch)] if self.in_epoch else self.losses
        return Outcome(
            status=status,
            steps=self.step,
            diverged_at=self.diverged_at,
            evaluations=self.evaluations,
            losses=tuple(losses),
            seconds=self._seconds(),
        )

    def _seconds(self) -> float:
        return self.before + time.monotonic() - self.started


def _optimizer(trained: list[nn.Parameter], recipe: Recipe) -> torch.optim.Optimizer:
    decaying = [p for p in trained if not getattr(p, "_no_weight_decay", False)]
    exempt = [p for p in trained if getattr(p, "_no_weight_decay", False)]
    kind = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
    return kind(
        [
            {"params": decaying, "weight_decay": recipe.weight_decay},
            {"params": exempt, "weight_decay": 0.0},
        ],
        lr=recipe.learning_rate,
        betas=recipe.betas,
        eps=recipe.epsilon,
        # Several times as fast for small models, but not made for complex numbers.
        fused=all(p.is_floating_point() for p in trained),
    )


@torch.no_grad()
def _copy(to: Sequence[Tensor], tensors: Sequence[Tensor]) -> None:
    for old, new in zip(to, tensors, strict=True):
        old.copy_(new)


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)


def _reseed(where: torch.device, seed: int, step: int, stream: int) -> None:
    value = derived(seed, step, stream)
    # Not torch.manual_seed, which also seeds devices whose generators are not ours to change.
    torch.default_generator.manual_seed(value)
    if where.type == "cuda":
        with torch.cuda.device(where):
            torch.cuda.manual_seed(value)


@contextmanager
def _threads(model: nn.Module, where: torch.device) -> Iterator[None]:
    """One thread for `SMALL` models on a CPU; larger ones have what there is.

    That is one in the workers of a sweep, and all processors elsewhere.
    """
    before = torch.get_num_threads()
    if where.type == "cpu" and sum(p.numel() for p in model.parameters()) < SMALL:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
