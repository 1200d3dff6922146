import json
import math
from pathlib import Path

import pytest
import torch
from torch import nn

from experiments import toys
from experiments.tasks.ioi import IOI
from experiments.tasks.prompt_pairs import PADDING, PairTask
from experiments.toys import TASKS, TOYS, build, loss, trained

STEPS = 3


class Constant(nn.Module):
    """The same logits at every token."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.logits.expand(*tokens.shape, -1)


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(first: nn.Module, second: nn.Module) -> bool:
    pairs = zip(weights(first).items(), weights(second).items(), strict=True)
    return all(a == b and x.equal(y) for (a, x), (b, y) in pairs)


def test_a_toy_is_trained_once_and_then_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    first = trained("toy-2x64", IOI(), seed=0, max_steps=STEPS, folder=tmp_path)
    assert first.steps == STEPS
    assert set(first.accuracies) == {0, STEPS}
    assert not same(first.model, build("toy-2x64", IOI(), seed=0))

    def refused(*args: object, **kwargs: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(toys, "train", refused)
    second = trained("toy-2x64", IOI(), seed=0, max_steps=STEPS, folder=tmp_path)
    assert same(first.model, second.model)
    assert (second.steps, second.accuracies) == (first.steps, first.accuracies)
    for other in (dict(seed=1), dict(max_steps=STEPS + 1)):
        with pytest.raises(AssertionError, match="trained again"):
            trained("toy-2x64", IOI(), folder=tmp_path, **{"seed": 0, "max_steps": STEPS, **other})
    with pytest.raises(AssertionError, match="trained again"):
        trained("toy-2x64", IOI(formats=(0,)), seed=0, max_steps=STEPS, folder=tmp_path)


@pytest.mark.parametrize("spoiled", ["model.safetensors", "training.json", "config.json"])
def test_a_spoiled_file_is_trained_anew_to_the_same_weights(tmp_path: Path, spoiled: str):
    first = trained("toy-2x64", IOI(), seed=0, max_steps=STEPS, folder=tmp_path)
    (folder,) = tmp_path.iterdir()
    (folder / spoiled).write_bytes(b"{}")
    second = trained("toy-2x64", IOI(), seed=0, max_steps=STEPS, folder=tmp_path)
    assert same(first.model, second.model)
    assert json.loads((folder / "training.json").read_text())["steps"] == STEPS


@pytest.mark.parametrize("name", TOYS)
def test_every_toy_is_as_stated(name: str):
    model = build(name, IOI(), seed=0)
    assert model.config.layers == TOYS[name].layers
    assert model.head is None  # tied
    assert model.embedding.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert same(model, build(name, IOI(), seed=0))
    assert not same(model, build(name, IOI(), seed=1))


def test_sizes_of_the_page():
    """2 blocks of 2 D E + (K + 1) E + E (R + 2 N) + (R + 1) E + E N + E + E D + D, D for the last
    norm, 58 D for the embedding; D = 64, E = 128, N = 16, R = 4, K = 4."""
    D, E, N, R, K = 64, 128, 16, 4, 4
    block = 2 * D * E + (K + 1) * E + E * (R + 2 * N) + (R + 1) * E + E * N + E + E * D + D
    assert 2 * block + D + 58 * D == 69_184
    for name, parameters in (("toy-2x64", 69_184), ("toy-4x64", 134_592)):
        assert sum(p.numel() for p in build(name, IOI(), seed=0).parameters()) == parameters


@pytest.mark.parametrize("task", TASKS)
def test_every_task_can_be_trained_on(tmp_path: Path, task: str):
    assert isinstance(TASKS[task], PairTask)
    found = trained("toy-2x64", TASKS[task], seed=0, max_steps=1, folder=tmp_path)
    assert 0 <= found.accuracy <= 1


def test_loss_of_a_model_that_knows_nothing_counts_the_answer_twice():
    """Uniform logits cost ln V at every token, and ln V once more for the answer."""
    tokens, ends = IOI().sequences(8, seed=0)
    assert loss(Constant(torch.zeros(58)), (tokens, ends)).item() == pytest.approx(2 * math.log(58))


def test_loss_leaves_paddings_out():
    """A model that predicts paddings is as wrong at them as anywhere, if they are not asked for."""
    tokens, ends = IOI(templates=(0, 2)).sequences(8, seed=0)
    assert (tokens == PADDING).any()

    logits = torch.zeros(58)
    logits[PADDING] = -1e9
    found = loss(Constant(logits), (tokens, ends)).item()
    assert found == pytest.approx(2 * math.log(57))


def test_unknown_toys_and_seeds_are_refused(tmp_path: Path):
    with pytest.raises(ValueError, match=r"toy must be one of .*toy-2x64.*, got 'toy-3'"):
        trained("toy-3", IOI(), seed=0, folder=tmp_path)
    with pytest.raises(ValueError, match="seed"):
        trained("toy-2x64", IOI(), seed=-1, folder=tmp_path)
