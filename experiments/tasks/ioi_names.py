"""Which names and fillers a tokenizer allows, and the files they are read from.

Mary  -> one token, kept          Chris -> dropped beside Christine, which begins with it
Zbigniew -> several, dropped      Jesus -> dropped, more often an exclamation than a person

The rules of Ensign and Garriga-Alonso 2024 (arXiv:2407.14008), published code.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.tasks.ioi_grammar import Encode
from experiments.tasks.sequences import DataFileError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TOKENIZER, NAMES = "tokenizer.json", "names.txt"
_NO_NAME = "Jesus"
"""One token, but not what the task means by a name."""


def usable_names(names: Iterable[str], encode: Encode) -> dict[str, int]:
    """The names that are one token behind a blank and begin no other such name; their tokens.

    Repeated names count once; the order is kept.
    """
    tokens = {name: encode(f" {name}") for name in dict.fromkeys(names)}
    single = {name: found[0] for name, found in tokens.items() if len(found) == 1}
    return {
        name: token
        for name, token in single.items()
        if name != _NO_NAME
        and not any(other != name and other.startswith(name) for other in single)
    }


def of_common_length(words: Iterable[str], encode: Encode) -> dict[str, tuple[int, ...]]:
    """The words with the most common number of tokens behind a blank, and their tokens.

    Of numbers that are equally common, the smallest.
    """
    tokens = {word: tuple(encode(f" {word}")) for word in words}
    sizes = Counter(sorted(map(len, tokens.values())))
    (common, _), *_ = sizes.most_common()  # those equally common stay in their order
    return {word: found for word, found in tokens.items() if len(found) == common}


def read_names(folder: Path) -> list[str]:
    """The lines of the names file in this folder, but for empty ones."""
    path = _file(folder, NAMES, "one name a line")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataFileError(f"{path}: cannot be read as names ({error})") from error
    return [line.strip() for line in lines if line.strip()]


def read_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer in this folder; nothing is downloaded."""
    path = _file(folder, TOKENIZER, "a tokenizer of the library tokenizers")
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        missing = "reading a tokenizer needs tokenizers: pip install 'seqtheory[text]'"
        raise DataFileError(f"{path}: {missing}") from error
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing more specific
        raise DataFileError(f"{path}: cannot be read as a tokenizer ({error})") from error


def _file(folder: Path, name: str, what: str) -> Path:
    path = folder / name
    if not path.is_file():
        raise DataFileError(f"{folder}: must have a file {name}, {what}")
    return path
