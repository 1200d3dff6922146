"""The prompts in a tokenizer like that of GPT-NeoX, made here: bytes, and merges up to words."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.tasks.ioi import IOI
from experiments.tasks.ioi_grammar import OBJECTS, PLACES
from experiments.tasks.ioi_text import BOS, TokenizedIOI, read_grammar
from experiments.tasks.sequences import DataFileError

tokenizers = pytest.importorskip("tokenizers")

NAMES = ("Mary", "John", "Lauren", "Isaac", "Lucas", "Wesley")
FILLING = (" and", " went", " arrived", " to", " at", " the", " gave", " a", "Then", "When")
OPENERS = ("After", "wards", "F", "riends")


def tokenizer(words, *, pre_tokenizer=None):
    """Byte-level pairs in which each of the words is one token, merged from the left."""
    vocabulary = {BOS: 0}
    for byte in sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()):
        vocabulary[byte] = len(vocabulary)
    merges = {}
    for word in words:
        symbols = word.replace(" ", "Ġ")
        for end in range(2, len(symbols) + 1):
            merges[symbols[: end - 1], symbols[end - 1]] = None
            vocabulary.setdefault(symbols[:end], len(vocabulary))
    made = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocabulary, merges=list(merges)))
    made.add_special_tokens([BOS])
    made.pre_tokenizer = pre_tokenizer or tokenizers.pre_tokenizers.ByteLevel(
        add_prefix_space=False, use_regex=True
    )
    made.decoder = tokenizers.decoders.ByteLevel()
    return made


def write(folder, *, words=(), names=NAMES, **options):
    single = (f" {word}" for word in (*names, *PLACES, *OBJECTS))
    made = tokenizer((*words, *single, *FILLING, *OPENERS), **options)
    made.save(str(folder / "tokenizer.json"))
    (folder / "names.txt").write_text("\n".join(names), encoding="utf-8")
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    write(folder)
    return folder


@pytest.fixture(scope="module")
def grammar(folder):
    return read_grammar(folder)


@settings(max_examples=15)
@given(seed=st.integers(0, 99))
def test_prompts_are_what_the_tokenizer_makes_of_their_texts(folder, grammar, seed):
    task = TokenizedIOI(grammar=grammar)
    made = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    pairs = task.pairs(10, seed=seed)
    for tokens in (pairs.clean, pairs.corrupted):
        for row, end in zip(tokens.tolist(), pairs.out.tolist(), strict=True):
            assert row[0] == made.token_to_id(BOS)
            text = made.decode(row[1 : end + 1])
            assert made.encode(text).ids == row[1 : end + 1]
            people = [word.strip(",") for word in text.split() if word.strip(",") in NAMES]
            assert len(people) == 5
            assert len(set(people)) == 3
    # The same pairs as those of words: only one name is another one, and the answer is the odd one.
    assert (pairs.changed.sum(dim=1) == 1).all()
    answer = (pairs.clean == pairs.answer[:, None]).sum(dim=1)
    assert (answer == 1).all()
    spelled = task.words(pairs.answer)
    assert all(name[0] == " " and name[1:] in NAMES for name in spelled)


def test_positions_are_those_of_the_synthetic_prompts(grammar):
    """Where Afterwards and Friends are two tokens, and all else is one, as in GPT-NeoX."""
    for template in range(4):
        real = TokenizedIOI(grammar=grammar, templates=(template,)).pairs(2, seed=0)
        words = IOI(templates=(template,)).pairs(2, seed=0)
        assert {role: int(at[0]) for role, at in real.roles.items()} == {
            role: int(at[0]) for role, at in words.roles.items()
        }
        assert real.length == words.length


def test_training_prompts_end_with_the_odd_name(grammar):
    task = TokenizedIOI(grammar=grammar)
    tokens, ends = task.sequences(20, seed=0)
    answers = tokens[torch.arange(20), ends + 1]
    assert torch.isin(answers, torch.tensor(grammar.names)).all()
    assert ((tokens == answers[:, None]).sum(dim=1) == 2).all()


def test_fillers_of_several_tokens_take_several_positions(tmp_path):
    """Places that no merge makes one token; those of the most common number are left."""
    single = (f" {word}" for word in (*NAMES, *OBJECTS))
    tokenizer((*single, *FILLING, *OPENERS)).save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "names.txt").write_text("\n".join(NAMES), encoding="utf-8")
    grammar = read_grammar(tmp_path)
    made = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    sizes = [len(made.encode(f" {place}").ids) for place in PLACES]
    common = max(sorted(set(sizes)), key=sizes.count)
    assert {len(place) for place in grammar.places} == {common}
    assert len(grammar.places) == sizes.count(common)
    pairs = TokenizedIOI(grammar=grammar, templates=(0,)).pairs(3, seed=0)
    expected = [3, 5, 7, *(12 + common + i for i in (0, 2, 6))]
    assert [int(at[0]) for at in pairs.roles.values()] == expected


def test_token_ids_can_be_given_by_hand(grammar):
    given_ids = replace(grammar, vocabulary={})
    task, read = TokenizedIOI(grammar=given_ids), TokenizedIOI(grammar=grammar)
    assert torch.equal(task.pairs(5, seed=1).clean, read.pairs(5, seed=1).clean)
    assert task.words(torch.tensor([3])) == ["3"]
    with pytest.raises(ValueError, match="names_of_a_pair must be at most names"):
        TokenizedIOI(grammar=replace(grammar, names=grammar.names[:3]))
    with pytest.raises(ValueError, match="formats must be different numbers from 0 to 4"):
        TokenizedIOI(grammar=grammar, formats=(5,))
    with pytest.raises(ValueError, match="templates must be different numbers from 0 to 3"):
        TokenizedIOI(grammar=grammar, templates=(4,))


def test_names_that_do_not_fit_are_dropped(tmp_path):
    write(tmp_path, names=(*NAMES, "Jesus", "Marylou"))
    with_more = (tmp_path / "names.txt").read_text(encoding="utf-8") + "\nZbigniew\n"
    (tmp_path / "names.txt").write_text(with_more, encoding="utf-8")
    grammar = read_grammar(tmp_path)
    found = [grammar.vocabulary[name].strip() for name in grammar.names]
    assert found == [*NAMES[1:], "Marylou"]  # Mary begins Marylou


def test_too_few_names_and_a_tokenizer_without_a_beginning_are_named(tmp_path):
    write(tmp_path, names=NAMES[:3])
    with pytest.raises(DataFileError, match="four names or more must be single tokens, got Mary"):
        read_grammar(tmp_path)
    path = tmp_path / "tokenizer.json"
    path.write_text(path.read_text(encoding="utf-8").replace(BOS, "<s>"), encoding="utf-8")
    with pytest.raises(DataFileError, match=r"must have the token <\|endoftext\|>"):
        read_grammar(tmp_path)


def test_a_tokenizer_that_joins_words_is_refused(tmp_path):
    """Without cutting text into words first, and with a merge across them."""
    joining = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    write(tmp_path, words=(" the store",), pre_tokenizer=joining)
    with pytest.raises(DataFileError, match="must cut a prompt as its pieces, not so '"):
        read_grammar(tmp_path)
