"""Prompts of indirect object identification: who is named where, and what changes in a pair.

template  Then, [N], [N] and [N] went to the [P]. [N] and [N] gave a [O] to
format    CAB AB C  ->  DAB AB D       letters stand for names, the last one for the answer
clean     BOS Then , C , A and B went to the office . A and B gave a kiss to      -> C
corrupted BOS Then , D , A and B went to the office . A and B gave a kiss to      -> D
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Int
from numpy import ndarray
from torch import Tensor

from experiments.tasks.associative_recall import draw_distinct
from experiments.tasks.pair_formats import Format, letters
from experiments.tasks.prompt_pairs import OUT, PADDING, PromptPairs, generator

PLACES = ("store", "garden", "restaurant", "school", "hospital", "office", "house", "station")
OBJECTS = ("apple", "kiss", "bone", "basketball", "computer", "necklace", "drink", "snack")
Encode = Callable[[str], Sequence[int]]
"""The tokens of a piece of text; a blank belongs to the word after it."""
_SLOT = re.compile(r" \[([NPO])\]")


@dataclass(frozen=True, kw_only=True)
class Grammar:
    """Templates of prompts and what may stand in them, as tokens.

    In a template -1, -2, ... are slots: for the names in their order, then for each token of the
    place, then for each token of the object. Names are single tokens.
    """

    templates: tuple[tuple[int, ...], ...]
    names: tuple[int, ...]
    places: tuple[tuple[int, ...], ...]
    objects: tuple[tuple[int, ...], ...]
    vocab_size: int
    vocabulary: Mapping[int, str] = field(default_factory=dict, repr=False, compare=False)
    """How tokens are written in figures."""

    def __post_init__(self) -> None:
        if len(set(self.names)) < len(self.names):
            raise ValueError("names must be different tokens")
        for name, fillers in (("places", self.places), ("objects", self.objects)):
            if len(set(map(len, fillers))) != 1:
                raise ValueError(f"{name} must all have the same number of tokens, got {fillers}")
        slots = len(self.places[0]) + len(self.objects[0])
        kinds = {tuple(sorted(-t for t in template if t < 0)) for template in self.templates}
        expected = tuple(range(1, max((len(kind) for kind in kinds), default=0) + 1))
        if kinds != {expected} or len(expected) < slots + 2:
            raise ValueError(
                "templates must each have the slots -1, -2, ... once: two names or more and "
                f"{slots} for place and object, got {self.templates}"
            )

    def words(self, tokens: Int[Tensor, " length"]) -> list[str]:
        """How the tokens are written; the number of one without a spelling."""
        return [self.vocabulary.get(token, str(token)) for token in tokens.tolist()]

    def pairs(
        self,
        rng: np.random.Generator,
        count: int,
        *,
        templates: tuple[int, ...],
        formats: Mapping[int, Format],
    ) -> PromptPairs:
        """Pairs with uniform template, format, names, place and object.

        The letters of a format stand for names drawn without replacement. Roles: n1, n2, ... for
        the names, and out. Candidates: the names of both prompts.
        """
        numbers = np.array(list(formats))
        clean = np.array([letters(format.clean) for format in formats.values()])
        corrupted = np.array([letters(format.corrupted) for format in formats.values()])
        which = rng.integers(len(numbers), size=count)
        people = self._people(rng, count, int(max(clean.max(), corrupted.max())) + 1)
        template, fillers = self._fillers(rng, count, templates)
        first, second = (
            np.take_along_axis(people, each[which], axis=1) for each in (clean, corrupted)
        )
        used = np.maximum(clean.max(axis=1), corrupted.max(axis=1))[which]
        slots = self._rows(templates)[template]
        roles = {
            f"n{i}": torch.from_numpy((slots == -i).argmax(axis=1))
            for i in range(1, clean.shape[1])
        }
        return PromptPairs(
            clean=torch.from_numpy(_filled(slots, first[:, :-1], fillers)),
            corrupted=torch.from_numpy(_filled(slots, second[:, :-1], fillers)),
            answer=torch.from_numpy(first[:, -1].copy()),
            corrupted_answer=torch.from_numpy(second[:, -1].copy()),
            candidates=torch.from_numpy(
                np.where(np.arange(people.shape[1]) <= used[:, None], people, -1)
            ),
            roles=roles | {OUT: torch.from_numpy(self._ends(templates)[template])},
            meta={
                "format": torch.from_numpy(numbers[which]),
                "template": torch.from_numpy(np.array(templates)[template]),
            },
            vocab_size=self.vocab_size,
        )

    def sequences(
        self,
        rng: np.random.Generator,
        count: int,
        *,
        templates: tuple[int, ...],
        arrangements: tuple[str, ...],
    ) -> tuple[Int[Tensor, "sequences length"], Int[Tensor, " sequences"]]:
        """Prompts with uniform arrangement of names, their answers behind them."""
        order = np.array([letters(arrangement) for arrangement in arrangements])
        which = rng.integers(len(order), size=count)
        people = self._people(rng, count, int(order.max()) + 1)
        template, fillers = self._fillers(rng, count, templates)
        named = np.take_along_axis(people, order[which], axis=1)
        slots, ends = self._rows(templates)[template], self._ends(templates)[template]
        prompts = _filled(slots, named[:, :-1], fillers)
        tokens = np.pad(prompts, ((0, 0), (0, 1)), constant_values=PADDING)
        tokens[np.arange(count), ends + 1] = named[:, -1]
        return torch.from_numpy(tokens), torch.from_numpy(ends)

    def _people(self, rng: np.random.Generator, count: int, n: int) -> Int[ndarray, "{count} {n}"]:
        return np.array(self.names)[draw_distinct(rng, count, n, among=len(self.names))]

    def _fillers(
        self, rng: np.random.Generator, count: int, templates: tuple[int, ...]
    ) -> tuple[Int[ndarray, " {count}"], Int[ndarray, "{count} tokens"]]:
        """Which of these templates, and the tokens of place and object."""
        drawn = [
            np.array(each)[rng.integers(len(each), size=count)]
            for each in (self.places, self.objects)
        ]
        return rng.integers(len(templates), size=count), np.concatenate(drawn, axis=1)

    def _rows(self, templates: tuple[int, ...]) -> Int[ndarray, "templates length"]:
        chosen = [self.templates[i] for i in templates]
        width = max(map(len, chosen))
        return np.array([row + (PADDING,) * (width - len(row)) for row in chosen])

    def _ends(self, templates: tuple[int, ...]) -> Int[ndarray, " templates"]:
        return np.array([len(self.templates[i]) - 1 for i in templates])


class GrammarTask:
    """Base of the tasks whose prompts are of a grammar: frozen dataclasses with these attributes.

    It is no dataclass itself, or its fields would come first in the `repr` of a task, which seeds
    what the task draws.
    """

    grammar: Grammar
    templates: tuple[int, ...]
    """Numbers of those of the grammar that prompts are drawn of."""
    formats: tuple[int, ...]
    """Numbers of those of `known_formats` that pairs are drawn of."""
    known_formats: tuple[Format, ...]
    arrangements: tuple[str, ...]
    """Of the names of prompts to train on, and of their answers, as letters."""

    @property
    def vocab_size(self) -> int:
        """Number of tokens."""
        return self.grammar.vocab_size

    def words(self, tokens: Int[Tensor, " length"]) -> list[str]:
        """How the tokens are written."""
        return self.grammar.words(tokens)

    def pairs(self, count: int, *, seed: int) -> PromptPairs:
        """Independent pairs; another seed, other ones."""
        rng = generator(self, count=count, seed=seed, kind="pairs")
        formats = {i: self.known_formats[i] for i in self.formats}
        return self.grammar.pairs(rng, count, templates=self.templates, formats=formats)

    def sequences(
        self, count: int, *, seed: int
    ) -> tuple[Int[Tensor, "sequences length"], Int[Tensor, " sequences"]]:
        """Prompts followed by their answers, and the positions of the last tokens before them."""
        rng = generator(self, count=count, seed=seed, kind="sequences")
        return self.grammar.sequences(
            rng, count, templates=self.templates, arrangements=self.arrangements
        )


def compiled(
    text: str, encode: Encode, *, bos: int, place_tokens: int = 1, object_tokens: int = 1
) -> tuple[int, ...]:
    """A template of a `Grammar` from its text, where [N], [P] and [O] stand for the slots."""
    pieces = _SLOT.split(text)
    names = text.count("[N]")
    places = range(names + 1, names + 1 + place_tokens)
    objects = range(places.stop, places.stop + object_tokens)
    free = iter(range(1, names + 1))
    row = [bos, *encode(pieces[0])]
    for kind, behind in zip(pieces[1::2], pieces[2::2], strict=True):
        slots = [next(free)] if kind == "N" else {"P": places, "O": objects}[kind]
        row += [*(-slot for slot in slots), *encode(behind)]
    return tuple(row)


def _filled(
    slots: Int[ndarray, "prompts length"],
    names: Int[ndarray, "prompts names"],
    fillers: Int[ndarray, "prompts fillers"],
) -> Int[ndarray, "prompts length"]:
    values = np.concatenate([names, fillers], axis=1)
    found = np.take_along_axis(values, np.maximum(-slots - 1, 0), axis=1)
    return np.where(slots < 0, found, slots)
