"""Which names a tokenizer allows."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.tasks.ioi_names import of_common_length, read_names, read_tokenizer, usable_names
from experiments.tasks.sequences import DataFileError

SINGLE = {" Mary": 7, " Chris": 8, " Christine": 9, " Jesus": 10, " Ann": 11, " Anna": 12}


def encode(text):
    """Some words are one token; all others one for each letter."""
    return [SINGLE[text]] if text in SINGLE else [100 + ord(letter) for letter in text]


def test_golden_names():
    """Chris and Ann begin longer names, Zoe is four tokens, Jesus is out, Mary is there twice."""
    names = ["Mary", "Chris", "Christine", "Jesus", "Mary", "Zoe", "Anna", "Ann"]
    assert usable_names(names, encode) == {"Mary": 7, "Christine": 9, "Anna": 12}
    # A name that is no single token drops none that it begins with.
    assert usable_names(["Ann", "Annabel"], encode) == {"Ann": 11}
    # Negative control: without the blank the tokens are others, and no name is left.
    assert usable_names(names, lambda text: encode(text.strip())) == {}


@settings(max_examples=60)
@given(st.lists(st.text("abc", min_size=1, max_size=4), max_size=12), st.integers(0, 4))
def test_usable_names_begin_no_other_and_nothing_else_is_dropped(names, longest):
    def by_length(text):
        return [0] if len(text) <= longest + 1 else [0, 1]

    kept = list(usable_names(names, by_length))
    single = {name for name in names if len(name) <= longest}
    assert len(set(kept)) == len(kept)
    assert kept == sorted(kept, key=names.index)
    for name in single:
        beside = [other for other in single if other != name and other.startswith(name)]
        assert (name in kept) == (not beside)
        # What drops a name leads, perhaps in steps, to one that is kept.
        assert any(other.startswith(name) for other in kept)
    assert set(kept) <= single


def test_fillers_have_the_most_common_length_and_of_equals_the_smallest():
    sizes = {" a": 1, " b": 2, " c": 2, " d": 3}

    def sized(text):
        return list(range(sizes[text]))

    assert of_common_length("abcd", sized) == {"b": (0, 1), "c": (0, 1)}
    assert of_common_length("dcb", sized) == {"c": (0, 1), "b": (0, 1)}
    assert of_common_length("dca", sized) == {"a": (0,)}


def test_files_that_are_missing_or_damaged_are_named(tmp_path):
    with pytest.raises(DataFileError, match=r"must have a file names\.txt, one name a line"):
        read_names(tmp_path)
    with pytest.raises(DataFileError, match=r"must have a file tokenizer\.json"):
        read_tokenizer(tmp_path)
    (tmp_path / "names.txt").write_text(" Mary \n\nAnn\r\n", encoding="utf-8")
    assert read_names(tmp_path) == ["Mary", "Ann"]
    (tmp_path / "names.txt").write_bytes(b"Zo\xeb\n")
    with pytest.raises(DataFileError, match=r"names\.txt: cannot be read as names"):
        read_names(tmp_path)


def test_a_damaged_tokenizer_is_named(tmp_path):
    pytest.importorskip("tokenizers")
    (tmp_path / "tokenizer.json").write_text("{}", encoding="utf-8")
    with pytest.raises(DataFileError, match=r"tokenizer\.json: cannot be read as a tokenizer"):
        read_tokenizer(tmp_path)


def test_without_the_library_its_name_is_given(tmp_path, monkeypatch):
    (tmp_path / "tokenizer.json").write_text("{}", encoding="utf-8")
    monkeypatch.setitem(__import__("sys").modules, "tokenizers", None)
    with pytest.raises(DataFileError, match=r"pip install .seqtheory\[text\]"):
        read_tokenizer(tmp_path)
