"""The layers that papers count, and their components, as sites of the blocks of a model.

blocks   0 mamba, 1 mlp      2 attention, 3 mlp
layers   0                   1
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bounds import checks

COMPONENTS = (
    "block_input",
    "mixer_input",
    "mixer_output",
    "mlp_input",
    "mlp_output",
    "block_output",
)
"""What is patched in each layer (Arora et al. 2025, where the mixer is called attention)."""


@dataclass(frozen=True)
class Layer:
    """The blocks of a layer: that of its mixer, and that of its MLP if there is one."""

    mixer: int
    mlp: int | None = None

    def site(self, component: str) -> str | None:
        """The site of a component; None for that of an MLP which is not there.

        Beside `COMPONENTS`, every site of the mixer has its own name: "mixer.conv",
        "mixer.h.{t}", "mixer.conv1d.tap.2".
        """
        last = self.mixer if self.mlp is None else self.mlp
        sites = {
            "block_input": f"blocks.{self.mixer}.resid_pre",
            "mixer_input": f"blocks.{self.mixer}.normed",
            "mixer_output": f"blocks.{self.mixer}.out",
            "mlp_input": None if self.mlp is None else f"blocks.{self.mlp}.normed",
            "mlp_output": None if self.mlp is None else f"blocks.{self.mlp}.out",
            "block_output": f"blocks.{last}.resid_post",
        }
        if component.startswith("mixer."):
            return f"blocks.{self.mixer}.{component}"
        checks.one_of(COMPONENTS, component=component)
        return sites[component]


def layers(names: Sequence[str]) -> tuple[Layer, ...]:
    """Each mixer with the "mlp" behind it, of the layers that a configuration lists.

    An MLP that stands behind no mixer is a layer of its own.
    """
    found: list[Layer] = []
    for block, name in enumerate(names):
        behind = block and names[block - 1] != "mlp"
        if name == "mlp" and behind:
            found[-1] = Layer(block - 1, block)
        else:
            found.append(Layer(block))
    return tuple(found)
