"""Audits of tiny checkpoints of every layout, against naive forward passes."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from bounds.generalization import generalization_gap
from bounds.losses import ramp
from bounds.ssm import SelectiveSSMClass
from experiments.audit import main
from experiments.audit_report import audit_checkpoint, unclipped
from experiments.audit_text import verdicts
from experiments.layouts import induced_norm
from tests.experiments import checkpoints as layouts

TOKENS = np.random.default_rng(7).integers(0, 5, (6, 12))


@pytest.fixture
def write(tmp_path):
    return partial(layouts.save, tmp_path)


@pytest.fixture
def tokens(tmp_path):
    path = tmp_path / "tokens.npy"
    np.save(path, TOKENS)
    return path


def test_single_block_is_read_off_its_weights(write):
    tensors = layouts.single_block()
    (row,) = audit_checkpoint(write(tensors, dtype=np.float64), length=30).rows
    E, q, p = (tensors[k] for k in ("embedding.weight", "SSM.ssm.q_delta", "SSM.ssm.p_delta"))
    steps = np.log1p(np.exp(E @ q + p))
    assert row.core.budgets["s_A"] == -0.05
    assert row.core.budgets["a_lo"] == tensors["SSM.ssm.A"].min()
    assert row.step_range == pytest.approx((steps.min(), steps.max()), rel=1e-12)
    ours, published = row.characteristic_lengths
    assert ours == pytest.approx(1 / (0.05 * steps.max()))
    assert published == pytest.approx(1 / (0.05 * steps.min()))
    W_B = tensors["SSM.ssm.W_B"]
    assert row.core.norms["W_B"] == pytest.approx(
        {
            "induced 2-norm": np.linalg.norm(W_B, 2),
            "Frobenius": np.linalg.norm(W_B),
            "entrywise 1-norm": np.abs(W_B).sum(),
        }
    )
    assert row.core.n_parameters == sum(x.size for x in tensors.values()) == 65
    assert not row.core.decays_by_construction
    largest = np.linalg.norm(E, axis=1).max()
    product = np.prod([np.linalg.norm(tensors[f"SSM.ssm.W_{x}"], 2) for x in "BC"])
    rho, D = math.exp(-0.05 * steps.max()), steps.max()
    b = np.linalg.norm(tensors["SSM.w"]) * product * largest**3 * D * (1 - rho**30) / (1 - rho)
    assert float(row.output_range) == pytest.approx(b, rel=1e-9)


@pytest.mark.parametrize("classes", [None, 3])
@pytest.mark.parametrize("s_A", [-0.05, 0.0, 0.1])
def test_single_block_stays_in_its_range_on_data(write, tokens, classes, s_A):
    tensors = layouts.single_block(3, s_A=s_A, classes=classes)
    (row,) = audit_checkpoint(write(tensors, dtype=np.float64), data=tokens).rows
    naive = max(
        np.linalg.norm(layouts.run_single_block(tensors, sequence), axis=-1).max()
        for sequence in TOKENS
    )
    assert row.replay.watch.z == pytest.approx(naive, rel=1e-12)
    assert row.replay.inside
    assert row.replay.holds(row.output_range)
    assert naive <= float(row.replay.range_on_data) <= float(row.output_range) * (1 + 1e-9)
    assert row.core.structure["outputs"] == (classes or 1)
    assert ("s_A = 0" in row.theorem, "s_A > 0" in row.theorem) == (s_A == 0, s_A > 0)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", ["mamba", "mamba2", "mamba2 without inner norm"])
def test_layers_run_as_a_naive_model_and_stay_in_their_range(write, tokens, kind, seed):
    second = kind != "mamba"
    if second:
        tensors = layouts.mamba2(seed, inner_norm=kind == "mamba2")
    else:
        tensors = layouts.mamba(seed)
    rows = audit_checkpoint(write(tensors, dtype=np.float64), data=tokens).rows
    assert [row.core.name for row in rows] == ["layer 0", "layer 1"]
    residuals = [tensors["backbone.embedding.weight"][sequence] for sequence in TOKENS]
    for i, row in enumerate(rows):
        seen = [layouts.run_mamba_layer(tensors, i, r, second=second) for r in residuals]
        residuals = [r + s["layer"] for r, s in zip(residuals, seen, strict=True)]
        u, steps, z, layer = (np.concatenate([s[k] for s in seen]) for k in seen[0])
        watch = row.replay.watch
        assert watch.z == pytest.approx(np.linalg.norm(z, axis=1).max(), rel=1e-9)
        assert watch.B_u == pytest.approx(np.linalg.norm(u, axis=1).max(), rel=1e-9)
        assert np.log1p(np.exp(watch.logit_lo)) == pytest.approx(steps.min())
        # Everything the layer did lies within what its weights alone promise.
        assert watch.B_u <= row.core.budgets["B_u"]
        low, high = row.step_range
        assert low <= steps.min() <= steps.max() <= high
        assert row.replay.inside
        assert row.replay.holds(row.output_range)
        largest = np.linalg.norm(layer, axis=1).max()
        assert math.log10(largest) <= row.log10_layer_range
        A_log = tensors[f"backbone.layers.{i}.mixer.A_log"]
        assert row.core.budgets["s_A"] == pytest.approx(-np.exp(A_log.min()))
        assert row.core.decays_by_construction


@given(seed=st.integers(0, 10**6), size=st.floats(0.1, 30))
@settings(max_examples=12)
def test_no_input_leaves_the_a_priori_range_of_a_layer(tmp_path_factory, seed, size):
    rng = np.random.default_rng(seed)
    tensors = (layouts.mamba, layouts.mamba2)[seed % 2](seed, layers=1)
    # Aligned weights: the residual stream repeats the direction that in_proj amplifies most.
    in_proj = tensors["backbone.layers.0.mixer.in_proj.weight"]
    folded = in_proj * tensors["backbone.layers.0.norm.weight"]
    direction = np.linalg.svd(folded)[2][0]
    residual = size * (direction + 0.1 * rng.normal(size=(9, layouts.D_MODEL)))
    folder = tmp_path_factory.mktemp("layer")
    save_file(tensors, folder / "model.safetensors")
    np.save(folder / "inputs.npy", residual)
    (row,) = audit_checkpoint(folder, data=folder / "inputs.npy").rows
    seen = layouts.run_mamba_layer(tensors, 0, residual, second=bool(seed % 2))
    assert np.linalg.norm(seen["u"], axis=1).max() <= row.core.budgets["B_u"]
    assert np.linalg.norm(seen["z"], axis=1).max() <= float(row.output_range)
    assert row.replay.watch.z == pytest.approx(np.linalg.norm(seen["z"], axis=1).max(), rel=1e-6)
    assert row.replay.inside


def test_input_bound_is_attained_up_to_silu(tmp_path):
    # One channel pair, equal taps, a constant stream along in_proj's first direction: the sum of
    # the taps is needed in full (the largest single tap would be exceeded fourfold).
    t = layouts.mamba(1, layers=1)
    x = np.outer(np.eye(layouts.WIDTH)[0], [40.0, 40, 40, 40])
    t["backbone.layers.0.mixer.in_proj.weight"][: layouts.WIDTH] = x
    t["backbone.layers.0.mixer.conv1d.weight"][:] = 1
    t["backbone.layers.0.mixer.conv1d.bias"][:] = 0
    t["backbone.layers.0.norm.weight"][:] = 1
    save_file(t, tmp_path / "model.safetensors")
    np.save(tmp_path / "inputs.npy", np.ones((6, layouts.D_MODEL)))
    (row,) = audit_checkpoint(tmp_path, data=tmp_path / "inputs.npy").rows
    assert row.replay.watch.B_u == pytest.approx(row.core.budgets["B_u"], rel=1e-4)


def test_gaps_agree_with_the_bounds_and_stratified_costs_more(write):
    (row,) = audit_checkpoint(write(layouts.single_block()), samples=10**6, length=50).rows
    assert row.loss == ramp()
    gaps = unclipped(row.gap_trained, row.loss)
    for name, log_gap in gaps.items():
        assert min(1.0, 10**log_gap) == pytest.approx(row.gap_trained[f"gap_{name}"], rel=1e-9)
    assert 10 < row.stratum.union_cost < 100
    assert float(row.gap_stratified) > float(row.gap_trained)
    assert row.stratum.ssm.step_logits is None
    for name, value in row.core.budgets.items():
        assert (getattr(row.stratum.ssm, name) <= value) == (name in ("a_lo", "p_lo"))


@given(rows=st.integers(1, 6), columns=st.integers(1, 6), seed=st.integers(0, 999))
def test_induced_norm_rounds_up(rows, columns, seed):
    X = np.random.default_rng(seed).normal(size=(rows, columns)) * 10.0 ** (seed % 180 - 90)
    exact = np.linalg.norm(X / np.abs(X).max(), 2) * np.abs(X).max()
    assert exact <= induced_norm(X) <= exact * (1 + 1e-9)


def test_every_container_gives_the_same_numbers(tmp_path, write):
    tensors = {k: x.astype(np.float32) for k, x in layouts.mamba(2).items()}
    torched = {k: torch.tensor(x) for k, x in tensors.items()}
    expected = audit_checkpoint(write(tensors)).as_dict()["rows"]
    torch.save(torched, tmp_path / "plain.pt")
    torch.save({"epoch": 3, "state_dict": torched}, tmp_path / "nested.pth")
    torch.save({"model": {f"module.{k}": x for k, x in torched.items()}}, tmp_path / "ddp.ckpt")
    torch.save(torched, tmp_path / "old.bin", _use_new_zipfile_serialization=False)
    hugging = {k.replace("embedding", "embeddings"): x for k, x in tensors.items()}
    shards = tmp_path / "sharded"
    shards.mkdir()
    names = sorted(hugging)
    weight_map = {k: f"model-{1 + (i % 2)}.safetensors" for i, k in enumerate(names)}
    for shard in set(weight_map.values()):
        part = {k: x for k, x in hugging.items() if weight_map[k] == shard}
        save_file(part, shards / shard)
    (shards / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (shards / "config.json").write_text('{"model_type": "mamba", "layer_norm_epsilon": 1e-5}')
    folder = tmp_path / "folder"
    folder.mkdir()
    torch.save(torched, folder / "pytorch_model.bin")
    for name in ("plain.pt", "nested.pth", "ddp.ckpt", "old.bin", "sharded", "folder"):
        assert audit_checkpoint(tmp_path / name).as_dict()["rows"] == expected, name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_read_exactly(tmp_path, dtype):
    from safetensors.torch import save_file as save_torch

    halves = {k: torch.tensor(x).to(dtype) for k, x in layouts.single_block().items()}
    save_torch(halves, tmp_path / "half.safetensors")
    torch.save(halves, tmp_path / "half.pt")
    save_file({k: x.double().numpy() for k, x in halves.items()}, tmp_path / "full.safetensors")
    rows = [audit_checkpoint(tmp_path / f"{name}").as_dict()["rows"]
            for name in ("half.safetensors", "half.pt", "full.safetensors")]  # fmt: skip
    assert rows[0] == rows[1] == rows[2]


def test_command_prints_and_writes_json(tmp_path, write, tokens, capsys):
    path, out = write(layouts.mamba2()), tmp_path / "audit.json"
    arguments = ["--data", str(tokens), "--samples", "500", "--train-error", "0.1", "--explain"]
    assert main([str(path), *arguments, "--json", str(out)]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    for words in ("induced 2-norm", "not a theorem", "theorem;", "gap_parameter", "D2 holds",
                  "core only", "negative by construction", "every theorem is vacuous"):  # fmt: skip
        assert words in shown.out
    report = audit_checkpoint(path, data=tokens, samples=500, train_error=0.1)
    assert json.loads(out.read_text()) == json.loads(json.dumps(report.as_dict()))
    row = json.loads(out.read_text())["rows"][1]
    assert row["stratified"]["theorem"]
    assert not row["at_the_trained_norms"]["theorem"]
    assert {term["name"] for term in row["stratified"]["terms"]} >= {"C_F", "gap_norm", "ln_N"}
    assert row["replay"]["sequences"] == len(TOKENS)


def test_growing_models_get_finite_logarithms(write, tokens, capsys):
    path = write(layouts.single_block(s_A=2.0))
    (row,) = audit_checkpoint(path, length=10**5).rows
    assert row.output_range.term("b").stored > 1e4
    assert row.as_dict()["characteristic_length"] is None
    assert main([str(path), "--length", "100000"]) == 0
    assert "10^" in capsys.readouterr().out
    np.save(tokens, np.zeros((1, 3000), dtype=int) + int(np.argmax(row.core.step_logits)))
    (row,) = audit_checkpoint(path, data=tokens).rows
    assert row.replay.overflowed
    assert row.replay.holds(row.output_range)


def test_verdicts_say_what_holds(write):
    path = write(layouts.single_block())
    few = audit_checkpoint(path, samples=20, train_error=0.2)
    assert any("every theorem is vacuous" in line for line in verdicts(few))
    assert any("Occam" in line and "vacuous" in line for line in verdicts(few))
    many = audit_checkpoint(path, samples=10**6, train_error=0.2)
    assert any("parameter-counting" in line for line in verdicts(many))
    assert float(many.occam) < 0.25


def test_data_of_every_kind(tmp_path, write, tokens):
    path = write(layouts.single_block())
    expected = audit_checkpoint(path, data=tokens).rows[0].replay.watch
    (tmp_path / "t.csv").write_text("\n".join(",".join(map(str, row)) for row in TOKENS))
    np.savez(tmp_path / "t.npz", tokens=TOKENS, labels=np.zeros(6))
    E = layouts.single_block()["embedding.weight"].astype(np.float32)
    np.save(tmp_path / "u.npy", E[TOKENS].astype(float))
    for name in ("t.csv", "t.npz", "u.npy"):
        assert audit_checkpoint(path, data=tmp_path / name).rows[0].replay.watch == expected
    (tmp_path / "ragged.csv").write_text("0,1,2\n3\n4,4\n")
    report = audit_checkpoint(path, data=tmp_path / "ragged.csv")
    assert report.T == 3
    assert report.rows[0].replay.sequences == 3
    np.savetxt(tmp_path / "u.csv", 9 * E[TOKENS[0]], delimiter=",")
    replay = audit_checkpoint(path, data=tmp_path / "u.csv").rows[0].replay
    assert not replay.inside
    assert replay.holds(audit_checkpoint(path).rows[0].output_range)


def test_safetensors_need_no_torch(write):
    path = write(layouts.mamba())
    code = (
        "import sys; from experiments.audit import main; "
        f"status = main([{str(path)!r}]); assert 'torch' not in sys.modules; sys.exit(status)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize("size", [0.02, 1.0])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("second", [False, True])
def test_lipschitz_constants_of_a_layer_bound_changes_of_its_core(write, second, seed, size):
    """Mamba-2's maps as rescaled (slope of silu, convolution, gain) are what the theorem needs."""
    rng = np.random.default_rng(100 + seed)
    old = (layouts.mamba2 if second else layouts.mamba)(seed, layers=1)
    new = {name: x.copy() for name, x in old.items()}
    stem, N, heads, rank = "backbone.layers.0.mixer.", layouts.STATES, layouts.HEADS, layouts.RANK
    first = 2 * layouts.WIDTH if second else rank
    maps = f"{stem}in_proj.weight" if second else f"{stem}x_proj.weight"
    for name in (maps, f"{stem}A_log", f"{stem}out_proj.weight",
                 f"{stem}{'dt_bias' if second else 'dt_proj.bias'}"):  # fmt: skip
        change = size * rng.normal(size=new[name].shape)
        if name == maps and second:
            change[:first] = 0  # the gate and the core's input are frozen
        new[name] += change
    cores = [audit_checkpoint(write(t, dtype=np.float64)).rows[0].core for t in (old, new)]
    budgets = {
        name: (min if name in ("a_lo", "p_lo") else max)(core.budgets[name] for core in cores)
        for name in cores[0].budgets
    }
    ssm = SelectiveSSMClass(**cores[0].structure, **budgets)
    L = generalization_gap(ssm, m=100, T=9, delta=0.1, loss=ramp())

    def parts(t):
        gain, B_u = t["backbone.layers.0.norm.weight"], budgets["B_u"]
        rows = t[maps][first:] if second else t[maps]
        if second:
            taps = np.abs(t[f"{stem}conv1d.weight"][:, 0])
            root, w = np.sqrt(layouts.D_MODEL) / B_u, layouts.WIDTH
            B, C = (1.1 * taps[k : k + N].max(0).sum() * root for k in (w, w + N))
            scale = np.repeat([B, C, root], [N, N, heads])[:, None] * gain
            B, C, steps = np.split(rows * scale, [N, 2 * N])
        else:
            low, B, C = np.split(rows, [rank, rank + N])
            steps = t[f"{stem}dt_proj.weight"] @ low
        p = t[f"{stem}{'dt_bias' if second else 'dt_proj.bias'}"]
        w = t[f"{stem}out_proj.weight"]
        return dict(w=w, B=B, C=C, q=steps, p=p[:, None], A=np.exp(t[f"{stem}A_log"]))

    allowed = 0.0
    for name, change in ((k, x - parts(old)[k]) for k, x in parts(new).items()):
        if name == "A":
            norm = np.abs(change).max()
        elif name in ("q", "p"):
            norm = np.linalg.norm(change, axis=1).max()
        else:
            norm = np.linalg.norm(change, 2)
        allowed += L[f"L_{name}"] * norm
    for _ in range(3):
        residual = rng.normal(size=(9, layouts.D_MODEL))
        z = [layouts.run_mamba_layer(t, 0, residual, second=second)["z"] for t in (old, new)]
        assert 0 < np.linalg.norm(z[0] - z[1], axis=1).max() <= allowed
