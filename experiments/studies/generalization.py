"""What the studies of trained classifiers share: one training, and everything measured of it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from bounds.result import Source
from experiments import scratch
from experiments.classifiers import (
    audited,
    build,
    fit,
    log10_bounds,
    occam_risk,
    quantised,
    risk,
)
from experiments.models.selective_ssm import SelectiveSSM
from experiments.study import Study, Trial
from experiments.tasks import listops, majority, text, text_files, tokenizer
from experiments.tasks.sequences import LabelledSequences
from experiments.tasks.synthetic_reviews import SyntheticReviews

FIGURE = Source("honarpisheh2025generalization", "section 5, Figure 2")
_FRESH = 4000
"""Samples of majority on which risks are estimated; half as many of tasks that take longer."""
_VOCABULARY = 512
"""Subwords of the tokenizer of reviews, learned from the training sample."""


class Samples(NamedTuple):
    """Training sample, new samples of its distribution, and the test sample of the paper."""

    train: LabelledSequences
    fresh: LabelledSequences
    test: LabelledSequences


@lru_cache(4)
def samples(task: str, *, m: int, T: int, seed: int) -> Samples:
    """The samples of a task: "majority", "listops", "reviews", or a path with reviews.

    Majority is tested on clean inputs although it is trained on noisy ones; the other tests are of
    the training distribution, and therefore fresh. The tokenizer of reviews is learned from the
    training sample, so that there the bounds are numbers to compare with, not theorems.
    """
    if task == "majority":
        return Samples(
            majority.train(m=m, T=T, seed=seed),
            majority.fresh(m=_FRESH, T=T, seed=seed),
            majority.test(m=_FRESH, T=T, seed=seed),
        )
    if task == "listops":
        test = listops.test(m=_FRESH // 2, T=T, seed=seed)
        return Samples(listops.train(m=m, T=T, seed=seed), test, test)
    source = SyntheticReviews() if task == "reviews" else text_files.read(Path(task))
    words = tokenizer.learn(source.draw("train", m=m, seed=seed).texts, vocab_size=_VOCABULARY)
    options: dict[str, Any] = dict(T=T, seed=seed, source=source, tokenizer=words)
    available = _FRESH // 2
    if not isinstance(source, SyntheticReviews):
        available = min(available, len(source.test))
    test = text.test(m=available, **options)
    return Samples(text.train(m=m, **options), test, test)


@dataclass(frozen=True)
class Generalization(Study):
    """Classifiers that are trained, measured on new samples, and bounded."""

    model: tuple[str, ...] = ("single",)
    """"single" (selective SSM block) or "mamba"."""
    task: tuple[str, ...] = ("majority",)
    """"majority", "listops", "reviews" (synthetic), or a path with IMDb-format reviews."""
    d: tuple[int, ...] = (4,)
    """Channels; d_model for Mamba."""
    N: tuple[int, ...] = (4,)
    """States per channel."""
    s_A: tuple[float, ...] = (0.0,)
    """Spectral abscissa at the start."""
    frozen: tuple[bool, ...] = (False,)
    """Keep the state matrix at s_A, everywhere."""
    step_logit: tuple[float | None, ...] = (None,)
    """Fix every step at its softplus."""
    m: tuple[int, ...] = (1000,)
    """Training samples."""
    steps: tuple[int, ...] = (640,)
    """Training steps, rounded up to whole epochs."""
    batch_size: tuple[int, ...] = (64,)
    T: tuple[int, ...] = (100,)
    """Sequence lengths."""
    seed: tuple[int, ...] = tuple(range(4))
    """Initial weights, data and order of the batches."""

    def grid(self) -> Mapping[str, Iterable[Any]]:
        return {axis.name: getattr(self, axis.name) for axis in fields(self)}

    def trials(self) -> tuple[Trial, ...]:
        """The grid; Mamba, which has no s_A to start from or to fix, at the first of these axes."""
        own = ("s_A", "frozen", "step_logit")
        first = {axis: getattr(self, axis)[0] for axis in own}
        return tuple(
            trial
            for trial in super().trials()
            if trial.config["model"] == "single"
            or first == {axis: trial.config[axis] for axis in own}
        )

    @staticmethod
    def measure(
        rng: np.random.Generator,
        *,
        model: str,
        task: str,
        d: int,
        N: int,
        s_A: float,
        frozen: bool,
        step_logit: float | None,
        T: int,
        m: int,
        steps: int,
        batch_size: int,
        seed: int,
    ) -> dict[str, Any]:
        """Train one model; `frozen` keeps the state matrix at `s_A`, everywhere.

        A `step_logit` fixes every step at its softplus, whatever the input.
        """
        train, fresh, test = samples(task, m=m, T=T, seed=seed)
        net = build(model, train, d=d, N=N, s_A=s_A, seed=seed)
        if isinstance(net, SelectiveSSM):
            _fix(net, s_A if frozen else None, step_logit)
        epochs = math.ceil(steps / math.ceil(m / batch_size))
        outcome = fit(
            net, train, epochs=epochs, batch_size=batch_size, seed=seed, evaluate=lambda net: {},
            checkpoint=scratch.checkpoint("classifier"),
        )  # fmt: skip
        on_train, on_fresh, on_test = risk(net, train), risk(net, fresh), risk(net, test)
        lossy = quantised(net)
        lossy_train = risk(lossy, train).error
        metrics = {
            "status": outcome.status,
            "losses": np.array(outcome.losses),
            "train_error": on_train.error,
            "fresh_error": on_fresh.error,
            "test_error": on_test.error,
            "gap": on_fresh.error - on_train.error,
            "reported_gap": on_test.error - on_train.error,
            "ramp_gap": on_fresh.ramp - on_train.ramp,
            "guessing_error": 1 - test.majority_class_rate,
            "pad_share": train.padding().share,
            "parameters": sum(p.numel() for p in net.parameters()),
            "quantised_train_error": lossy_train,
            "quantised_fresh_error": risk(lossy, fresh).error,
            "occam_risk": occam_risk(net, train_error=lossy_train, m=m),
        }
        if task == "majority":
            rule = majority.bayes_rule(T=T)
            metrics["bayes_error"] = 1 - rule.noisy_accuracy
            metrics["bayes_clean_error"] = 1 - rule.clean_accuracy
        return metrics | (_of_single_block(net, train) if isinstance(net, SelectiveSSM) else {})


@torch.no_grad()
def _fix(net: SelectiveSSM, s_A: float | None, step_logit: float | None) -> None:
    ssm = net.ssm
    fixed: dict[str, float] = {}
    if s_A is not None:
        fixed["A"] = s_A
    if step_logit is not None:
        fixed |= {"p_delta": step_logit, "q_delta": 0.0}
    for name, value in fixed.items():
        ssm[name].fill_(value).requires_grad_(False)


@torch.no_grad()
def _of_single_block(net: SelectiveSSM, train: LabelledSequences) -> dict[str, Any]:
    """Stability, steps and norm-based bounds."""
    with net.record("delta") as seen:
        net(torch.arange(train.vocab_size, device=net.embedding.weight.device)[None])
    steps = seen["delta"].flatten().double().cpu()
    real = train.tokens[torch.arange(train.T) < train.lengths[:, None]]
    s_A = net.spectral_abscissa
    metrics = {
        "final_s_A": s_A,
        "mean_step": steps[real].mean().item(),
        "growth": (s_A * steps[train.tokens].sum(1)).max().item(),
    }
    if train.pad is not None:
        metrics["pad_step"] = steps[train.pad].item()
    bounds = log10_bounds(audited(net, m=train.m, T=train.T))
    # NaN where a bound is not defined: hybrid for several outputs, the published one for s_A >= 0.
    return metrics | {
        f"log10_{name}": bounds.get(name, math.nan)
        for name in ("norm", "hybrid", "parameter", "published")
    }
