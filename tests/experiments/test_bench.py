"""The benchmarks run, and compare ways of computing the same thing. No timing is asserted."""

import json
import os

import numpy as np
import pytest
import torch

from experiments import bench, bench_interventions, bench_memory, bench_models, provenance
from experiments.bench import main
from experiments.models.mixers import MIXERS
from experiments.models.scan import VARIABLE, chosen_backend
from experiments.models.sites import Site
from experiments.tasks.associative_recall import AssociativeRecall


def test_prints_a_table_and_writes_results(tmp_path, capsys):
    path = tmp_path / "bench.json"
    assert main(["bounds", "--points", "40", "--repeats", "1", "--json", str(path)]) == 0
    printed = capsys.readouterr().out
    assert "points/s" in printed
    report = json.loads(path.read_text())
    assert report["benchmark"] == "bounds"
    assert report["provenance"]
    names = [measurement["name"] for measurement in report["measurements"]]
    assert len(set(names)) == len(names)
    for T in bench.LENGTHS:
        assert f"all terms, T={T}, against plain sums" in names
    assert all(measurement["value"] > 0 for measurement in report["measurements"])


def test_unknown_names_are_refused_in_one_line(capsys):
    assert main(["nothing"]) == 2
    message = capsys.readouterr().err
    known = "bounds, memory, scan, models, interventions, in-context, edges"
    assert message == f"error: no benchmark 'nothing'; there are {known}\n"


@pytest.mark.parametrize("option", ["points", "repeats"])
def test_sizes_below_one_are_refused(option, capsys):
    assert main(["bounds", f"--{option}", "0"]) == 2
    assert capsys.readouterr().err == f"error: --{option} is 1 or more, not 0\n"


@pytest.mark.parametrize("T", [1, 2, 100, 70_000])
def test_both_ways_give_the_same_sums(T):
    ssm, _, _ = bench.scattered_points(np.random.default_rng(1), 8)
    for closed, plain in zip(bench.step_sums(ssm, T), bench.plain_step_sums(ssm, T), strict=True):
        np.testing.assert_allclose(closed, plain, rtol=1e-10)


def test_the_product_grid_is_a_product():
    ssm, m, T = bench.product_grid(40)
    assert bench.all_terms(ssm, m, T)["gap"].shape == (2, 2, 2, 2, 2)


def test_memory_benchmark_compares_both_ways(tmp_path, monkeypatch):
    monkeypatch.setattr(bench_memory, "MEMBERS", (1, 3))
    monkeypatch.setattr(bench_memory, "RECALL", {"d": 8, "N": 50, "tested": 20})
    presets = bench.Measurement("small presets", 1.0, "s")  # minutes, and studies have their tests
    monkeypatch.setattr(bench_memory, "measure_presets", lambda: presets)
    path = tmp_path / "bench.json"
    assert main(["memory", "--repeats", "1", "--json", str(path)]) == 0
    found = {m["name"]: m for m in json.loads(path.read_text())["measurements"]}
    assert found["3 trainings, ensemble, speed"]["unit"] == "times"
    assert found["recall, share of the matrix product"]["unit"] == "%"
    assert all(m["value"] > 0 for m in found.values())


def test_the_members_of_the_benchmark_are_nested_and_differ():
    few, many = bench_memory.sweep_members(7), bench_memory.sweep_members(60)
    settings = [(m.facts.d, m.facts.N, m.training, m.memory.weight[0, 0].item()) for m in many]
    assert len(set(settings)) == 60
    assert [m.facts.N for m in few] == [m.facts.N for m in many[:7]]


@pytest.fixture
def small_models(monkeypatch):
    """Few weights and inputs, one thread."""
    for name, size in dict(LENGTH=4, WIDTH=8, LAYERS=1, VOCABULARY=5, BATCH=2).items():
        monkeypatch.setattr(bench_models, name, size)
    monkeypatch.setattr(provenance, "available_cpus", lambda: 1)


@pytest.mark.usefixtures("small_models")
def test_models_benchmark_compares_scans_sites_and_mixers(tmp_path, monkeypatch):
    few = {name: MIXERS[name] for name in ("mamba", "attention", "mlp")}
    monkeypatch.setattr(bench_models, "MIXERS", few)
    before = dict(os.environ), torch.get_num_threads()
    path = tmp_path / "bench.json"
    assert main(["models", "--repeats", "1", "--json", str(path)]) == 0
    found = {m["name"]: m for m in json.loads(path.read_text())["measurements"]}
    scans = {chosen_backend("cpu"), "torch", "reference"}
    assert {name: m["unit"] for name, m in found.items()} == {
        **{f"mamba, {scan} scan": "tokens/s" for scan in scans},
        **{f"mamba, {scan} scan, speed": "times" for scan in scans - {"reference"}},
        **{
            f"{name}, forward pass with unwatched sites": "times" for name in ("mamba", "attention")
        },
        **{f"{name}, training step": "ms" for name in ("mamba", "attention")},
    }
    assert all(m["value"] > 0 for m in found.values())
    assert (dict(os.environ), torch.get_num_threads()) == before
    assert "__call__" not in vars(Site)


@pytest.mark.usefixtures("small_models")
def test_every_mixer_is_measured_and_the_fastest_comes_first(monkeypatch):
    taken = {name: 1 / (1 + k) for k, name in enumerate(MIXERS)}

    def times(ways, repeats):
        for way in ways.values():
            way()
        return {name: taken[name] for name in ways}

    monkeypatch.setattr(bench_models, "_times", times)
    names = [m.name.removesuffix(", training step") for m in bench_models.measure_mixers(1)]
    assert names == [name for name in reversed(MIXERS) if name != "mlp"]


@pytest.mark.usefixtures("small_models")
def test_the_ways_that_models_are_compared_in_compute_the_same(monkeypatch):
    gradients = {}
    for scan in ("torch", "reference", chosen_backend("cpu")):
        monkeypatch.setenv(VARIABLE, scan)
        model = bench_models.model("mamba")
        bench_models.training_step(model)()
        gradients[scan] = torch.cat([x.grad.flatten() for x in model.parameters()])
        assert gradients[scan].norm() > 0
        torch.testing.assert_close(gradients[scan], gradients["torch"], rtol=1e-3, atol=1e-6)

    def times(ways, repeats):
        torch.testing.assert_close(ways["sites"](), ways["none"](), rtol=0, atol=0)
        return dict.fromkeys(ways, 1.0)

    monkeypatch.setattr(bench_models, "_times", times)
    assert [m.value for m in bench_models.measure_sites(1)] == [1.0, 1.0]


@pytest.fixture
def small_grids(monkeypatch):
    """Few pairs, documents, weights and cells."""
    task = AssociativeRecall(num_pairs=2, num_keys=4, num_values=4)
    cells = dict(POSITIONS=("key", "query"), COMPONENTS=("mlp_output", "block_output"))
    for name, size in dict(TASK=task, WIDTH=8, DOCUMENTS=4, BATCH=3, **cells).items():
        monkeypatch.setattr(bench_interventions, name, size)


@pytest.mark.usefixtures("small_grids")
def test_interventions_benchmark_compares_grids(tmp_path):
    path = tmp_path / "bench.json"
    assert main(["interventions", "--repeats", "1", "--json", str(path)]) == 0
    found = {m["name"]: m for m in json.loads(path.read_text())["measurements"]}
    assert {name: m["unit"] for name, m in found.items()} == {
        f"{model}, {what}": unit
        for model in bench_interventions.MODELS
        for what, unit in {
            "attributions": "cells/s",
            "time of a grid, of one at a time": "%",
            "time of a grid, of one at a time with cached runs": "%",
        }.items()
    }
    assert all(m["value"] > 0 for m in found.values())


@pytest.mark.usefixtures("small_grids")
@pytest.mark.parametrize("blocks", bench_interventions.MODELS.values())
def test_the_ways_that_grids_are_compared_in_compute_the_same(blocks):
    network = bench_interventions.network(blocks)
    pair = bench_interventions.corrupted_documents()
    means = bench_interventions.grid(network, pair)
    assert len(means) == 2 * len(blocks)
    for way in (bench_interventions.one_at_a_time, bench_interventions.one_at_a_time_cached):
        np.testing.assert_allclose(way(network, pair), means, rtol=1e-4)
