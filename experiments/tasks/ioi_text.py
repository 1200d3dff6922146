"""Indirect object identification in the tokens of a pretrained model's tokenizer.

clean     <|endoftext|> Friends Lauren, Isaac and Lucas went to the office. Isaac and Lucas gave
          a necklace to                                                             -> Lauren
corrupted <|endoftext|> Friends Wesley, Isaac and Lucas went to the office. Isaac and Lucas gave
          a necklace to                                                             -> Wesley

Ensign and Garriga-Alonso 2024 (arXiv:2407.14008), with the tokenizer of GPT-NeoX.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from bounds import checks
from experiments.tasks.ioi import ARRANGEMENTS, FORMATS, TEMPLATES
from experiments.tasks.ioi_grammar import OBJECTS, PLACES, Grammar, GrammarTask, compiled
from experiments.tasks.ioi_names import of_common_length, read_names, read_tokenizer, usable_names
from experiments.tasks.pair_formats import check_choice
from experiments.tasks.sequences import DataFileError

BOS = "<|endoftext|>"


@dataclass(frozen=True, kw_only=True)
class TokenizedIOI(GrammarTask):
    """`IOI` with tokens of any vocabulary; its grammar has one template for each of `TEMPLATES`.

    Shorter prompts are padded with token 0, which in the tokenizer of GPT-NeoX is also the first
    token of every prompt.
    """

    grammar: Grammar
    templates: tuple[int, ...] = (0, 1, 2, 3)
    formats: tuple[int, ...] = (0, 1, 2, 3, 4)

    known_formats = FORMATS
    arrangements = ARRANGEMENTS

    def __post_init__(self) -> None:
        checks.ordered(names_of_a_pair=4, names=len(self.grammar.names))
        check_choice("templates", self.templates, len(self.grammar.templates))
        check_choice("formats", self.formats, len(FORMATS))


def read_grammar(folder: Path) -> Grammar:
    """The templates in the tokens of the tokenizer in this folder, with the names listed there.

    The folder holds `tokenizer.json` and `names.txt`. Raises DataFileError if it lacks one, if
    fewer than four names are usable, and if the tokenizer cuts a whole prompt in another way than
    its pieces, which would leave the two prompts of a pair with different tokens elsewhere.
    """
    tokenizer = read_tokenizer(folder)
    bos = tokenizer.token_to_id(BOS)
    if bos is None:
        raise DataFileError(f"{folder}: the tokenizer must have the token {BOS}")

    def encode(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False).ids

    names = usable_names(read_names(folder), encode)
    if len(names) < 4:
        raise DataFileError(
            f"{folder}: four names or more must be single tokens, got {', '.join(names) or 'none'}"
        )
    places, objects = of_common_length(PLACES, encode), of_common_length(OBJECTS, encode)
    widths = {
        "place_tokens": len(next(iter(places.values()))),
        "object_tokens": len(next(iter(objects.values()))),
    }
    templates = tuple(compiled(text, encode, bos=bos, **widths) for text in TEMPLATES)
    for text, template in zip(TEMPLATES, templates, strict=True):
        for prompt, fillers in _prompts(text, names, places, objects):
            composed = [fillers[-slot - 1] if slot < 0 else slot for slot in template]
            if [bos, *encode(prompt)] != composed:
                raise DataFileError(
                    f"{folder}: the tokenizer must cut a prompt as its pieces, not so {prompt!r}"
                )
    vocab_size = tokenizer.get_vocab_size()
    return Grammar(
        templates=templates,
        names=tuple(names.values()),
        places=tuple(places.values()),
        objects=tuple(objects.values()),
        vocab_size=vocab_size,
        vocabulary={
            token: tokenizer.decode([token], skip_special_tokens=False)
            for token in range(vocab_size)
        },
    )


def _prompts(
    text: str,
    names: Mapping[str, int],
    places: Mapping[str, tuple[int, ...]],
    objects: Mapping[str, tuple[int, ...]],
) -> Iterator[tuple[str, list[int]]]:
    """Prompts of a template, every name in every slot once, and the tokens in their slots."""
    slots = text.count("[N]")
    for start in range(max(map(len, (names, places, objects)))):
        people = [list(names)[(start + slot) % len(names)] for slot in range(slots)]
        place, thing = (list(each)[start % len(each)] for each in (places, objects))
        prompt = text.replace("[N]", "{}").format(*people)
        tokens = [names[name] for name in people] + [*places[place], *objects[thing]]
        yield prompt.replace("[P]", place).replace("[O]", thing), tokens
