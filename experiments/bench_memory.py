"""Speed of training and of evaluating associative memories: `measure_memory`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from statistics import median

import torch
from torch import nn

from experiments.bench import Measurement, median_times
from experiments.ensemble import Member, Outcome, Training, train
from memory.facts import draw
from memory.linear import LinearMemory
from memory.recall import margins

MEMBERS = (1, 8, 64, 256)
"""Numbers of trainings that are compared."""
SIZES = {8: 22, 11: 35, 16: 62, 22: 101, 32: 183}
"""Dimensions d, and the number of facts that a trained linear memory of that size is to hold."""
LOADS = (1.0, 0.9, 1.1, 0.8, 1.2)
LEARNING_RATES = (20.0, 40.0)
_SEEDS = 3
RECALL = {"d": 512, "N": 50_000, "tested": 4096}
"""Facts of which some keys are recalled: the time for all of them is proportional."""


def measure_memory(repeats: int) -> list[Measurement]:
    """All of the below."""
    return [*measure_training(repeats), *measure_recall(repeats)]


def measure_training(repeats: int) -> list[Measurement]:
    """Members of a capacity sweep, trained as one ensemble and one after another.

    Processor time with one thread: what each worker of a sweep has, so the ratio is also that of
    two sweeps on all cores. Facts are drawn beforehand.
    """
    measured = []
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for count in MEMBERS:
            ours, theirs = _training_seconds(count, repeats)
            name = f"{count} training{'s' if count > 1 else ''}"
            measured += [
                Measurement(f"{name}, together", ours, "s"),
                Measurement(f"{name}, one by one", theirs, "s"),
                Measurement(f"{name}, together against one by one", theirs / ours, "times as fast"),
            ]
    finally:
        torch.set_num_threads(before)
    return measured


def _training_seconds(count: int, repeats: int) -> tuple[float, float]:
    """Median seconds of `train` and of the plain loop, which take turns."""
    ways = {"together": lambda members: list(train(members)), "one by one": train_one_by_one}
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        way(sweep_members(1))
    for _ in range(repeats):
        for name, way in ways.items():
            members = sweep_members(count)  # anew: training changes them
            start = time.process_time()
            way(members)
            taken[name].append(time.process_time() - start)
    ours, theirs = (max(median(times), 1e-9) for times in taken.values())
    return ours, theirs


def measure_recall(repeats: int) -> list[Measurement]:
    """Floating-point operations of exact recall, 2 d a score, against those of a matrix product."""
    d, N, tested = RECALL["d"], RECALL["N"], RECALL["tested"]
    facts = draw(N=N, d=d, seed=0)
    memory = LinearMemory(d, d).store(facts)
    which = torch.arange(min(tested, N))
    keys, outputs = facts.keys[which], facts.outputs[: 4 * tested]
    scores = torch.empty(len(keys), len(outputs))
    seconds = median_times(
        {
            "recall": lambda: margins(memory, facts, which),
            "product": lambda: torch.mm(keys, outputs.mT, out=scores),
        },
        repeats,
        time.perf_counter,
    )
    recall = 2 * d * len(keys) * N / seconds["recall"]
    product = 2 * d * scores.numel() / seconds["product"]
    return [
        Measurement(f"recall, d={d}, N={N}", recall / 1e9, "GFLOP/s"),
        Measurement("matrix product", product / 1e9, "GFLOP/s"),
        Measurement("recall, share of the matrix product", 100 * recall / product, "%"),
    ]


def sweep_members(count: int) -> list[Member]:
    """The first trainings of a sweep for the capacity of linear memories, small and large mixed."""
    members = []
    for index in range(count):
        index, size = divmod(index, len(SIZES))
        index, rate = divmod(index, len(LEARNING_RATES))
        index, seed = divmod(index, _SEEDS)
        more, load = divmod(index, len(LOADS))
        seed += _SEEDS * more
        d, capacity = list(SIZES.items())[size]
        members.append(
            Member(
                LinearMemory(d, d).initialize(seed),
                draw(N=round(LOADS[load] * capacity), d=d, seed=seed),
                Training(learning_rate=LEARNING_RATES[rate], steps=96),
            )
        )
    return members


def train_one_by_one(members: Sequence[Member]) -> list[Outcome]:
    """The same trainings with PyTorch's own module, loss and optimizer, in a plain loop."""
    outcomes = []
    for member in members:
        memory, facts, training = member.memory, member.facts, member.training
        optimizer = torch.optim.Adam(
            memory.parameters(), betas=training.betas, eps=training.epsilon, fused=True
        )
        keys = torch.arange(facts.N)
        best = 0.0
        for step in range(training.steps + 1):
            scores = memory(facts.keys) @ facts.outputs.mT
            loss = nn.functional.cross_entropy(scores, facts.association)
            if step % training.check_every == 0 or step == training.steps:
                with torch.no_grad():
                    others = scores.clone()
                    correct = scores[keys, facts.association]
                    others[keys, facts.association] = -torch.inf
                    margin = correct - others.amax(1)
                    accuracy = float((margin > 0).double().mean())
                best = max(best, accuracy)
                if accuracy >= training.target or step == training.steps:
                    break
            for group in optimizer.param_groups:
                group["lr"] = training.learning_rate * training.step_size(step)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            norm = memory(facts.keys).square().sum(1).mean().sqrt()
        outcomes.append(
            Outcome(
                accuracy=accuracy,
                best_accuracy=best,
                steps=step,
                loss=loss.item(),
                margin=float(margin.min() / norm),
                diverged=False,
            )
        )
    return outcomes
