"""Trainings survive kills to the bit; checkpoints of others and damaged ones are refused."""

from __future__ import annotations

import dataclasses
import io
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from experiments import device, training_state
from experiments.batches import Epochs
from experiments.checkpoint import CheckpointError
from experiments.recipe import Recipe
from experiments.train import Outcome, train
from tests.experiments.least_squares import Weights, example, same_bits
from tests.experiments.trainable import RECIPE, fit, network, regression, squares

_PATIENCE = 60
"""Seconds after which a condition that must come true is given up."""


class Killed(BaseException):
    """Not to be caught by anything."""


def interrupt(at: int) -> Callable[[int], None]:
    def before(step: int) -> None:
        if step == at:
            raise Killed

    return before


def interrupted(checkpoint: Path, at: int, recipe: Recipe = RECIPE) -> None:
    with pytest.raises(Killed):
        fit(checkpoint, recipe=recipe, before=interrupt(at))


def assert_same_training(
    one: tuple[Outcome, dict[str, Tensor]], other: tuple[Outcome, dict[str, Tensor]]
) -> None:
    assert dataclasses.replace(one[0], seconds=0) == dataclasses.replace(other[0], seconds=0)
    assert same_bits(one[1], other[1])


@pytest.fixture(scope="module")
def undisturbed() -> tuple[Outcome, dict[str, Tensor]]:
    return fit()


# Interruptions


def test_sigkill_and_continuation_do_not_change_a_bit(
    tmp_path: Path, undisturbed: tuple[Outcome, dict[str, Tensor]]
):
    checkpoint = tmp_path / "run" / "model.training"
    script = f"from tests.experiments.trainable import fit_slowly; fit_slowly({str(checkpoint)!r})"
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    deadline = time.monotonic() + _PATIENCE
    while not checkpoint.exists():
        assert time.monotonic() < deadline, "waited in vain"
        assert process.poll() is None, "ended by itself"
        time.sleep(0.005)
    time.sleep(0.8)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    done = []
    resumed = fit(checkpoint, before=done.append)
    assert 2 < done[1] < 58, "killed too early or too late"
    assert done == [0, *range(done[1], 60)]  # step 0 only for its data
    assert_same_training(resumed, undisturbed)
    assert not list(checkpoint.parent.glob("*.training"))


@settings(max_examples=12)
@given(
    st.integers(1, 11),
    st.builds(
        Recipe,
        steps=st.just(12),
        learning_rate=st.sampled_from([0.05, 3.0]),
        optimizer=st.sampled_from(["adam", "adamw"]),
        weight_decay=st.sampled_from([0.0, 0.3]),
        schedule=st.sampled_from(["constant", "cosine", "linear", "plateau"]),
        warmup=st.integers(0, 12),
        evaluate_every=st.sampled_from([None, 1, 5]),
        stop_when=st.sampled_from([None, ("loss", 3.0)]),
    ),
)
def test_interrupted_anywhere(tmp_path_factory: pytest.TempPathFactory, at: int, recipe: Recipe):
    checkpoint = tmp_path_factory.mktemp("run") / "model.training"
    expected = fit(recipe=recipe)
    try:
        fit(checkpoint, recipe=recipe, before=interrupt(at))
    except Killed:
        assert checkpoint.exists()
    assert_same_training(fit(checkpoint, recipe=recipe), expected)
    assert not checkpoint.exists()


@pytest.mark.parametrize("at", [5, 6])
def test_divergence_after_a_continuation(tmp_path: Path, at: int):
    """The parameters before the last update are known even where that was before the kill."""
    expected, found = network(), network()

    def spoil(model: nn.Module) -> Callable[[int], None]:
        def before(step: int) -> None:
            if step == 6:
                model[4].weight.data.fill_(math.inf)

        return before

    one = fit(model=expected, before=spoil(expected))
    interrupted(tmp_path / "a.training", at)
    two = fit(tmp_path / "a.training", model=found, before=spoil(found))
    assert one[0].diverged_at == 6
    assert_same_training(one, two)


def test_checkpoints_are_written_every_so_often(tmp_path: Path):
    checkpoint = tmp_path / "model.training"
    seen = []

    def loss(model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        seen.append(checkpoint.exists())
        return squares(model, batch)

    recipe = Recipe(steps=5, learning_rate=0.1)
    for seconds in (3600.0, 0.0):
        train(
            Weights(0, 0, 0), loss, lambda step: example(), recipe,
            seed=0, checkpoint=checkpoint, checkpoint_every=seconds,
        )  # fmt: skip
    assert seen == [False] * 6 + [True] * 4


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("bfloat16", [False, True])
def test_on_a_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, bfloat16: bool):
    monkeypatch.setenv(device.VARIABLE, "cuda")
    before = torch.get_rng_state(), torch.cuda.get_rng_state()
    recipe = dataclasses.replace(RECIPE, bfloat16=bfloat16)
    (one, weights), (two, again) = fit(recipe=recipe), fit(recipe=recipe)
    interrupted(tmp_path / "a.training", 30, recipe)
    _, resumed = fit(tmp_path / "a.training", recipe=recipe)
    assert one.losses[-1] < one.losses[0]
    assert one.losses == pytest.approx(two.losses, rel=1e-3)
    for name, tensor in weights.items():
        assert tensor.is_cuda
        torch.testing.assert_close(tensor, again[name], rtol=1e-2, atol=1e-3)
        torch.testing.assert_close(tensor, resumed[name], rtol=1e-2, atol=1e-3)
    assert torch.equal(before[0], torch.get_rng_state())
    assert torch.equal(before[1], torch.cuda.get_rng_state())


# Files


@pytest.mark.parametrize("part", ["step", "optimizer", "model", "nothing"])
def test_a_checkpoint_needs_all_its_parts(
    tmp_path: Path, part: str, undisturbed: tuple[Outcome, dict[str, Tensor]]
):
    """Negative control: without the optimizer's state, or at a wrong step, the bits differ."""
    checkpoint = tmp_path / "model.training"
    interrupted(checkpoint, 31)
    mark = saved_fingerprint(checkpoint)
    state = training_state.read(checkpoint, mark, "cpu")
    assert state is not None
    assert state["step"] == 31
    if part == "step":
        state["step"] = 30
    elif part == "optimizer":
        state["optimizer"]["state"] = {}
    elif part == "model":
        state["model"]["4.bias"] += 1e-6
    training_state.write(checkpoint, mark, state)
    _, found = fit(checkpoint)
    assert same_bits(found, undisturbed[1]) == (part == "nothing")


def saved_fingerprint(checkpoint: Path) -> dict:
    """That of the training of `fit`, as it stands in the file."""
    content = checkpoint.read_bytes()[len(training_state._HEADER) + training_state._DIGEST :]
    return torch.load(io.BytesIO(content), weights_only=True)["fingerprint"]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"seed": 4}, "seed: 3 there, 4 here"),
        (
            {"recipe": dataclasses.replace(RECIPE, learning_rate=0.04)},
            "learning_rate: 0.2 there, 0.04 here",
        ),
        ({"recipe": dataclasses.replace(RECIPE, betas=(0.9, 0.99))}, r"betas: \(0.9, 0.999\)"),
        ({"model": network(seed=1)}, "initial weights"),
        ({"model": nn.Sequential(nn.Linear(3, 1))}, r"model.0.weight: 'torch.float32\[8, 3\]'"),
    ],
)
def test_checkpoint_of_another_training_is_refused(tmp_path: Path, changes: dict, named: str):
    checkpoint = tmp_path / "model.training"
    interrupted(checkpoint, 5)
    before = checkpoint.read_bytes()
    with pytest.raises(CheckpointError, match=f"model.training: belongs to another.*{named}"):
        fit(checkpoint, **changes)
    assert checkpoint.read_bytes() == before


def test_checkpoint_for_other_data_is_refused(tmp_path: Path):
    checkpoint = tmp_path / "model.training"
    recipe = Recipe(steps=9, learning_rate=0.1)

    def on(data: Epochs, before: Callable[[int], object] = lambda step: None) -> None:
        def loss(model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
            before(0)
            return squares(model, batch)

        options = {"seed": 0, "checkpoint": checkpoint, "checkpoint_every": 0}
        train(network(), loss, data, recipe, **options)

    steps = iter(range(10))
    with pytest.raises(Killed):
        on(regression(0), lambda _: interrupt(4)(next(steps)))
    with pytest.raises(CheckpointError, match="first batch"):
        on(regression(1))
    on(regression(0))


def test_torn_temporary_file_is_ignored(
    tmp_path: Path, undisturbed: tuple[Outcome, dict[str, Tensor]]
):
    checkpoint = tmp_path / "model.training"
    interrupted(checkpoint, 20)
    torn = tmp_path / "model.training.0123.tmp"
    torn.write_bytes(checkpoint.read_bytes()[:100])
    assert_same_training(fit(checkpoint), undisturbed)
    assert torn.exists()


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    checkpoint = tmp_path_factory.mktemp("intact") / "model.training"
    interrupted(checkpoint, 3)
    return checkpoint.read_bytes()


@given(st.data())
def test_damage_is_noticed(
    tmp_path_factory: pytest.TempPathFactory, intact: bytes, data: st.DataObject
):
    """Any byte, any truncation, or something else altogether."""
    position = data.draw(st.integers(0, len(intact) - 1))
    flipped = bytes([intact[position] ^ data.draw(st.integers(1, 255))])
    damaged = data.draw(
        st.sampled_from(
            [intact[:position], intact[:position] + flipped + intact[position + 1 :], b"PK"]
        )
    )
    checkpoint = tmp_path_factory.getbasetemp() / "damaged.training"
    checkpoint.write_bytes(damaged)
    with pytest.raises(CheckpointError, match=r"damaged.training: damaged, or not .* remove it"):
        training_state.read(checkpoint, {}, "cpu")


def test_unreadable_checkpoint(tmp_path: Path):
    with pytest.raises(CheckpointError, match="cannot be read"):
        training_state.read(tmp_path, {}, "cpu")


def test_failed_write_leaves_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    checkpoint = tmp_path / "model.training"
    training_state.write(checkpoint, {}, {"step": 1})

    def full(descriptor: int) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space left"):
        training_state.write(checkpoint, {}, {"step": 2})
    assert training_state.read(checkpoint, {}, "cpu") == {"step": 1}
    assert list(tmp_path.iterdir()) == [checkpoint]
