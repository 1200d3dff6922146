"""Treecall: answers, splits, the law of the questions, and what the sentences look like."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.tasks.recall import IGNORED, Documents
from experiments.tasks.recall_baselines import baselines
from experiments.tasks.tree_grammar import TreeGrammar
from experiments.tasks.tree_recall import TreeRecall

SPLITS = ("train", "validation", "test")
TASKS = st.builds(
    TreeRecall,
    grammar=st.builds(
        TreeGrammar,
        seed=st.integers(0, 20),
        num_terminals=st.integers(10, 60),
        head=st.sampled_from(("right", "left")),
    ),
    relation=st.sampled_from(("parent", "sibling")),
    queries=st.sampled_from((1, 2, 5, 40)),
    held_out=st.sampled_from((0.0, 0.2, 0.5)),
    max_length=st.integers(12, 30),
)


def relatives(relation, sentence, parent):
    """Answer to each token, for its last occurrence, if it has an answer."""
    last = {token: i for i, token in enumerate(sentence)}
    answers = {}
    for token, i in last.items():
        if parent[i] < 0:
            continue
        at = parent[i]
        if relation == "sibling":
            at = max(j for j, p in enumerate(parent) if p == parent[i])
        answers[token] = at
    return answers


@settings(max_examples=50)
@given(TASKS, st.integers(0, 50), st.sampled_from(SPLITS))
def test_every_question_has_one_answer(task, seed, split):
    documents = task.sample(5, seed=seed, split=split)
    assert torch.equal(task.solve(documents), documents.answer)
    meta = documents.meta
    for i, (row, targets) in enumerate(
        zip(documents.tokens.tolist(), documents.targets.tolist(), strict=True)
    ):
        length, count = int(meta["length"][i]), int(meta["questions"][i])
        assert 3 <= length <= task.max_length
        sentence, end = row[1 : length + 1], row[length + 2 :]
        assert (row[0], row[length + 1]) == (1, 2)
        assert all(3 <= token < task.vocab_size for token in sentence)
        parent = meta["parent"][i].tolist()
        assert [p for p in parent[:1] + parent[length + 1 :] if p != -1] == []
        inside = [p - 1 if p > 0 else -1 for p in parent[1 : length + 1]]
        answers = relatives(task.relation, sentence, inside)
        last = {token: at for at, token in enumerate(sentence)}
        allowed = task.combinations.allowed(
            np.array([token - 3 for token in answers], dtype=int),
            np.array([sentence[at] - 3 for at in answers.values()], dtype=int),
            split,
        )
        possible = {
            token
            for (token, at), free in zip(answers.items(), allowed, strict=True)
            if free and (task.relation == "parent" or last[sentence[at]] == at)
        }
        asked, end = end[:count], end[count:]
        assert len(asked) == len(set(asked)) == min(task.queries, len(possible))
        assert set(asked) <= possible
        right = [sentence[answers[token]] for token in asked]
        assert targets[length + 2 : length + 2 + count] == right
        assert sum(target != IGNORED for target in targets) == count
        assert [token for token in end if token] == ([*right, 2] if task.queries == 1 else [])


@settings(max_examples=50)
@given(TASKS, st.integers(0, 50))
def test_positions_name_the_right_tokens(task, seed):
    documents = task.sample(5, seed=seed)
    tokens, at, meta = documents.tokens, documents.positions, documents.meta
    token = {name: tokens.gather(1, p.clamp(min=0)[:, None]).squeeze(1) for name, p in at.items()}
    assert torch.equal(token["key"], token["query"])
    assert torch.equal(token["value"], documents.answer)
    assert (token["bos"] == 1).all()
    assert (token["divider"] == 2).all()
    assert torch.equal(at["divider"], meta["length"] + 1)
    assert torch.equal(at["query"], at["divider"] + 1)
    assert torch.equal(meta["distance"], (at["value"] - at["key"]).abs())
    above = meta["parent"].gather(1, at["key"][:, None]).squeeze(1)
    if task.relation == "parent":
        assert torch.equal(at["value"], above)
    else:
        assert torch.equal(meta["parent"].gather(1, at["value"][:, None]).squeeze(1), above)
    if task.queries == 1:
        assert torch.equal(token["answer"], documents.answer)
    else:
        assert (at["answer"] == -1).all()
    for name, places in at.items():
        assert torch.isin(token[name][places >= 0], task.like(name)).all()


def by_hand(query: int) -> Documents:
    """The sentence `4 3 4 5 6 7` with the parents 1 5 5 4 5 -, asked about one of its tokens."""
    tokens = torch.tensor([[1, 4, 3, 4, 5, 6, 7, 2, query]])
    return Documents(
        tokens=tokens,
        targets=torch.tensor([[IGNORED] * 8 + [0]]),
        positions={"query": torch.tensor([8])},
        meta={
            "parent": torch.tensor([[-1, 2, 6, 6, 5, 6, -1, -1, -1]]),
            "length": torch.tensor([6]),
        },
        vocab_size=23,
    )


@pytest.mark.parametrize(
    ("query", "parent", "sibling"), [(3, 7, 6), (4, 7, 6), (5, 6, 5), (6, 7, 6), (7, -1, -1),
                                     (8, -1, -1), (2, -1, -1), (1, -1, -1)]
)  # fmt: skip
def test_answers_by_hand(query, parent, sibling):
    """4 counts where it stands last; the root, the divider and absent tokens have no answer."""
    assert TreeRecall().solve(by_hand(query)).item() == parent
    assert TreeRecall(relation="sibling").solve(by_hand(query)).item() == sibling


def test_changed_documents_answer_something_else():
    task = TreeRecall(grammar=TreeGrammar(num_terminals=500, terminal_weight=20.0), max_length=30)
    documents = task.sample(200, seed=0)
    unused = torch.full((200, 1), task.vocab_size)

    def put(name):
        changed = documents.tokens.scatter(1, documents.positions[name][:, None], unused)
        return task.solve(replace(documents, tokens=changed, vocab_size=task.vocab_size + 1))

    assert (put("value") == task.vocab_size).all()
    assert (put("query") == -1).all()
    # Without its last occurrence an earlier one of the token counts, if there is one.
    repeated = documents.tokens == documents.tokens.gather(1, documents.positions["query"][:, None])
    earlier = (repeated.long().cumsum(1).gather(1, documents.positions["key"][:, None]) > 1)[:, 0]
    answers = put("key")
    assert (answers[~earlier] == -1).all()
    assert (~earlier).any()


def held_out_questions(task, documents):
    row, at = documents.asked.nonzero().T
    asked, answers = documents.tokens[row, at].numpy(), documents.targets[row, at].numpy()
    return task.combinations.allowed(asked - 3, answers - 3, "test")


@pytest.mark.parametrize("relation", ["parent", "sibling"])
def test_held_out_combinations_are_asked_about_in_the_test_split_only(relation):
    task = TreeRecall(relation=relation, queries=4, held_out=0.2)
    for split in SPLITS:
        questions = held_out_questions(task, task.sample(300, seed=0, split=split))
        assert questions.all() if split == "test" else not questions.any()
    free = replace(task, held_out=0.0).sample(300, seed=0)
    assert 0.05 < held_out_questions(task, free).mean() < 0.5


@settings(max_examples=10)
@given(TASKS, st.integers(0, 50))
def test_equal_seeds_give_equal_documents_and_other_splits_others(task, seed):
    first, again = (task.sample(20, seed=seed) for _ in range(2))
    assert torch.equal(first.tokens, again.tokens)
    others = [task.sample(20, seed=seed, split=split).tokens for split in SPLITS[1:]]
    for other in (*others, task.sample(20, seed=seed + 1).tokens):
        assert other.shape == first.tokens.shape
        assert not torch.equal(first.tokens, other)


def test_answers_are_drawn_before_questions():
    """How often the question is from a largest family: large ones are no more likely."""
    task = TreeRecall(grammar=TreeGrammar(num_terminals=300, terminal_weight=20.0), max_length=40)
    documents = task.sample(2000, seed=0)
    observed, stated, naive = [], [], []
    for i in range(len(documents)):
        length = int(documents.meta["length"][i])
        sentence = documents.tokens[i, 1 : length + 1].tolist()
        inside = [
            p - 1 if p > 0 else -1 for p in documents.meta["parent"][i, 1 : length + 1].tolist()
        ]
        answers = list(relatives("parent", sentence, inside).values())
        sizes = {at: answers.count(at) for at in answers}
        largest = max(sizes.values())
        if min(sizes.values()) == largest:
            continue
        observed.append(sizes[int(documents.positions["value"][i]) - 1] == largest)
        stated.append(sum(size == largest for size in sizes.values()) / len(sizes))
        naive.append(sum(size for size in sizes.values() if size == largest) / len(answers))
    error = (np.var(observed) / len(observed)) ** 0.5
    assert abs(np.mean(observed) - np.mean(stated)) < 4 * error
    assert abs(np.mean(observed) - np.mean(naive)) > 8 * error


@pytest.mark.parametrize("head", ["right", "left"])
def test_what_holds_for_all_grammars_of_the_published_kind(head):
    """Their numbers are from one grammar each; over grammars only these ranges are stable."""
    for seed in range(4):
        task = TreeRecall(grammar=TreeGrammar(seed=seed, head=head), max_length=256)
        documents = task.sample(600, seed=0)
        lengths, parent = documents.meta["length"].double(), documents.meta["parent"]
        assert 6 < lengths.mean() < 17
        row, at = (parent >= 0).nonzero().T
        families = torch.unique(torch.stack([row, parent[row, at]]), dim=1).shape[1]
        assert 2.1 < len(row) / families < 3.2
        distance = documents.meta["distance"].double()
        assert distance.quantile(0.1) == 1
        assert 1 <= distance.median() <= 3
        assert 5 < distance.quantile(0.99) < 25
        test = task.sample(600, seed=1, split="test")
        rules = baselines(documents, test, answers=task.like("answer"))
        root, neighbour, other = "last token", "right of the query", "left of the query"
        if head == "left":
            root, neighbour, other = "first token", "left of the query", "right of the query"
        assert 0.35 < rules[root] < 0.7
        assert 0.35 < rules[neighbour] < 0.7
        assert rules[other] < 0.15
        assert rules["most frequent"] < 0.15


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"relation": "child"}, "relation must be one of 'parent', 'sibling', got 'child'"),
        ({"queries": 0}, "queries must be a whole number"),
        ({"max_length": 2}, "max_length must be at least 3, got 2"),
        ({"held_out": 0.01}, "held_out must leave every key with values of both kinds"),
    ],
)
def test_bad_arguments_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        TreeRecall(**change)


def test_grammars_without_sentences_are_named():
    chain = TreeGrammar(num_terminals=1, max_rhs=2, max_depth=1)  # two tokens, both the same
    with pytest.raises(ValueError, match="max_length must leave more sentences: 0 of"):
        TreeRecall(grammar=chain).sample(1, seed=0)


def test_unknown_names_of_positions_are_named():
    with pytest.raises(ValueError, match="name must be one of 'bos'"):
        TreeRecall().like("next_key")


def test_no_sentence_is_in_two_splits():
    """Short sentences come again and again; one question about each is all there is to learn."""
    task = TreeRecall(max_length=12)
    seen = {}
    for split, count in (("train", 4000), ("validation", 500), ("test", 500)):
        documents = task.sample(count, seed=0, split=split)
        length = documents.meta["length"]
        rows = zip(documents.tokens.tolist(), length.tolist(), strict=True)
        seen[split] = {tuple(row[1 : n + 1]) for row, n in rows}
    assert len(seen["train"]) < 4000
    assert not seen["train"] & (seen["validation"] | seen["test"])
    assert not seen["validation"] & seen["test"]
