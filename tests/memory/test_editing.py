"""Edits succeed, and change every other score by exactly what is predicted."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from memory.editing import edit, edited_features, second_moment
from memory.factual_constructions import attention_only, attention_with_mlp
from memory.factual_recall import FactualRecall, Prompts, draw_task
from memory.factual_transformer import FactualTransformer, accuracy, recalled
from tests.laws import as_users_call
from tests.memory import laws


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


TASK = draw_task(S=12, R=4, D=4, noise=8, length=8)


def model(site: str, width: int = 24, seed: int = 0) -> FactualTransformer:
    if site == "attention":
        return attention_only(TASK, 160, 4, seed=seed)
    return attention_with_mlp(TASK, 48, 4, width, seed=seed, enforce=False)


def question(task: FactualRecall, fact: int, fillings: int = 4) -> Prompts:
    subject = torch.full((fillings,), fact // task.R)
    return task.ask(subject, torch.full((fillings,), fact % task.R), generator(fact))


def change(net: FactualTransformer, site: str, fact: int, **options):
    """An edit of the fact to the next answer of its relation."""
    asked = question(TASK, fact)
    old = int(asked.answer[0])
    new = old - old % TASK.D + (old + 1) % TASK.D
    done = edit(net, asked.tokens, old=old, new=new, site=site, **({"margin": 0.2} | options))
    return done, old, new


@pytest.mark.parametrize("site", ["attention", "mlp"])
@pytest.mark.parametrize("plain", [True, False])
def test_an_edit_succeeds_and_changes_others_as_predicted(site, plain):
    net = model(site)
    prompts = TASK.every_fact(generator())
    features = edited_features(net, prompts.tokens, site)
    moment = None if plain else second_moment(features)
    for fact in (0, 17, 42):
        before = net(prompts.tokens).detach()
        done, old, new = change(net, site, fact, moment=moment)
        after = done.model(prompts.tokens).detach()
        laws.close(after - before, done.crosstalk(features), 1e-9)
        scores = after[fact]
        best = scores[torch.arange(TASK.A) != new].max()
        assert (scores[new] - best).item() == pytest.approx(0.2, abs=1e-6)
        assert done.overlap(features)[fact].item() == pytest.approx(1)
        laws.close(done.shift, done.multiple * (net.unembedding[new] - net.unembedding[old]))
        assert torch.equal(net(prompts.tokens), before)  # the model itself is as it was


def test_the_multiple_is_the_smallest():
    net = model("mlp")
    done, _, new = change(net, "mlp", 5)
    less = question(TASK, 5).tokens
    features = edited_features(net, less, "mlp").mean(dim=0, keepdim=True)
    scores = net(less).mean(dim=0) + 0.99 * done.crosstalk(features)[0]
    assert scores[new] - scores[torch.arange(TASK.A) != new].max() < 0.2
    again, _, _ = change(done.model, "mlp", 5)
    assert again.multiple < 1e-6  # nothing left to do


def test_with_a_feature_for_every_fact_others_are_untouched():
    net = model("mlp", width=96)
    prompts = TASK.every_fact(generator())
    features = edited_features(net, prompts.tokens, "mlp")
    done, _, _ = change(net, "mlp", 7, moment=second_moment(features, ridge=1e-12))
    overlap = done.overlap(features)
    assert overlap[torch.arange(48) != 7].abs().max() < 1e-3
    right = recalled(done.model, prompts)
    assert right.sum() == 47
    assert not right[7]
    # Control: the plain outer product is seen by others.
    plain, _, _ = change(net, "mlp", 7)
    assert plain.overlap(features)[torch.arange(48) != 7].abs().max() > 0.1


def test_the_second_moment_protects_others():
    for seed in range(3):
        net = model("mlp", width=40, seed=seed)
        prompts = TASK.every_fact(generator())
        features = edited_features(net, prompts.tokens, "mlp")
        protected, _, _ = change(net, "mlp", 3, moment=second_moment(features))
        plain, _, _ = change(net, "mlp", 3)
        assert protected.score_variance(features) < plain.score_variance(features) / 3
        kept, lost = accuracy(protected.model, prompts), accuracy(plain.model, prompts)
        assert kept >= lost


@settings(max_examples=10)
@given(st.integers(0, 47))
def test_the_edited_fact_may_be_among_the_others_or_not(fact):
    net = model("mlp", width=24)
    tokens = TASK.every_fact(generator()).tokens
    tokens = torch.cat([tokens, question(TASK, fact).tokens])
    features = edited_features(net, tokens, "mlp")
    k = features[-4:].mean(dim=0)
    without = second_moment(features)
    among = without + 3 * torch.outer(k, k)
    one, two = (change(net, "mlp", fact, moment=moment)[0] for moment in (without, among))
    laws.close(one.direction, two.direction, 1e-6)


def test_variance_of_scores_is_that_of_the_law():
    ratios = []
    for seed in range(4):
        net = model("mlp", width=24, seed=seed)
        features = edited_features(net, TASK.every_fact(generator()).tokens, "mlp")
        moment = second_moment(features)
        for fact in range(0, 48, 5):
            done, old, new = change(net, "mlp", fact, moment=moment)
            others = torch.arange(48) != fact
            unrelated = [a for a in range(TASK.A) if a not in (old, new)]
            moved = done.crosstalk(features[others])[:, unrelated].square().mean()
            ratios.append(moved.item() / done.score_variance(features[others]))
    assert sum(ratios) / len(ratios) == pytest.approx(1, abs=0.15)
    # Control: without the division by d it would be another law.
    assert sum(ratios) / len(ratios) != pytest.approx(1 / 48, abs=0.15)


def test_edits_add_up():
    net = model("mlp", width=40)
    prompts = TASK.every_fact(generator())
    features = edited_features(net, prompts.tokens, "mlp")
    moment, predicted, edited = second_moment(features), net(prompts.tokens).detach(), net
    for fact in (1, 20, 33):
        done, _, _ = change(edited, "mlp", fact, moment=moment)
        predicted, edited = predicted + done.crosstalk(features), done.model
    laws.close(edited(prompts.tokens), predicted)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"old": 16}, "old must be an answer from 0 to 15, got 16"),
        ({"new": -1}, "new must be an answer from 0 to 15, got -1"),
        ({"new": 1, "old": 1}, "new must be another answer than old"),
        ({"site": "value"}, "site must be one of 'attention', 'mlp', got 'value'"),
        ({"site": "attention"}, "site must be 'mlp' for a model with an MLP"),
        ({"margin": -0.1}, "margin must be a finite number >= 0"),
    ],
)
def test_bad_edits_are_named(options, named):
    good = dict(old=0, new=1, site="mlp", margin=0.1)
    with as_users_call(), pytest.raises(ValueError, match=named):
        edit(model("mlp"), question(TASK, 0).tokens, **(good | options))


def test_unreachable_margins_are_named():
    net = model("mlp")
    net.unembedding[2] = 2 * net.unembedding[1]  # wins wherever 1 does
    with pytest.raises(ValueError, match="margin must be one that the new answer reaches"):
        edit(net, question(TASK, 0).tokens, old=0, new=1, site="mlp", margin=100.0)
    with pytest.raises(ValueError, match="width must be above 0"):
        edit(model("attention"), question(TASK, 0).tokens, old=0, new=1, site="mlp", margin=0.1)
    with pytest.raises(ValueError, match="ridge must be a finite number > 0"):
        second_moment(torch.ones(2, 2), ridge=0.0)
