"""How the two prompts of a pair differ: which names stand where, as letters.

CAB AB C  ->  DAB AB D      C, A and B, then A and B again: the answer is C; n1 is another name
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Format:
    """A pair of prompts, each the letters of its names in their order and of its answer."""

    clean: str
    corrupted: str

    @property
    def name(self) -> str:
        """Both prompts without their answers, for figures."""
        return f"{self.clean[:-2]} → {self.corrupted[:-2]}"

    @property
    def changed(self) -> str:
        """The role of the name that is another one in the corrupted prompt."""
        clean, corrupted = letters(self.clean)[:-1], letters(self.corrupted)[:-1]
        return f"n{1 + next(i for i, x in enumerate(clean) if x != corrupted[i])}"


def letters(arrangement: str) -> list[int]:
    """Numbers of the letters, A is 0: of the names in their order, then of the answer."""
    return [ord(letter) - ord("A") for letter in arrangement.replace(" ", "")]


def check_choice(name: str, chosen: tuple[int, ...], among: int) -> None:
    """Raises ValueError unless some are chosen, none twice, of those numbered below `among`."""
    if not chosen or len(set(chosen)) < len(chosen) or not set(chosen) <= set(range(among)):
        raise ValueError(f"{name} must be different numbers from 0 to {among - 1}, got {chosen}")
