"""Models of the recall studies: architectures by name, their training, and what is patched in them.

Trained with the recipe that makes recall learnable in minutes on a CPU: many questions about every
document, short and long documents in turns, embeddings of unit length.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from bounds import checks
from experiments.batches import Batch
from experiments.interventions.attribution import attribution_grid
from experiments.interventions.corruptions import Pair
from experiments.interventions.interchange import interchange
from experiments.interventions.layers import COMPONENTS, Layer, layers
from experiments.interventions.mechanism import answers_right, mechanism
from experiments.interventions.patches import has_site, patch
from experiments.interventions.self_tests import self_tests
from experiments.models.backbone import ModelConfig, SequenceModel
from experiments.models.short_convolution import ShortConvolution
from experiments.recall_tables import curves
from experiments.recipe import Recipe
from experiments.tasks.recall import IGNORED, Documents, RecallTask
from experiments.train import Outcome, train

POSITIONS = ("key", "value", "next_key", "next_value", "divider", "query", "answer")
"""Where activations are patched, as far as a task names them."""
INNER = ("conv", "delta", "B", "C", "q", "k", "v", "beta", "write.{t}", "h.{t}", "h_read.{t}")
"""Sites of mixers that are patched beside the components of layers, as far as they have them."""
BEHIND_KEY = ("value", "next_key", "next_value")
"""The tokens to which a short convolution can carry the key."""
EXACT = 1e-3
"""Log-probabilities agree to this where an intervention has to change nothing, or everything."""
_WARMUP = 100


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A kind of model: its mixers, repeated in turn for as many layers as there are."""

    mixers: tuple[str, ...]
    learning_rate: float
    """At which width 64 learns on a CPU budget; the best rates differ by more than ten times."""
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    positions: str = "none"
    norm: str = "layer"
    mlp: bool = True
    """Whether there can be an MLP behind the mixers; Mamba has its own gate."""

    def with_conv(self, mixer: str, d_conv: int) -> Architecture:
        """The same with short convolutions of this width in this mixer; 0 deletes them."""
        options = {**self.options, mixer: {**self.options.get(mixer, {}), "d_conv": d_conv}}
        return replace(self, options=options)


_BASED = Architecture(
    mixers=("base-conv", "taylor-attention"), learning_rate=3e-3,
    options={"base-conv": {"d_conv": 3}, "taylor-attention": {"feature_dim": 8}},
)  # fmt: skip
_MAMBA = Architecture(mixers=("mamba",), learning_rate=1e-2, norm="rms", mlp=False)
_DELTA_NET = Architecture(mixers=("delta-net",), learning_rate=3e-3)
_ATTENTION = Architecture(mixers=("attention",), learning_rate=3e-3, positions="learned")
ARCHITECTURES = {
    "attention": _ATTENTION,
    "attention-without-positions": replace(_ATTENTION, positions="none"),
    "based": _BASED,
    **{f"based-conv-{w}": _BASED.with_conv("base-conv", w) for w in (1, 2, 4)},
    "based-conv-long": replace(
        _BASED, mixers=("long-base-conv", "taylor-attention"),
        options={"taylor-attention": {"feature_dim": 8}},
    ),
    "base-conv": Architecture(
        mixers=("base-conv", "long-base-conv"), learning_rate=3e-3,
        options={"base-conv": {"d_conv": 3}},
    ),
    "hyena": Architecture(mixers=("hyena",), learning_rate=3e-3),
    "h3": Architecture(mixers=("h3",), learning_rate=3e-3),
    "mamba": _MAMBA,
    **{f"mamba-conv-{w}": _MAMBA.with_conv("mamba", w) for w in (0, 1, 2, 3)},
    "mamba-with-positions": replace(_MAMBA, positions="learned"),
    "delta-net": _DELTA_NET,
    "delta-net-conv-0": _DELTA_NET.with_conv("delta-net", 0),
}  # fmt: skip
"""Based as in the synthetic comparisons: a gated convolution, then Taylor attention, no window."""


def build(
    architecture: str, task: RecallTask, *, d: int, layers: int, mlp: bool, length: int, seed: int
) -> SequenceModel:
    """A model for documents of up to `length` tokens; with `mlp`, an MLP behind every mixer that
    can have one."""
    checks.one_of(tuple(ARCHITECTURES), architecture=architecture)
    checks.count(layers=layers)
    kind = ARCHITECTURES[architecture]
    mixers = [kind.mixers[i % len(kind.mixers)] for i in range(layers)]
    behind = ("mlp",) if mlp and kind.mlp else ()
    config = ModelConfig(
        layers=tuple(name for mixer in mixers for name in (mixer, *behind)),
        d_model=d,
        vocab_size=task.vocab_size,
        mixers={name: kind.options[name] for name in mixers if name in kind.options},
        norm=kind.norm,
        positions=kind.positions,
        max_length=length,
    )
    return SequenceModel(config, seed=seed)


def cross_entropy(model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Mean over the questions of a batch, in nats."""
    tokens, at, answers = batch
    logits = model(tokens, at).flatten(0, 1)
    return nn.functional.cross_entropy(logits, answers.flatten(), ignore_index=IGNORED)


def fit(
    model: SequenceModel,
    batch: Callable[[int], Batch],
    validation: Documents,
    *,
    learning_rate: float,
    steps: int,
    target: float,
    seed: int,
    watched: Pair | None = None,
    evaluate_every: int = 100,
    checkpoint: Path | None = None,
) -> Outcome:
    """AdamW at a constant rate after a warm-up, until the validation accuracy is at the target.

    With a pair to be `watched`, evaluations have also what the input of the second layer restores
    at each of its positions, `at_key`, `at_value`, ...: accuracy and mechanism on one axis.
    """

    def evaluate(model: SequenceModel) -> dict[str, float]:
        found = {"accuracy": accuracy(model, validation)}
        return found if watched is None else {**found, **at_second_layer(model, watched)}

    recipe = Recipe(
        steps=steps, learning_rate=learning_rate, warmup=min(_WARMUP, steps),
        evaluate_every=evaluate_every, stop_when=("accuracy", target),
    )  # fmt: skip
    return train(
        model, cross_entropy, batch, recipe, seed=seed, evaluate=evaluate, checkpoint=checkpoint
    )


def accuracy(model: SequenceModel, documents: Documents) -> float:
    """Share of the first questions that are answered rightly."""
    return float(answers_right(model, documents).mean())


def examined(
    model: SequenceModel, outcome: Outcome, test: Documents, pair: Pair, *, chance: float, seed: int
) -> dict[str, Any]:
    """What a record has of a trained model: accuracies, attributions and the mechanism.

    `chance` is the accuracy that recalls nothing; a model of one layer has no mechanism to tell.
    """
    found = {
        "accuracy": accuracy(model, test),
        "validation_accuracy": outcome.final["accuracy"],
        "status": outcome.status,
        "steps": outcome.steps,
        "parameters": sum(p.numel() for p in model.parameters()),
        "label": "one layer",
        "confidence": 0.0,
        **exactness(model, pair),
        **at_second_layer(model, pair),
        **grid(model, pair),
        **curves(outcome.evaluations),
    }
    if len(layers(model.config.layers)) > 1:
        told = mechanism(model, pair, chance=chance, seed=seed)
        found |= {"label": told.label, "confidence": told.confidence}
    return found


def exactness(model: SequenceModel, pair: Pair) -> dict[str, float | int]:
    """The largest deviation in the `self_tests`, and how many fail, of one for every document.

    `inexact` counts those whose worst document deviates by more than `EXACT`.
    """
    deviations = np.array(list(vars(self_tests(model, pair)).values()))
    return {
        "self_test": float(np.max(deviations)),
        "inexact": int((~(deviations <= EXACT)).sum()),
        "patched_runs": len(deviations) * len(pair),
    }


def at_second_layer(model: SequenceModel, pair: Pair) -> dict[str, float]:
    """Attribution of the input of the second layer, by position; none for a single layer.

    "at_behind_key" is that of all tokens in `BEHIND_KEY` together, as far as they are named.
    """
    found = layers(model.config.layers)
    if len(found) < 2:
        return {}
    there = {name: [name] for name in POSITIONS if _named(pair, name)}
    there["behind_key"] = [name for name in BEHIND_KEY if name in there]
    site = found[1].site("block_input")
    effects = interchange(model, pair, [patch(str(site), at=at) for at in there.values()])
    once = np.ones((1, len(pair)))
    return {
        f"at_{name}": effect.ratios(once).item()
        for name, effect in zip(there, effects, strict=True)
    }


def grid(model: SequenceModel, pair: Pair) -> dict[str, np.ndarray]:
    """Attributions by layer, component (`COMPONENTS`, then `INNER`) and position (`POSITIONS`).

    `grid_ratio`, `grid_low` and `grid_high`, NaN where a layer has no such component, a document
    no such position, or a ratio no denominator.
    """
    found = layers(model.config.layers)
    components = [c for c in _components() if any(_has(model, layer, c) for layer in found)]
    there = [name for name in POSITIONS if _named(pair, name)]
    cells = attribution_grid(model, pair, components, there)
    shape = len(found), len(_components()), len(POSITIONS)
    at = (
        cells["layer"].to_numpy(),
        [_components().index(c) for c in cells["component"]],
        [POSITIONS.index(p) for p in cells["position"]],
    )
    arrays = {}
    for column in ("ratio", "low", "high"):
        arrays[f"grid_{column}"] = np.full(shape, np.nan)
        arrays[f"grid_{column}"][at] = cells[column]
    return arrays


def bound_by_convolution(model: SequenceModel, pair: Pair) -> dict[str, float]:
    """What short convolutions carry from the key to the tokens behind it, where a pair follows.

    The outputs of those of all layers at `BEHIND_KEY`, patched together: restored in the corrupted
    run ("sufficient"), and destroyed in the clean one ("necessary"). Nothing where there are none.
    """
    found = layers(model.config.layers)
    sites = [str(each.site("mixer.conv")) for each in found if _convolves(model, each)]
    if not sites:
        return {}
    cells = [patch(*sites, at=BEHIND_KEY)]
    once = np.ones((1, len(pair)))
    return {
        name: interchange(model, pair, cells, direction=direction)[0].ratios(once).item()
        for name, direction in (("sufficient", "denoise"), ("necessary", "noise"))
    }


def _components() -> tuple[str, ...]:
    return (*COMPONENTS, *map("mixer.{}".format, INNER))


def _convolves(model: SequenceModel, layer: Layer) -> bool:
    """Whether its mixer has a short convolution, and a site behind it."""
    mixer = model.blocks[layer.mixer].mixer
    short = any(isinstance(part, ShortConvolution) for part in mixer.modules())
    return short and _has(model, layer, "mixer.conv")


def _named(pair: Pair, name: str) -> bool:
    return name in pair.clean.positions and bool((pair.clean.positions[name] >= 0).any())


def _has(model: SequenceModel, layer: Layer, component: str) -> bool:
    site = layer.site(component)
    return site is not None and has_site(model, site)
