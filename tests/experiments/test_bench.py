"""The benchmarks run, and compare ways of computing the same thing. No timing is asserted."""

import json

import numpy as np
import pytest

from experiments import bench, bench_memory
from experiments.bench import main


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
    assert message == "error: no benchmark 'nothing'; there are bounds, memory\n"


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
