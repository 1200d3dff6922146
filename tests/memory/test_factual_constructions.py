"""Transformers built by hand recall everything where they should, and fail as predicted."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from memory.factual_capacity import attention_only_dimension, attention_only_error
from memory.factual_constructions import (
    attention_only,
    attention_with_mlp,
    fact_kernel,
    fitted_features,
)
from memory.factual_recall import FactualRecall, draw_task
from memory.factual_transformer import FactualTransformer, accuracy, recalled
from tests.laws import as_users_call
from tests.memory import laws

DOUBLE = torch.float64


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small(seed: int = 0, **sizes: int) -> FactualRecall:
    return draw_task(**(dict(S=7, R=3, D=2, noise=8, length=7, seed=seed) | sizes))


def large_enough(task: FactualRecall) -> int:
    return int(float(attention_only_dimension(S=task.S, R=task.R, D=task.D, delta=0.01)))


def mlp_of(task: FactualRecall, activation: str, d: int = 40, **options) -> FactualTransformer:
    width = task.S * task.R * (2 if activation == "quadratic" else 1)
    return attention_with_mlp(task, d, 3, width, activation=activation, **options)


@pytest.mark.parametrize("head_dim", [1, 3, 16])
@pytest.mark.parametrize("answers", ["random", "structured"])
def test_attention_alone_recalls_every_prompt(head_dim, answers):
    task = small(answers=answers, noise=2)
    model = attention_only(task, large_enough(task), head_dim)
    everything, probabilities = draw_task(
        S=7, R=3, D=2, noise=2, length=5, answers=answers
    ).population()
    assert len(probabilities) == 21 * 12 * 4
    assert recalled(model, everything).all()
    heads = math.ceil(7 / head_dim) + math.ceil(3 / head_dim)
    assert model.counted_parameters == 4 * heads * head_dim * large_enough(task)
    assert model.mlp_parameters == 0


@pytest.mark.parametrize("activation", ["relu", "quadratic"])
def test_attention_with_an_mlp_recalls_every_prompt(activation):
    for seed in range(3):
        task = small(seed)
        model = mlp_of(task, activation, seed=seed)
        prompts = task.sample(500, generator())
        assert recalled(model, prompts).all()
        laws.close(  # the whole output is the embedding of the answer: the direct path is taken out
            model(prompts.tokens), (model.unembedding @ model.unembedding.mT)[prompts.answer], 1e-4
        )


def head_outputs(model: FactualTransformer, tokens: Tensor) -> Tensor:
    """What each head adds to the output, (prompts, heads, d)."""
    read = model.heads_output(tokens).unflatten(1, model.value.shape[:2])
    return torch.einsum("nhk,hkd->nhd", read, model.output)


def test_heads_add_the_vector_of_their_token_and_else_nothing():  # P10
    task = small()
    model = attention_only(task, 40, 3)
    prompts = task.sample(200, generator())
    found = head_outputs(model, prompts.tokens)
    expected = torch.zeros_like(found)
    u, rows = model.unembedding, torch.arange(200)
    expected[rows, prompts.subject // 3] = u[task.answers[prompts.subject]].sum(dim=1)
    expected[rows, 3 + prompts.relation // 3] = u.view(3, 2, -1).sum(dim=1)[prompts.relation]
    laws.close(found, expected, 1e-9)


def test_duals_read_one_token_and_not_eos():  # P10
    task = small()
    model = attention_only(task, 40, 3)
    for head, group in enumerate((range(3), range(3, 6), range(6, 7), range(7, 10))):
        read = model.value[head, : len(group)] @ model.embedding[[*group, task.eos]].mT
        expected = torch.eye(len(group), len(group) + 1, dtype=DOUBLE)
        laws.close(read, expected, 1e-10)


@pytest.mark.parametrize("separator", ["exact", "margin"])
def test_noise_and_places_only_leak(separator):  # P12
    task = small()
    model = attention_only(task, 40, 3, separator=separator)
    pairs = task.every_fact(generator())
    other = task.ask(pairs.subject, pairs.relation, generator(1))
    assert (model(other.tokens) - model(pairs.tokens)).abs().max() < 1e-9
    warm = attention_only(task, 40, 3, separator=separator, inverse_temperature=18.0, enforce=False)
    moved = (warm(other.tokens) - warm(pairs.tokens)).abs().max()
    assert 1e-9 < moved < 0.05


@pytest.mark.parametrize(
    ("build", "named"),
    [("attention", "attention"), ("relu", "mlp"), ("quadratic", "mlp")],
)
def test_knocking_out_the_named_memory_destroys_recall(build, named):
    task = small(S=12, D=4)
    d = large_enough(task) if build == "attention" else 40
    model = attention_only(task, d, 3) if build == "attention" else mlp_of(task, build)
    prompts, reference = task.every_fact(generator()), task.sample(400, generator(1)).tokens

    def without(path: str) -> float:
        return accuracy(lambda tokens: model.knocked_out(tokens, path, reference), prompts)

    assert accuracy(model, prompts) == 1
    assert without(named) < 0.35  # of 12 answers, one may be that of several facts
    if named == "mlp":
        assert without("attention") > 0.9
    else:
        most = prompts.answer.bincount().max().item() / len(prompts)
        assert without(named) <= most


def test_long_codes_would_answer_by_themselves():
    """Control for the above: the direct path must be short not to move answers."""
    task = small(S=12, D=4)
    model = mlp_of(task, "relu")
    model.value.data *= 50
    model.hidden.data /= 50  # the same hidden layer; only the direct path is longer now
    assert accuracy(model, task.every_fact(generator())) < 0.5


def mean_error(d: int, seeds: range, **sizes: int) -> float:
    errors = []
    for seed in seeds:
        task = small(seed, **sizes)
        model = attention_only(task, d, 4, seed=seed)
        errors.append(1 - accuracy(model, task.every_fact(generator(seed))))
    return sum(errors) / len(errors)


def test_errors_of_attention_fall_with_d_as_predicted():  # P23
    sizes = dict(S=8, R=8, D=4, noise=8)
    found = [mean_error(d, range(16), **sizes) for d in (32, 64, 128)]
    assert found[0] > found[1] > found[2]
    for error, d in zip(found, (32, 64, 128), strict=True):
        assert error == pytest.approx(attention_only_error(R=8, D=4, d=d), rel=0.35)


def test_wrong_answers_are_of_the_subject_or_of_the_relation():  # P23
    task = small(S=16, R=8, D=4, noise=8)
    model = attention_only(task, 100, 4)
    prompts = task.every_fact(generator())
    answered = model(prompts.tokens).argmax(dim=1)
    wrong = answered != prompts.answer
    near = (answered // task.D == prompts.relation) | (
        task.answers[prompts.subject] == answered[:, None]
    ).any(dim=1)
    assert wrong.any()
    assert near[wrong].double().mean() > 0.9


def test_too_few_hidden_units_lose_facts():
    task = small(S=16, R=4, D=4, noise=8)
    prompts = task.every_fact(generator())
    found = [
        accuracy(attention_with_mlp(task, 40, 4, width, enforce=False), prompts)
        for width in (8, 24, 64)
    ]
    assert found[0] < found[1] < found[2] == 1


def test_products_of_codes_have_limited_rank():
    """More quadratic units do not help once all products of codes are used up."""
    task = small(S=24, R=4, D=4, noise=8)
    model = attention_with_mlp(task, 40, 4, 400, activation="quadratic", enforce=False)
    attended = model.attended(task.every_fact(generator()).tokens)
    features = fitted_features(model, attended)
    assert torch.linalg.matrix_rank(features, rtol=1e-7) == 20 * 4 < 96
    with pytest.raises(ValueError, match=r"S\*R = 96 independent features .*, got 80"):
        attention_with_mlp(task, 40, 4, 400, activation="quadratic")


def test_the_kernel_is_a_projection():  # P9
    task = small()
    model = mlp_of(task, "relu", enforce=True)
    prompts = task.every_fact(generator())
    laws.close(fact_kernel(model, prompts), torch.eye(21, dtype=DOUBLE), 1e-5)
    few = attention_with_mlp(task, 40, 3, 9, enforce=False)
    K = fact_kernel(few, prompts)
    assert K.trace().item() == pytest.approx(9, abs=1e-5)
    laws.close(K @ K, K, 1e-5)


def test_a_naive_separator_fails():
    task = small(S=24, R=8, noise=24, length=16)
    prompts = task.every_fact(generator())
    with pytest.raises(ValueError, match=r"separator 'naive' must leave a gap of 0.25 .* at d=64"):
        attention_with_mlp(task, 64, 8, 192, separator="naive")
    naive = attention_with_mlp(task, 64, 8, 192, separator="naive", enforce=False)
    assert accuracy(naive, prompts) < 0.9
    assert accuracy(attention_with_mlp(task, 64, 8, 192), prompts) == 1
    few = draw_task(S=2, R=2, D=2, noise=2, length=4)
    wide = attention_only(few, 4000, 1, separator="naive")
    assert accuracy(wide, few.every_fact(generator())) == 1


def test_too_warm_attention_fails():
    task = small()
    prompts = task.every_fact(generator())
    with pytest.raises(ValueError, match=r"inverse_temperature must be at least 31.21"):
        mlp_of(task, "relu", inverse_temperature=2.0)
    found = [
        accuracy(mlp_of(task, "relu", inverse_temperature=beta, enforce=False), prompts)
        for beta in (0.5, 4.0, 32.0)
    ]
    assert found[0] < found[1] < found[2] == 1
    # Sums of answers have no code to be read: heads that barely look are nearly enough.
    warm = attention_only(task, large_enough(task), 3, inverse_temperature=0.5, enforce=False)
    assert accuracy(warm, prompts) > 0.9


def test_a_vocabulary_beyond_d_needs_a_margin():
    task = small(S=30, R=3, noise=30)  # 64 tokens
    with pytest.raises(ValueError, match=r"at least the vocabulary, 64 tokens, .* got 48"):
        attention_with_mlp(task, 48, 6, 90)
    model = attention_with_mlp(task, 48, 6, 90, separator="margin")
    assert accuracy(model, task.every_fact(generator())) == 1
    with pytest.raises(ValueError, match="d must be large enough to tell 12 tokens from"):
        attention_with_mlp(task, 20, 12, 90, separator="margin")


def test_heads_hold_fewer_tokens_than_dimensions():
    with pytest.raises(ValueError, match="at most d - 1 = 6 tokens to a head, got 7"):
        attention_with_mlp(small(), 7, 8, 21)
    message = "one of 'exact', 'margin', 'naive', got 'none'"
    with as_users_call(), pytest.raises(ValueError, match=message):
        attention_only(small(), 40, 3, separator="none")
    with pytest.raises(ValueError, match=r"inverse_temperature must be a finite number > 0"):
        attention_only(small(), 40, 3, inverse_temperature=0.0, enforce=False)


def test_seeds_and_types():
    task = small()
    one, again, other = (attention_only(task, 40, 3, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(one.output, again.output)
    assert not torch.equal(one.output, other.output)
    single = attention_only(task, 300, 3, dtype=torch.float32)
    assert single.output.dtype == torch.float32
    assert accuracy(single, task.every_fact(generator())) == 1
