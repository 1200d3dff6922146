"""Greater than: the year in which a span can end.

clean     BOS The war lasted from the year 17 32 to the year 17      -> 33 ... 99, here 58
corrupted BOS The war lasted from the year 17 01 to the year 17      -> 02 ... 99, here 20

Hanna, Liu and Variengien 2023 (arXiv:2305.00586).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int
from numpy import ndarray
from torch import Tensor

from bounds import checks
from experiments.tasks.prompt_pairs import OUT, PromptPairs, generator

NOUNS = ("war", "siege", "voyage", "reign", "strike", "famine", "project", "expedition")
CENTURIES = ("11", "12", "13", "14", "15", "16", "17", "18")
CORRUPTED_START = 1
_WORDS = ("PAD", "BOS", "The", "lasted", "from", "the", "year", "to")
_PROMPT = (
    *("BOS", "The", "{noun}", "lasted", "from", "the", "year", "{century}", "{start}"),
    *("to", "the", "year", "{century}"),
)
_ROLES = {"noun": 2, "century": 7, "start": 8, OUT: 12}


@dataclass(frozen=True, kw_only=True)
class GreaterThan:
    """A span of years within a century; the answer is the last two digits of its end, one token.

    Every year above the start is right. A pair asks for two of them: `answer`, uniform among the
    years above the clean start, is right in both prompts; `corrupted_answer`, uniform among those
    above the corrupted start, 01, up to the clean one, is right in the corrupted prompt only. The
    logit difference is therefore large in a clean run, and about 0, not negative, in a corrupted
    one. These two are the candidates. `meta` has the clean "start", 02 or later.
    """

    num_years: int = 100
    """Years of a century: 00, 01, ..."""

    def __post_init__(self) -> None:
        checks.count(num_years=self.num_years)
        checks.ordered(fewest_years=4, num_years=self.num_years, most_years=100)

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """All tokens, as they are written."""
        years = (f"{year:02}" for year in range(self.num_years))
        return (*_WORDS, *NOUNS, *CENTURIES, *years)

    @property
    def vocab_size(self) -> int:
        """Number of tokens."""
        return len(self.vocabulary)

    @property
    def _first_year(self) -> int:
        return self.vocab_size - self.num_years

    def words(self, tokens: Int[Tensor, " length"]) -> list[str]:
        """How the tokens are written."""
        return [self.vocabulary[token] for token in tokens.tolist()]

    def pairs(self, count: int, *, seed: int) -> PromptPairs:
        """Independent pairs; another seed, other ones."""
        rng = generator(self, count=count, seed=seed, kind="pairs")
        start = rng.integers(CORRUPTED_START + 1, self.num_years - 1, size=count)
        clean = self._prompts(rng, start)
        corrupted = clean.copy()
        corrupted[:, _ROLES["start"]] = self._first_year + CORRUPTED_START
        answer = self._first_year + rng.integers(start + 1, self.num_years)
        other = self._first_year + rng.integers(CORRUPTED_START + 1, start + 1)
        one_each = {"format": 0, "template": 0}
        return PromptPairs(
            clean=torch.from_numpy(clean),
            corrupted=torch.from_numpy(corrupted),
            answer=torch.from_numpy(answer),
            corrupted_answer=torch.from_numpy(other),
            candidates=torch.from_numpy(np.stack([answer, other], axis=1)),
            roles={name: torch.full((count,), at) for name, at in _ROLES.items()},
            meta={name: torch.full((count,), number) for name, number in one_each.items()}
            | {"start": torch.from_numpy(start)},
            vocab_size=self.vocab_size,
        )

    def sequences(
        self, count: int, *, seed: int
    ) -> tuple[Int[Tensor, "sequences length"], Int[Tensor, " sequences"]]:
        """Spans with their ends, and the positions of the last tokens before these.

        Starts are uniform from 01 on, ends uniform above their starts.
        """
        rng = generator(self, count=count, seed=seed, kind="sequences")
        start = rng.integers(CORRUPTED_START, self.num_years - 1, size=count)
        end = self._first_year + rng.integers(start + 1, self.num_years)
        tokens = np.concatenate([self._prompts(rng, start), end[:, None]], axis=1)
        return torch.from_numpy(tokens), torch.full((count,), _ROLES[OUT])

    def _prompts(
        self, rng: np.random.Generator, start: Int[ndarray, " prompts"]
    ) -> Int[ndarray, "prompts length"]:
        count = len(start)
        drawn = {
            "{noun}": len(_WORDS) + rng.integers(len(NOUNS), size=count),
            "{century}": len(_WORDS) + len(NOUNS) + rng.integers(len(CENTURIES), size=count),
            "{start}": self._first_year + start,
        }
        columns = [
            drawn[word] if word in drawn else np.full(count, _WORDS.index(word)) for word in _PROMPT
        ]
        return np.stack(columns, axis=1)
