"""Indirect object identification with three names, in a vocabulary of words.

format 0  BOS F riends C , A and B went to the office . A and B gave a drink to      -> C
          BOS F riends D , A and B went to the office . A and B gave a drink to      -> D
format 3  BOS When A , B and C arrived at the store , A and B gave a bone to         -> C
          BOS When A , B and C arrived at the store , A and C gave a bone to         -> B

Ensign and Garriga-Alonso 2024 (arXiv:2407.14008); with two names Wang et al. 2022
(arXiv:2211.00593).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

from bounds import checks
from experiments.tasks.ioi_grammar import OBJECTS, PLACES, Grammar, GrammarTask, compiled
from experiments.tasks.pair_formats import Format, check_choice

TEMPLATES = (
    "Then, [N], [N] and [N] went to the [P]. [N] and [N] gave a [O] to",
    "Afterwards [N], [N] and [N] went to the [P]. [N] and [N] gave a [O] to",
    "When [N], [N] and [N] arrived at the [P], [N] and [N] gave a [O] to",
    "Friends [N], [N] and [N] went to the [P]. [N] and [N] gave a [O] to",
)
FORMATS = (
    Format("CAB AB C", "DAB AB D"),
    Format("ACB AB C", "ADB AB D"),
    Format("ABC AB C", "ABD AB D"),
    Format("ABC AB C", "ABC AC B"),
    Format("ABC AC B", "ABC BC A"),
)
ARRANGEMENTS = tuple(
    f"{first} {again} C" for first in ("CAB", "ACB", "ABC") for again in ("AB", "BA")
)
"""Every slot of the name that comes once, either order of the two that come again."""
BOS = 1
_WORDS = (
    *("PAD", "BOS", "Then", "After", "wards", "When", "F", "riends", ",", "and"),
    *("went", "arrived", "to", "at", "the", ".", "gave", "a"),
)
_SPLIT = {"Afterwards": ("After", "wards"), "Friends": ("F", "riends")}
"""Openers of two tokens, as in the GPT-NeoX tokenizer: names stand where they do there."""


@dataclass(frozen=True, kw_only=True)
class IOI(GrammarTask):
    """Three people, two of them named again; the answer is the third.

    Pairs: formats and templates uniform, of those chosen. In all templates but the third n1 to n5
    stand at 3, 5, 7, 13, 15 and out at 19; there, at 2, 4, 6, 12, 14 and 18. Training sequences
    have the third name in any place and the other two again in any order.
    """

    num_names: int = 24
    templates: tuple[int, ...] = (0, 1, 2, 3)
    formats: tuple[int, ...] = (0, 1, 2, 3, 4)

    known_formats = FORMATS
    arrangements = ARRANGEMENTS

    def __post_init__(self) -> None:
        checks.count(num_names=self.num_names)
        checks.ordered(names_of_a_pair=4, num_names=self.num_names)
        check_choice("templates", self.templates, len(TEMPLATES))
        check_choice("formats", self.formats, len(FORMATS))

    @cached_property
    def grammar(self) -> Grammar:
        """The tokens: padding, words, places, objects, names."""
        return word_grammar(TEMPLATES, num_names=self.num_names)


def word_grammar(templates: tuple[str, ...], *, num_names: int) -> Grammar:
    """These templates in a vocabulary of words, with the names N0, N1, ..."""
    names = tuple(f"N{i}" for i in range(num_names))
    spelled = (*_WORDS, *PLACES, *OBJECTS, *names)
    number = {word: token for token, word in enumerate(spelled)}

    def encode(text: str) -> list[int]:
        found = re.findall(r"\w+|[.,]", text)
        return [number[part] for word in found for part in _SPLIT.get(word, (word,))]

    return Grammar(
        templates=tuple(compiled(text, encode, bos=BOS) for text in templates),
        names=tuple(number[name] for name in names),
        places=tuple((number[place],) for place in PLACES),
        objects=tuple((number[thing],) for thing in OBJECTS),
        vocab_size=len(spelled),
        vocabulary=dict(enumerate(spelled)),
    )
