"""What a run says about pairs of prompts: logit differences, accuracies, probabilities.

Logits are those at the last token of each prompt; copies of the pairs come first.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from experiments.tasks.prompt_pairs import PromptPairs


def logit_difference(
    logits: Float[Tensor, "*copies pairs vocabulary"], pairs: PromptPairs
) -> Float[Tensor, "*copies pairs"]:
    """Logit of the answer to the clean prompt minus that of the answer to the corrupted one."""
    return _at(logits, pairs.answer) - _at(logits, pairs.corrupted_answer)


def normalised(
    difference: Float[Tensor, "*copies pairs"],
    clean: Float[Tensor, " pairs"],
    corrupted: Float[Tensor, " pairs"],
    *,
    absolute: bool = True,
) -> Float[Tensor, "*copies pairs"]:
    r"""(LD - LD_corrupted) / |LD_clean - LD_corrupted|, 1 where that is 0.

    1 is like the clean run, 0 like the corrupted one; nothing is clipped. Where the model prefers
    the wrong answer in the clean run, the absolute value makes the clean run -1, so that becoming
    more wrong is no gain; without `absolute` it is 1 there too (Ensign and Garriga-Alonso 2024,
    section 3).
    """
    span = clean - corrupted
    if absolute:
        span = span.abs()
    return (difference - corrupted) / torch.where(span == 0, 1.0, span)


def pair_accuracy(
    logits: Float[Tensor, "*copies pairs vocabulary"], pairs: PromptPairs
) -> Bool[Tensor, "*copies pairs"]:
    """Whether the answer has a larger logit than the answer to the corrupted prompt."""
    return logit_difference(logits, pairs) > 0


def candidate_accuracy(
    logits: Float[Tensor, "*copies pairs vocabulary"], pairs: PromptPairs
) -> Bool[Tensor, "*copies pairs"]:
    """Whether the answer has a larger logit than every other candidate of its pair."""
    answer = (pairs.candidates == pairs.answer[:, None]).to(logits.device)
    others = _candidates(logits, pairs).masked_fill(answer, -torch.inf)
    return _at(logits, pairs.answer) > others.amax(dim=-1)


def accuracy(
    logits: Float[Tensor, "*copies pairs vocabulary"], pairs: PromptPairs
) -> Bool[Tensor, "*copies pairs"]:
    """Whether the answer has the largest logit of all tokens."""
    return logits.argmax(dim=-1) == pairs.answer.to(logits.device)


def relative_probability(
    logits: Float[Tensor, "*copies pairs vocabulary"], pairs: PromptPairs
) -> Float[Tensor, "*copies pairs"]:
    """Probability of the answer among the candidates of its pair."""
    return torch.exp(_at(logits, pairs.answer) - _candidates(logits, pairs).logsumexp(dim=-1))


def _at(logits: Tensor, tokens: Tensor) -> Tensor:
    return logits[..., torch.arange(len(tokens)), tokens.to(logits.device)]


def _candidates(logits: Tensor, pairs: PromptPairs) -> Tensor:
    """Logits of the candidates, minus infinity where a pair has fewer."""
    tokens = pairs.candidates.to(logits.device)
    rows = torch.arange(len(tokens))[:, None]
    return logits[..., rows, tokens].masked_fill(tokens < 0, -torch.inf)
