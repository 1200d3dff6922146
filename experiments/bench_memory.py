"""Speed of training and of evaluating associative memories: `measure_memory`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn

from experiments import provenance
from experiments.bench import Measurement, median_times
from experiments.ensemble import Member, Outcome, Training, train
from experiments.executors import ProcessPool, Workers
from experiments.store import ResultStore
from experiments.studies import load
from experiments.sweep import sweep
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
PRESETS = ("trained-linear-memory", "trained-mlp-memory")
RECALL = {"d": 512, "N": 50_000, "tested": 4096}
"""Facts of which some keys are recalled: the time for all of them is proportional."""


def measure_memory(repeats: int) -> list[Measurement]:
    """Seconds on the wall; ratios are of ways that took turns in this run."""
    return [*measure_training(repeats), *measure_recall(repeats), measure_presets()]


def measure_training(repeats: int) -> list[Measurement]:
    """Members of a capacity sweep: one after another, and as ensembles in one and more processes.

    Every process has one thread, the fastest for matrices of this size.
    """
    processes = provenance.available_cpus()
    several = f"ensemble, {processes} processes"
    measured = []
    with _threads(1), ProcessPool(processes) as pool:
        for count in MEMBERS:
            shares = [(count, part, processes) for part in range(processes)]
            ways = {
                "one by one": lambda count=count: train_one_by_one(sweep_members(count)),
                "ensemble": lambda count=count: train_share(count, 0, 1),
                several: lambda shares=shares: list(
                    pool.map(train_share, *zip(*shares, strict=True))
                ),
            }
            seconds = median_times(ways, repeats, time.perf_counter)
            title = f"{count} trainings"
            measured += [Measurement(f"{title}, {name}", s, "s") for name, s in seconds.items()]
            measured += [
                Measurement(
                    f"{title}, {name}, speed", seconds["one by one"] / seconds[name], "times"
                )
                for name in ("ensemble", several)
            ]
    return measured


def train_share(count: int, part: int, parts: int) -> int:
    """Train one of `parts` equal shares of the members as an ensemble; the number of them."""
    members = sorted(sweep_members(count), key=lambda member: (member.facts.d, member.facts.N))
    return len(list(train(members[part::parts])))


def measure_presets() -> Measurement:
    """The studies of trained memories at their small preset, from nothing, with all processors."""
    started = time.perf_counter()
    with TemporaryDirectory() as folder, Workers(provenance.available_cpus()) as workers:
        for name in PRESETS:
            sweep(load(name).at("small"), ResultStore(Path(folder)), workers)
    return Measurement(" and ".join(PRESETS) + ", small", time.perf_counter() - started, "s")


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


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
