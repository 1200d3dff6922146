"""The state of a running training on disk: written whole or not at all, read back or refused."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from experiments.atomic import replacing
from experiments.checkpoint import CheckpointError

_HEADER = b"seqtheory training 1\n"
_DIGEST = 32
_NAMED = 4
"""Differences that are named; models of two widths differ in every parameter."""


def described(tensors: Mapping[str, Any]) -> dict[str, str]:
    """Types, shapes and a digest of a model's state, as part of a fingerprint."""
    shapes = {
        f"model.{name}": f"{t.dtype}{list(t.shape)}"
        for name, t in tensors.items()
        if isinstance(t, Tensor)
    }
    return {**shapes, "initial weights": digest(tensors.values())}


def digest(tensors: Iterable[Any]) -> str:
    """Of types, shapes and bytes; what is not a tensor (a module's extra state) counts as text."""
    content = hashlib.sha256()
    for tensor in tensors:
        if isinstance(tensor, Tensor):
            plain = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            content.update(f"{tensor.dtype}{list(tensor.shape)}".encode())
            content.update(plain.numpy().tobytes())
        else:
            content.update(repr(tensor).encode())
    return content.hexdigest()[:16]


def write(path: Path, fingerprint: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Replace the checkpoint at `path`. `state` holds tensors, plain numbers, text and containers.

    A digest precedes the content, which `torch.load` would not notice to be damaged.
    """
    buffer = io.BytesIO()
    torch.save({"fingerprint": dict(fingerprint), "state": dict(state)}, buffer)
    content = buffer.getbuffer()
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        file.write(_HEADER + hashlib.sha256(content).digest())
        file.write(content)


def read(
    path: Path, fingerprint: Mapping[str, Any], device: torch.device | str
) -> dict[str, Any] | None:
    """The state in the checkpoint at `path`, tensors on `device`; None where there is no such file.

    CheckpointError for a damaged file, and for one with another fingerprint, naming the
    differences.
    """
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error})") from error
    start = len(_HEADER) + _DIGEST
    content = memoryview(raw)[start:]
    if raw[:start] != _HEADER + hashlib.sha256(content).digest():
        raise CheckpointError(
            f"{path}: damaged, or not the checkpoint of a training; remove it to start anew"
        )
    saved = torch.load(io.BytesIO(content), map_location=device, weights_only=True)
    theirs = saved["fingerprint"]
    names = [n for n in {**theirs, **fingerprint} if theirs.get(n) != fingerprint.get(n)]
    if names:
        differences = "; ".join(
            f"{name}: {theirs.get(name)!r} there, {fingerprint.get(name)!r} here"
            for name in names[:_NAMED]
        )
        raise CheckpointError(
            f"{path}: belongs to another training ({differences}); remove it to start anew"
        )
    return saved["state"]
