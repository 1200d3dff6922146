"""The models of in-context learning, by name, and the widths at which they cost the same.

A layer is two residual blocks, and some models have a block before the first layer:

    transformer                    [attention, mlp] x layers                learned positions
    transformer-without-positions  [attention, mlp] x layers
    mamba-transformer              mamba, [attention, mlp] x layers
    s4                             [s4d, s4d] x layers
    s4-mamba                       [s4-mamba, s4-mamba] x layers
    mamba                          [mamba, mamba] x layers
    mamba-mlp                      [mamba, mlp] x layers
    hybrid                         [attention, mamba] x layers              learned positions
    hybrid-without-positions       [attention, mamba] x layers
    mambaformer                    mamba, [attention, mamba] x layers
"""

from __future__ import annotations

import bisect
from dataclasses import dataclass

from bounds import checks
from experiments.models.backbone import ModelConfig, SequenceModel
from experiments.models.cost import matmul_flops, mixer_parameters, scan_flops
from experiments.tasks.in_context import InContextTask


@dataclass(frozen=True, kw_only=True)
class Family:
    """The mixers of a layer, those of the blocks `first` of all, positions and learning rate."""

    layer: tuple[str, str]
    first: tuple[str, ...] = ()
    positions: str = "none"
    learning_rate: float = 6e-3
    """At which small models learn in minutes on a CPU; the published ones are ten times smaller or
    more."""

    def blocks(self, layers: int) -> tuple[str, ...]:
        """The mixer of each block."""
        checks.count(layers=layers)
        return self.first + self.layer * layers


_TRANSFORMER_RATE = 2e-3
MODELS = {
    "transformer": Family(
        layer=("attention", "mlp"), positions="learned", learning_rate=_TRANSFORMER_RATE
    ),
    "transformer-without-positions": Family(
        layer=("attention", "mlp"), learning_rate=_TRANSFORMER_RATE
    ),
    "mamba-transformer": Family(first=("mamba",), layer=("attention", "mlp")),
    "s4": Family(layer=("s4d", "s4d")),
    "s4-mamba": Family(layer=("s4-mamba", "s4-mamba")),
    "mamba": Family(layer=("mamba", "mamba")),
    "mamba-mlp": Family(layer=("mamba", "mlp")),
    "hybrid": Family(layer=("attention", "mamba"), positions="learned"),
    "hybrid-without-positions": Family(layer=("attention", "mamba")),
    "mambaformer": Family(first=("mamba",), layer=("attention", "mamba")),
}
"""The families of Park et al. 2024 (arXiv:2402.04248) and their ablations.

Without dropout, which the published code has in S4-Mamba alone (0.1). The Transformer behind a
Mamba block has no positions, so that only this block tells it from the one without positions, and
only the MLP from MambaFormer. Weights start as the mixers' do: neither at the standard deviation
0.02 of the published Transformer nor with Mamba's last map scaled down by the depth.
"""


def build(
    name: str, task: InContextTask, *, d_model: int, layers: int, heads: int, seed: int
) -> SequenceModel:
    """A model for prompts of this task. Learned positions are as many as it has tokens; `heads` are
    those of attention, and divide `d_model` where there is any."""
    family = _family(name)
    blocks = family.blocks(layers)
    options = {"attention": {"bias": True, "heads": heads}, "mlp": {"tanh": True}}
    config = ModelConfig(
        layers=blocks,
        d_model=d_model,
        d_input=task.d,
        d_output=task.d_output,
        mixers={mixer: options[mixer] for mixer in options if mixer in blocks},
        norm="layer",
        positions=family.positions,
        max_length=task.length,
    )
    return SequenceModel(config, seed=seed)


def block_parameters(name: str, *, d_model: int, layers: int) -> int:
    """Number of parameters of all blocks and the norms: all but read-in, read-out and positions."""
    blocks = _family(name).blocks(layers)
    norms = 2 * d_model * (len(blocks) + 1)
    return norms + sum(mixer_parameters(mixer, d_model=d_model) for mixer in blocks)


def block_flops(name: str, *, d_model: int, layers: int, length: int) -> float:
    """Operations of all blocks for a token, forward: what `experiments.models.cost` states."""
    return sum(
        matmul_flops(mixer, d_model=d_model, length=length)
        + scan_flops(mixer, d_model=d_model, length=length)
        for mixer in _family(name).blocks(layers)
    )


def matched(
    name: str, reference: str, *, by: str, d_model: int, layers: int, heads: int, length: int
) -> int:
    """The width, a multiple of `heads`, at which `name` costs most nearly what `reference` does at
    the width `d_model`, with as many layers. `by` "depth" the width is the same; `by` "parameters"
    those of the blocks count, and `by` "flops" their operations for prompts of `length` tokens."""
    checks.one_of(tuple(MODELS), name=name, reference=reference)
    checks.one_of(("depth", "parameters", "flops"), by=by)
    checks.count(d_model=d_model, layers=layers, heads=heads, length=length)
    if d_model % heads:
        raise ValueError(f"heads must divide d_model = {d_model}, got {heads}")
    if by == "depth":
        return d_model

    def cost(model: str, width: int) -> float:
        if by == "parameters":
            return block_parameters(model, d_model=width, layers=layers)
        return block_flops(model, d_model=width, layers=layers, length=length)

    widths = range(heads, checks.LARGEST_COUNT, heads)
    aim = cost(reference, d_model)
    above = bisect.bisect_left(widths, aim, key=lambda width: cost(name, width))
    return min(
        widths[max(above - 1, 0) : above + 1], key=lambda width: abs(cost(name, width) - aim)
    )


def _family(name: str) -> Family:
    checks.one_of(tuple(MODELS), name=name)
    return MODELS[name]
