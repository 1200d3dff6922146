"""Classifiers of sequences: trained as published, measured on samples, and bounded."""

from __future__ import annotations

import copy
import math
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors.torch import save_file
from torch import Tensor, nn

from bounds import published
from bounds.compression import occam_bound, quantise
from experiments.audit_report import AuditReport, audit_checkpoint, unclipped
from experiments.batches import Epochs
from experiments.models.backbone import ModelConfig, SequenceModel
from experiments.models.selective_ssm import SelectiveSSM
from experiments.recipe import Recipe
from experiments.tasks.sequences import LabelledSequences
from experiments.train import Outcome, train
from memory.factual_transformer import margin as multiclass_margin

DELTA = 0.05
"""The bounds hold with probability 1 - DELTA over training samples."""
BITS = 8
"""Bits of a weight of the quantised models, chosen before seeing data."""
_TOKENS = 2**17
"""Tokens of a batch in which a model is measured."""


def build(
    model: str, data: LabelledSequences, *, d: int, N: int, s_A: float, seed: int
) -> SelectiveSSM | SequenceModel:
    """A new "single" selective SSM block, or a "mamba" block in its residual backbone, for `data`.

    `s_A` is the spectral abscissa that the single block starts with; Mamba's is negative by
    construction, and `d` is its d_model.
    """
    outputs = 1 if data.n_classes == 2 else data.n_classes
    if model == "single":
        return SelectiveSSM(
            vocab_size=data.vocab_size, d=d, N=N, s_A=s_A, outputs=outputs, seed=seed
        )
    if model != "mamba":
        raise ValueError(f"model is 'single' or 'mamba', got {model!r}")
    config = ModelConfig(
        layers=("mamba",), d_model=d, vocab_size=data.vocab_size, d_output=outputs,
        mixers={"mamba": {"d_state": N}},
    )  # fmt: skip
    return SequenceModel(config, seed=seed)


def fit(
    model: nn.Module,
    data: LabelledSequences,
    *,
    epochs: int,
    batch_size: int,
    seed: int,
    evaluate: Callable[[nn.Module], Mapping[str, float]],
    checkpoint: Path | None = None,
) -> Outcome:
    """Train as Honarpisheh et al. (2025) do, evaluating before each epoch and after the last.

    Adam at 0.01 with an L2 penalty of 1e-5, rates reduced on plateaus, gradients clipped at 5, and
    the mean cross-entropy. Their penalty against collapse is left out: it is no mean over samples,
    so that no theorem is about it.
    """
    batches = Epochs(data.tokens, data.labels, batch_size=batch_size, seed=seed)
    recipe = Recipe(
        steps=epochs * batches.steps_per_epoch, evaluate_every=batches.steps_per_epoch,
        learning_rate=0.01, optimizer="adam", weight_decay=1e-5, schedule="plateau", clip=5.0,
    )  # fmt: skip
    return train(
        model, lambda model, batch: cross_entropy(last_outputs(model, batch[0]), batch[1]), batches,
        recipe, seed=seed, evaluate=evaluate, checkpoint=checkpoint,
    )  # fmt: skip


def last_outputs(
    model: nn.Module, tokens: Int[Tensor, "samples length"]
) -> Float[Tensor, "samples outputs"]:
    """The outputs at the last position, padding included."""
    if isinstance(model, SelectiveSSM):
        return model(tokens)
    last = torch.full((len(tokens), 1), tokens.shape[1] - 1, device=tokens.device)
    return model(tokens, last)[:, 0]


def cross_entropy(z: Float[Tensor, "samples outputs"], labels: Int[Tensor, " samples"]) -> Tensor:
    """Mean cross-entropy (nats): logistic for one output, softmax for several."""
    if z.shape[1] == 1:
        return nn.functional.binary_cross_entropy_with_logits(z[:, 0], labels.to(z.dtype))
    return nn.functional.cross_entropy(z, labels)


@dataclass(frozen=True)
class Risk:
    """Mean losses of a model over samples."""

    error: float
    """Share of wrong answers; an output that is NaN is one."""
    ramp: float
    """Mean of the ramp loss, min(1, max(0, 1 - margin)), of margin 1; 1 for outputs that are NaN.
    """


@torch.no_grad()
def outputs_on(model: nn.Module, data: LabelledSequences) -> Float[Tensor, "samples outputs"]:
    """The last outputs for all samples, computed in batches."""
    where = next(model.parameters()).device
    rows = max(1, _TOKENS // data.T)
    return torch.cat([last_outputs(model, t.to(where)).cpu() for t in data.tokens.split(rows)])


def risk(model: nn.Module, data: LabelledSequences) -> Risk:
    """Mean losses over the samples of `data`."""
    margins = margin(outputs_on(model, data), data.labels)
    ramp = torch.nan_to_num((1 - margins).clamp(0, 1), nan=1.0)
    return Risk(error=1 - (margins > 0).double().mean().item(), ramp=ramp.double().mean().item())


def margin(
    z: Float[Tensor, "samples outputs"], labels: Int[Tensor, " samples"]
) -> Float[Tensor, " samples"]:
    """±z for one output; for several, that of the label less the largest other one."""
    if z.shape[1] == 1:
        return torch.where(labels == 1, z[:, 0], -z[:, 0])
    return multiclass_margin(z, labels)


def audited(model: SelectiveSSM, *, m: int, T: int) -> AuditReport:
    """The audit of a single block, trained on `m` samples of length `T`."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "model.safetensors")
        save_file({name: x.cpu().contiguous() for name, x in model.state_dict().items()}, file)
        return audit_checkpoint(file, length=T, samples=m, delta=DELTA)


def log10_bounds(report: AuditReport) -> dict[str, float]:
    """log10 of each bound on the gap of the ramp loss (margin 1), before clipping at 1.

    Norm-based, hybrid and parameter-counting as theorems, the class chosen from a countable family;
    and the published one at the trained norms, defined for s_A < 0 and one output: 24 C/sqrt(m)
    and the deviation term, without the logarithm that it has where it is below 1.
    """
    (row,) = report.rows
    gaps = unclipped(row.gap_stratified, row.loss)
    if row.core.budgets["s_A"] < 0 and row.core.structure["outputs"] == 1:
        # The theorem knows a range of biases only, not the steps over a vocabulary.
        ssm = replace(row.given, step_logits=None)
        log_C = published.capacity(ssm, T=report.T).term("C").stored
        slack = 3 * math.sqrt(math.log(2 / report.delta) / (2 * report.m))
        log_gap = np.logaddexp(math.log(24 / math.sqrt(report.m)) + log_C, math.log(slack))
        gaps["published"] = float(log_gap) / math.log(10)
    return gaps


def quantised(model: nn.Module, *, bits: int = BITS) -> nn.Module:
    """A copy whose tensors are what `bits` per weight and a scale for each tensor describe."""
    lossy = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in lossy.parameters():
            values, _ = quantise(parameter.double().cpu().numpy(), bits=bits)
            parameter.copy_(torch.as_tensor(values))
    return lossy


def occam_risk(model: nn.Module, *, train_error: float, m: int, bits: int = BITS) -> float:
    """Upper bound on the error of `quantised(model)` from its error on the training sample."""
    parameters = list(model.parameters())
    bound = occam_bound(
        train_error=train_error, m=m, delta=DELTA, bits=bits,
        n_parameters=sum(p.numel() for p in parameters), n_tensors=len(parameters),
    )  # fmt: skip
    return float(bound)
