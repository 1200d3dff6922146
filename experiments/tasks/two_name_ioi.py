"""Indirect object identification with two names, one of which comes again: the other is meant.

ABBA  BOS When A and B arrived at the store , B gave a bone to      -> A
      BOS When A and B arrived at the store , A gave a bone to      -> B
BABA  BOS When B and A arrived at the store , B gave a bone to      -> A

Wang et al. 2022 (arXiv:2211.00593), in the vocabulary of `IOI`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from bounds import checks
from experiments.tasks.ioi import word_grammar
from experiments.tasks.ioi_grammar import Grammar, GrammarTask
from experiments.tasks.pair_formats import Format, check_choice

TEMPLATES = (
    "Then, [N] and [N] went to the [P]. [N] gave a [O] to",
    "Afterwards [N] and [N] went to the [P]. [N] gave a [O] to",
    "When [N] and [N] arrived at the [P], [N] gave a [O] to",
    "Friends [N] and [N] went to the [P]. [N] gave a [O] to",
)
FORMATS = (Format("AB B A", "AB A B"), Format("BA B A", "BA A B"))
"""ABBA and BABA, A being the indirect object of the clean prompt."""


@dataclass(frozen=True, kw_only=True)
class TwoNameIOI(GrammarTask):
    """Two people, one of them named again; the answer is the other.

    Of a pair, the name that comes again is the other one in the corrupted prompt, so that subject
    and indirect object change places; roles are therefore n1, n2, n3 (the name that comes again)
    and out. Formats and templates are uniform, of those chosen.
    """

    num_names: int = 24
    templates: tuple[int, ...] = (0, 1, 2, 3)
    formats: tuple[int, ...] = (0, 1)

    known_formats = FORMATS

    def __post_init__(self) -> None:
        checks.count(num_names=self.num_names)
        checks.ordered(names_of_a_pair=2, num_names=self.num_names)
        check_choice("templates", self.templates, len(TEMPLATES))
        check_choice("formats", self.formats, len(FORMATS))

    @cached_property
    def grammar(self) -> Grammar:
        """The tokens: padding, words, places, objects, names."""
        return word_grammar(TEMPLATES, num_names=self.num_names)

    @property
    def arrangements(self) -> tuple[str, ...]:
        return tuple(FORMATS[i].clean for i in self.formats)
