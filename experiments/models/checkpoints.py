r"""Models on disk: folders with the weights and a config.json, ours or published ones.

    save(model, folder)                   config.json (the ModelConfig), model.safetensors
    load(folder)                          ours, or Mamba and Mamba-2 as state-spaces and Hugging
                                          Face store them
    export(model, folder, layout=...)     a Mamba or Mamba-2 model for their programs

Nothing is ever downloaded, and nothing in a file is executed. Published models come in single
precision, whatever they are stored in; ours in the precision they were saved in.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bounds import checks
from experiments.atomic import replacing
from experiments.checkpoint import Checkpoint, CheckpointError, open_checkpoint
from experiments.models.backbone import ModelConfig, SequenceModel
from experiments.models.checkpoint_layouts import (
    Layout,
    layout_of,
    our_config,
    our_name,
    their_config,
    their_name,
)

_OURS = "seqtheory"
_SAMPLE = 3
"""Names listed in an error message."""


def save(model: SequenceModel, folder: Path) -> None:
    """Write a model to a folder, which is made if need be; other files in it are left alone.

    Each file appears whole or not at all. The weights carry a copy of the configuration, so that
    `load` notices when the files of two models got mixed up.
    """
    config = {field.name: getattr(model.config, field.name) for field in fields(model.config)}
    config["mixers"] = {name: dict(options) for name, options in model.config.mixers.items()}
    config = {"model_type": _OURS, **config}
    plain = json.dumps(config, sort_keys=True, allow_nan=False)
    _write_safetensors(folder, model.state_dict(), {"config": plain})
    _write_config(folder, config)


def load(folder: Path) -> SequenceModel:
    """The model in a folder, on the CPU; CheckpointError says in one line what does not fit."""
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such folder")
    checkpoint = open_checkpoint(folder)
    if not checkpoint.config:
        raise CheckpointError(f"{folder}: no config.json")
    ours = checkpoint.config.get("model_type") == _OURS
    path = folder / "config.json"
    try:
        config = _saved_config(checkpoint) if ours else our_config(checkpoint.config, path)
        names = {name if ours else our_name(name): name for name in checkpoint}
        double = _check_sizes(checkpoint, config, names)
        model = SequenceModel(config, seed=0)
    except CheckpointError:
        raise
    except (ValueError, TypeError, KeyError, OSError, RuntimeError, MemoryError) as error:
        raise CheckpointError(f"{path}: {error}") from error
    if ours and double:
        model.double()
    _fill(model, checkpoint, names, ours)
    return model


def export(model: SequenceModel, folder: Path, *, layout: Layout = "huggingface") -> None:
    """Write a Mamba or Mamba-2 model for transformers (`huggingface`) or mamba-ssm.

    ValueError names what of the model the layout cannot express.
    """
    checks.one_of(("huggingface", "state-spaces"), layout=layout)
    config = their_config(model, layout)
    tensors = {
        their_name(name, layout): tensor
        for name, tensor in model.state_dict().items()
        if name != "head.bias"
    }
    if layout == "huggingface":
        _write_safetensors(folder, tensors, {"format": "pt"})
    else:
        tensors.setdefault("lm_head.weight", tensors["backbone.embedding.weight"])
        content = io.BytesIO()
        torch.save({name: tensor.cpu() for name, tensor in tensors.items()}, content)
        _write(folder / "pytorch_model.bin", content.getvalue())
    _write_config(folder, config)


def _saved_config(checkpoint: Checkpoint) -> ModelConfig:
    from safetensors import safe_open

    config = dict(checkpoint.config)
    with safe_open(checkpoint.path / "model.safetensors", framework="np") as file:
        copy = (file.metadata() or {}).get("config")
    if copy != json.dumps(config, sort_keys=True):
        raise CheckpointError(
            f"{checkpoint.path}: config.json is not that of model.safetensors: files of two models"
        )
    del config["model_type"]
    return ModelConfig(**{name: _tuples(value) for name, value in config.items()})


def _tuples(value: Any) -> Any:
    """Lists, which JSON has in place of tuples, as those."""
    if isinstance(value, dict):
        return {name: _tuples(entry) for name, entry in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _check_sizes(checkpoint: Checkpoint, config: ModelConfig, names: Mapping[str, str]) -> bool:
    """Refuse sizes that the file contradicts before memory is taken; whether it is in double."""
    name = names.get("embedding.weight")
    if name is None:
        raise CheckpointError(f"{checkpoint.path}: the embedding is missing")
    stored = checkpoint.stored[name]
    wanted = (config.vocab_size or config.d_model, config.d_input or config.d_model)
    if stored.shape != wanted:
        raise CheckpointError(f"{checkpoint.path}: {name} has shape {stored.shape}, not {wanted}")
    blocks = {match[1] for name in names if (match := re.match(r"blocks\.(\d+)\.", name))}
    if blocks != set(map(str, range(len(config.layers)))):
        raise CheckpointError(
            f"{checkpoint.path}: tensors of {len(blocks)} layers for the {len(config.layers)} of "
            "config.json"
        )
    return stored.bits == 64


def _fill(
    model: SequenceModel, checkpoint: Checkpoint, names: Mapping[str, str], ours: bool
) -> None:
    left = dict(names)
    for name, tensor in model.state_dict().items():
        theirs = left.pop(name, None)
        if theirs is not None:
            tensor.copy_(torch.tensor(checkpoint.shaped(theirs, *tensor.shape)))
        elif name == "head.bias" and not ours:
            tensor.zero_()
        else:
            if not ours:
                name = their_name(name, layout_of(checkpoint.config, checkpoint.path))
            raise CheckpointError(f"{checkpoint.path}: the tensor {name} is missing")
    head = None if ours or model.head is not None else left.pop("head.weight", None)
    embedding = names["embedding.weight"]
    if head is not None and not np.array_equal(checkpoint[head], checkpoint[embedding]):
        raise CheckpointError(f"{checkpoint.path}: {head} is tied to {embedding}, but differs")
    if left:
        some = ", ".join(list(left.values())[:_SAMPLE]) + (", ..." if len(left) > _SAMPLE else "")
        raise CheckpointError(f"{checkpoint.path}: the model has no place for {some}")


def _write_safetensors(
    folder: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> None:
    from safetensors.torch import save as serialised

    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    _write(folder / "model.safetensors", serialised(plain, dict(metadata)))


def _write_config(folder: Path, config: Mapping[str, Any]) -> None:
    _write(folder / "config.json", (json.dumps(config, indent=2) + "\n").encode())


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        file.write(content)
