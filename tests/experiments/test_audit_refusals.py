"""Every file that cannot be audited: one line on stderr, exit status 2, nothing executed."""

from __future__ import annotations

import json
import pickle
import struct
import zipfile
from functools import partial

import numpy as np
import pytest
import torch
from safetensors.numpy import save, save_file

from experiments.audit import main
from experiments.audit_report import audit_checkpoint
from tests.experiments import checkpoints as layouts

TOKENS = np.zeros((2, 5), dtype=int)


@pytest.fixture
def write(tmp_path):
    return partial(layouts.save, tmp_path)


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


def test_data_files_that_cannot_be_read_are_refused(write, tmp_path, capsys, monkeypatch):
    path = write(layouts.single_block())
    monkeypatch.setattr("experiments.replay._LARGEST_FILE", 10**5)
    np.save(tmp_path / "object.npy", np.array([_Evil()], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "two.npz", a=TOKENS, b=TOKENS)
    (tmp_path / "words.csv").write_text("to,be\nor,not\n")
    (tmp_path / "ragged.csv").write_text("0.5,1\n2\n")
    (tmp_path / "text.npz").write_text("hello")
    (tmp_path / "binary.csv").write_bytes(bytes(range(256)))
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("tokens.npy", b"\0" * 10**6)
    with zipfile.ZipFile(tmp_path / "bytes.npz", "w") as archive:
        archive.writestr("tokens.npy", b"no array")
    for name in ("none.npy", "object.npy", "two.npz", "words.csv", "ragged.csv", "text.npz",
                 "binary.csv", "bomb.npz", "bytes.npz", "data.parquet"):  # fmt: skip
        assert name in _refused(capsys, path, "--data", tmp_path / name)


@pytest.mark.parametrize(
    ("option", "word"),
    [("--delta=1.5", "delta"), ("--samples=0", "m must"), ("--length=0", "T must"),
     ("--margin=0", "margin"), ("--train-error=2", "train_error"), ("--length=-3", "T must"),
     ("--json=/no/such/folder/out.json", "out.json")],
)  # fmt: skip
def test_malformed_options_are_refused(option, word, write, capsys):
    assert word in _refused(capsys, write(layouts.single_block()), option)


def test_hybrids_are_audited_but_not_run(write, tmp_path, capsys):
    hybrid = layouts.mamba() | {"backbone.layers.2.mixer.in_proj.weight": np.ones((12, 4))}
    path, tokens = write(hybrid), tmp_path / "tokens.npy"
    np.save(tokens, TOKENS)
    assert len(audit_checkpoint(path).rows) == 2
    assert "layers other than" in _refused(capsys, path, "--data", tokens)


def test_a_flipped_bit_in_a_torch_file_is_noticed(tmp_path, capsys):
    path = tmp_path / "model.pt"
    tensors = {k: np.array(v, dtype=np.float32) for k, v in layouts.single_block().items()}
    torch.save({k: torch.from_numpy(v) for k, v in tensors.items()}, path)
    content = bytearray(path.read_bytes())
    place = content.index(tensors["SSM.ssm.A"].tobytes())
    content[place + 1] ^= 1
    path.write_bytes(content)
    assert main([str(path)]) == 2
    assert "fails its check sum" in capsys.readouterr().err


def test_a_layer_without_its_decay_is_noticed(tmp_path, capsys):
    tensors = layouts.mamba()
    del tensors["backbone.layers.1.mixer.A_log"]
    save_file(tensors, tmp_path / "model.safetensors")
    assert main([str(tmp_path / "model.safetensors")]) == 2
    assert "layers.1.mixer.A_log is missing" in capsys.readouterr().err
