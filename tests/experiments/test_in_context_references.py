"""Estimators by task: which there are, what they may see, and that the best one comes first."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch

from experiments.in_context import SETTINGS, curve, errors, final
from experiments.in_context_references import estimate, estimators, reference
from experiments.tasks.outlier_regression import ManyOutliers
from experiments.tasks.sparse_parity import SparseParity

SMALL = [name for name, setting in SETTINGS.items() if setting.task.length <= 100]
SLOW = ("boosted-trees", "network")


@pytest.mark.parametrize("name", SMALL)
def test_the_first_estimator_is_the_best_one(name):
    task = SETTINGS[name].task
    prompts = task.sample(300, seed=0, split="test")
    found = {
        each: curve(estimate(each, prompts, task), prompts, task).nanmean().item()
        for each in estimators(task)
        if each not in SLOW
    }
    best, *others = found.values()
    assert all(best <= other + 1e-9 for other in others)
    assert best < 0.7 * (0.5 if task.signs else 1.0)


@pytest.mark.parametrize("name", ["linear-5", "tree-6", "parity-6", "chain-of-thought-4"])
def test_guesses_do_not_see_the_answer_or_what_follows(name):
    task = SETTINGS[name].task
    prompts = task.sample(20, seed=0)
    changed = prompts.tokens.clone()
    at = int(prompts.at[prompts.scored[4]])
    changed[:, at + 1 :] = task.sample(20, seed=1).tokens[:, at + 1 :]
    later = replace(prompts, tokens=changed)
    for each in estimators(task):
        if each in SLOW or name == "parity-6":  # examples of two parities contradict each other
            continue
        before, after = (estimate(each, p, task)[:, prompts.scored[:5]] for p in (prompts, later))
        assert torch.equal(before.nan_to_num(), after.nan_to_num())


@pytest.mark.parametrize(
    ("setting", "name", "few"),
    [("tree-6", SLOW[0], [1, 2, 4, 8, 16, 32, 39]), ("two-layer-5", SLOW[1], [1, 2, 4, 8, 16, 30])],
)
def test_slow_estimators_guess_at_few_numbers_of_examples(setting, name, few):
    task = SETTINGS[setting].task
    prompts = task.sample(4, seed=0)
    found = curve(estimate(name, prompts, task), prompts, task)
    assert found.isfinite().nonzero()[:, 0].tolist() == few


def test_the_oracle_of_outliers_uses_clean_examples_only():
    task = ManyOutliers(d=3, num_examples=60)
    prompts = task.sample(30, seed=0)
    found = errors(reference(prompts, task), prompts, task)
    enough = prompts.hidden["clean"].cumsum(1) - prompts.hidden["clean"].long() >= 3
    assert found[enough & prompts.hidden["clean"]].max() < 1e-6
    all_of_them = estimate("least-squares", prompts, task)
    assert final(curve(all_of_them, prompts, task)) > 1e-3


def test_the_bayes_rule_of_parities_is_half_wrong_where_supports_are_even():
    task = SparseParity(d=3, sparsity=1, num_examples=5)
    prompts = task.sample(200, seed=0)
    first = errors(reference(prompts, task), prompts, task)[:, 0]
    assert set(first.tolist()) <= {0.0, 1.0}
    assert first.mean().item() == pytest.approx(0.25, abs=0.1)  # 3/4: the sign of the majority


def test_unknown_names_and_tasks_are_named():
    task = SETTINGS["linear-5"].task
    with pytest.raises(ValueError, match="name must be one of 'least-squares'"):
        estimate("lasso", task.sample(2, seed=0), task)

    @dataclass(frozen=True)
    class Other:
        d: int = 2
        d_output: int = 1
        length: int = 4
        scale: float = 1.0
        signs: bool = False

        def sample(self, prompts, *, seed, split="train"):
            raise AssertionError

    with pytest.raises(ValueError, match="no estimators for Other"):
        estimators(Other())
