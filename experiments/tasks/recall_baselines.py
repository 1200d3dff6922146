"""What rules that recall nothing score on a recall task."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

from experiments.tasks.recall import Documents, rightmost


def baselines(
    train: Documents, test: Documents, *, answers: Int[Tensor, " tokens"]
) -> dict[str, float]:
    """Accuracy of simple rules on the first questions of `test`; `answers` are all there can be.

    - "chance": any of the different tokens of the document that can be answers;
    - "most frequent", "most frequent for the query": the most frequent answer in `train`, to any
      question and to this one (to any if it was never asked);
    - "first token", "last token" of the document;
    - "left of the query", "right of the query": the neighbours of the last place in the document
      of the queried token; "right of its first place": of the first one.

    A rule that finds no such token is wrong. Where pairs stand side by side, "right of the query"
    is no shortcut but the task.
    """
    n, length = test.tokens.shape
    if train.vocab_size != test.vocab_size:
        raise ValueError(
            f"train must have the tokens of test: {train.vocab_size} against {test.vocab_size}"
        )
    places = torch.arange(length)
    query = test.positions["query"][:, None]
    none = torch.full((n,), -1)
    divider = test.positions.get("divider", none)[:, None]
    first = test.positions.get("bos", none) + 1
    end = torch.where(divider < 0, query, divider)
    inside = (places >= first[:, None]) & (places < end)
    asked = test.tokens.gather(1, query)
    same = inside & (test.tokens == asked)
    last_place = rightmost(same)
    first_place = length - 1 - rightmost(same.flip(1))
    where = {
        "first token": first,
        "last token": end.squeeze(1) - 1,
        "left of the query": last_place - 1,
        "right of the query": torch.where(last_place < 0, -1, last_place + 1),
        "right of its first place": torch.where(last_place < 0, -1, first_place + 1),
    }
    every = torch.bincount(train.targets[train.asked], minlength=train.vocab_size).argmax()
    given = {
        "most frequent": every.expand(n),
        "most frequent for the query": _most_frequent(train, every)[asked.squeeze(1)],
    }
    for name, at in where.items():
        found = inside.gather(1, at.clamp(min=0)[:, None]) & (at >= 0)[:, None]
        tokens = test.tokens.gather(1, at.clamp(min=0)[:, None])
        given[name] = torch.where(found, tokens, -1).squeeze(1)
    right = {name: (answer == test.answer).double() for name, answer in given.items()}
    right = {"chance": _chance(answers, test, test.tokens.where(inside, -1)), **right}
    return {name: share.mean().item() for name, share in right.items()}


def _most_frequent(train: Documents, every: Int[Tensor, ""]) -> Int[Tensor, " tokens"]:
    """The most frequent answer to each query in `train`; `every` where there is none."""
    queries, answers = train.tokens[train.asked], train.targets[train.asked]
    pairs, counts = torch.unique(torch.stack([queries, answers]), dim=1, return_counts=True)
    order = counts.argsort(stable=True)
    table = every.expand(train.vocab_size).clone()
    for query, answer in pairs[:, order].T.tolist():
        table[query] = answer
    return table


def _chance(
    answers: Int[Tensor, " tokens"], test: Documents, tokens: Int[Tensor, "n length"]
) -> Tensor:
    """One over the number of candidates in the documents, 0 where the answer is none of them."""
    candidates = torch.zeros(test.vocab_size + 1, dtype=torch.bool)  # the last entry is for -1
    candidates[answers] = True
    kept = tokens.where(candidates[tokens], -1).sort(dim=1).values
    different = (kept[:, 1:] != kept[:, :-1]) & (kept[:, 1:] >= 0)
    count = different.sum(dim=1) + (kept[:, 0] >= 0)
    possible = (kept == test.answer[:, None]).any(dim=1)
    return possible / count.clamp(min=1).double()
