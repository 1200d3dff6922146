"""What a figure of the gallery is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from matplotlib.figure import Figure


@dataclass(frozen=True)
class Plate:
    """A figure of the gallery: drawn from the tables of its studies, one each in their order."""

    studies: tuple[str, ...]
    caption: str
    draw: Callable[..., Figure]
