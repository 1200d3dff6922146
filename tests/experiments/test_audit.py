"""Audits of tiny checkpoints of every layout against naive forward passes; every way to fail."""

from __future__ import annotations

import json
import math
import pickle
import struct
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save, save_file

from bounds.losses import ramp
from experiments.audit import main
from experiments.audit_report import audit_checkpoint, unclipped
from experiments.audit_text import verdicts
from experiments.layouts import induced_norm
from tests.experiments import checkpoints as layouts

TOKENS = np.random.default_rng(7).integers(0, 5, (6, 12))


@pytest.fixture
def write(tmp_path):
    """Tensors to a safetensors file in single precision; returns its path."""

    def write(tensors, name="model.safetensors", dtype=np.float32):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        save_file({k: np.ascontiguousarray(x, dtype=dtype) for k, x in tensors.items()}, path)
        return path

    return write


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
@settings(max_examples=25)
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
    arguments = ["--data", str(tokens), "--samples", "5000", "--train-error", "0.1", "--explain"]
    assert main([str(path), *arguments, "--json", str(out)]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    for words in ("induced 2-norm", "not a theorem", "theorem;", "gap_parameter", "D2 holds",
                  "core only", "negative by construction", "every theorem is vacuous"):  # fmt: skip
        assert words in shown.out
    report = audit_checkpoint(path, data=tokens, samples=5000, train_error=0.1)
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
    (few,) = [audit_checkpoint(path, samples=100, train_error=0.2)]
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


class _Evil:
    def __reduce__(self):
        return (print, ("executed",))


def _broken(name, write, folder):
    """A file of the named kind that cannot be audited, and a word its message must have."""
    single, mamba = layouts.single_block(), layouts.mamba()
    good = save({k: x.astype(np.float32) for k, x in single.items()})
    path = folder / f"{name.replace(' ', '-')}.safetensors"
    stem = "backbone.layers.1.mixer."
    match name:
        case "missing file":
            return path, "no such file"
        case "text":
            path.write_text("these are not the tensors you are looking for\n" * 9)
        case "empty":
            path.write_bytes(b"")
        case "truncated":
            path.write_bytes(good[: len(good) // 2])
        case "huge header":
            path.write_bytes(struct.pack("<Q", 2**60) + good)
        case "other keys":
            return write({"lm_head.weight": np.ones((3, 3))}, path.name), "no selective SSM"
        case "no tensors":
            return write({}, path.name), "no selective SSM"
        case "missing tensor":
            return write({k: x for k, x in single.items() if "W_C" not in k}, path.name), "W_C"
        case "NaN":
            return write(single | {"SSM.ssm.W_B": np.full((3, 4), np.nan)}, path.name), "NaN"
        case "infinite":
            return write(mamba | {f"{stem}D": np.full(8, np.inf)}, path.name), "infinite"
        case "wrong shape":
            return write(single | {"SSM.ssm.W_B": np.ones((4, 4))}, path.name), "(4, 4)"
        case "wrong rank":
            return write(mamba | {f"{stem}A_log": np.ones(8)}, path.name), "A_log"
        case "empty tensor":
            return write(single | {"SSM.ssm.A": np.ones((4, 0))}, path.name), "(4, 0)"
        case "foreign mixer":
            return write(mamba | {f"{stem}dt_layernorm.weight": np.ones(2)}, path.name), "dt_layer"
        case "mamba2 sizes":
            return write(layouts.mamba2() | {f"{stem}dt_bias": np.ones(3)}, path.name), "dt_bias"
        case "overflowing decay":
            return write(mamba | {f"{stem}A_log": np.full((8, 3), 2e3)}, path.name), "A_log"
        case "overflowing norms":
            big = {k: (1e200 * x).astype(np.float64) for k, x in single.items()}
            return write(big, path.name, np.float64), "finite"
        case "another extension":
            path = folder / "model.onnx"
            path.write_bytes(good)
        case "empty folder":
            path = folder / "nothing"
            path.mkdir()
            return path, "no weights"
        case "folder of something else":
            save_file({"x": np.ones(1)}, folder / "a.safetensors")
            save_file({"x": np.ones(1)}, folder / "b.safetensors")
            return folder, "2 candidates"
        case "falcon":
            write(mamba)
            (folder / "config.json").write_text('{"model_type": "falcon_mamba"}')
            return folder, "falcon_mamba"
        case "bad config":
            write(mamba)
            (folder / "config.json").write_text("{")
            return folder, "config.json"
        case "index escapes":
            index = {"weight_map": {"x": "../outside.safetensors"}}
            (folder / "model.safetensors.index.json").write_text(json.dumps(index))
            return folder, "no file"
        case "index without map":
            (folder / "model.safetensors.index.json").write_text("[]")
            return folder, "JSON"
        case "shard lacks tensor":
            write({"y": np.ones(1)}, "a.safetensors")
            index = {"weight_map": {"x": "a.safetensors"}}
            (folder / "model.safetensors.index.json").write_text(json.dumps(index))
            return folder, "no tensor x"
    return path, str(path)


KINDS = [
    "missing file", "text", "empty", "truncated", "huge header", "other keys", "no tensors",
    "missing tensor", "NaN", "infinite", "wrong shape", "wrong rank", "empty tensor",
    "foreign mixer", "mamba2 sizes", "overflowing decay", "overflowing norms",
    "another extension", "empty folder", "folder of something else", "falcon", "bad config",
    "index escapes", "index without map", "shard lacks tensor",
]  # fmt: skip


def _refused(capsys, *arguments):
    assert main([str(argument) for argument in arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    return captured.err


@pytest.mark.parametrize("kind", KINDS)
def test_what_cannot_be_audited_is_refused_in_one_line(kind, write, tmp_path, capsys):
    path, word = _broken(kind, write, tmp_path)
    assert word in _refused(capsys, path)


def _torch_file(kind, path):
    tensors = {k: torch.tensor(x) for k, x in layouts.single_block().items()}
    match kind:
        case "object":
            torch.save({"state_dict": tensors, "hook": _Evil()}, path)
        case "bare pickle":
            path.write_bytes(pickle.dumps({"x": _Evil()}))
        case "text":
            path.write_text("hello\n")
        case "list":
            torch.save(list(tensors.values()), path)
        case "tensor":
            torch.save(tensors["SSM.w"], path)
        case "truncated":
            torch.save(tensors, path)
            path.write_bytes(path.read_bytes()[:-200])
        case "expanded":
            torch.save(tensors | {"SSM.ssm.A": torch.ones(1, 1).expand(10**7, 10**5)}, path)
        case "sparse":
            torch.save(tensors | {"SSM.ssm.A": torch.eye(4).to_sparse()}, path)
        case "meta":
            torch.save(tensors | {"SSM.ssm.A": torch.ones(4, 3, device="meta")}, path)
        case "bomb":
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
                archive.writestr("model/data.pkl", b"\0" * 10**7)
        case "foreign archive":
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("word/document.xml", "<xml/>")


@pytest.mark.parametrize(
    "kind",
    ["object", "bare pickle", "text", "list", "tensor", "truncated", "expanded", "sparse", "meta",
     "bomb", "foreign archive"],
)  # fmt: skip
def test_torch_files_execute_nothing(kind, tmp_path, capsys):
    path = tmp_path / "model.pt"
    _torch_file(kind, path)
    assert "executed" not in _refused(capsys, path)


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (np.full((2, 4), 5), "token 5"),
        (np.full((2, 4), -1), "token -1"),
        (np.ones((2, 4, 7)), "length 7"),
        (np.full((2, 4), np.nan), "NaN"),
        (np.ones((0, 4), dtype=int), "empty"),
        (np.ones((2, 2, 2, 2)), "(m, T, d)"),
        (np.array(["a"]), "numbers"),
    ],
)
def test_data_that_does_not_fit_is_refused(content, word, write, tmp_path, capsys):
    np.save(tmp_path / "data.npy", content)
    error = _refused(capsys, write(layouts.single_block()), "--data", tmp_path / "data.npy")
    assert word in error


def test_data_files_that_cannot_be_read_are_refused(write, tmp_path, capsys):
    path = write(layouts.single_block())
    np.save(tmp_path / "object.npy", np.array([_Evil()], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "two.npz", a=TOKENS, b=TOKENS)
    (tmp_path / "words.csv").write_text("to,be\nor,not\n")
    (tmp_path / "ragged.csv").write_text("0.5,1\n2\n")
    (tmp_path / "text.npz").write_text("hello")
    (tmp_path / "binary.csv").write_bytes(bytes(range(256)))
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("tokens.npy", b"\0" * 10**6)
    for name in ("none.npy", "object.npy", "two.npz", "words.csv", "ragged.csv", "text.npz",
                 "binary.csv", "bomb.npz", "data.parquet"):  # fmt: skip
        assert name in _refused(capsys, path, "--data", tmp_path / name)


@pytest.mark.parametrize(
    ("option", "word"),
    [("--delta=1.5", "delta"), ("--samples=0", "m must"), ("--length=0", "T must"),
     ("--margin=0", "margin"), ("--train-error=2", "train_error"), ("--length=-3", "T must"),
     ("--json=/no/such/folder/out.json", "out.json")],
)  # fmt: skip
def test_malformed_options_are_refused(option, word, write, capsys):
    assert word in _refused(capsys, write(layouts.single_block()), option)


def test_hybrids_are_audited_but_not_run(write, tokens, capsys):
    hybrid = layouts.mamba() | {"backbone.layers.2.mixer.in_proj.weight": np.ones((12, 4))}
    path = write(hybrid)
    assert len(audit_checkpoint(path).rows) == 2
    assert "layers other than" in _refused(capsys, path, "--data", tokens)


def test_safetensors_need_no_torch(write):
    path = write(layouts.mamba())
    code = (
        "import sys; from experiments.audit import main; "
        f"status = main([{str(path)!r}]); assert 'torch' not in sys.modules; sys.exit(status)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
