"""The tensors of a checkpoint on disk, by name; nothing in the file is ever executed.

safetensors files are mapped into memory and need no torch. PyTorch files (.pt, .pth, .bin, .ckpt)
go through `torch.load(weights_only=True)`, which builds tensors and containers only. Whatever is
wrong with a file is a `CheckpointError` of one line.
"""

from __future__ import annotations

import json
import math
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

_TORCH_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt")
_FOLDER_FILES = (
    "model.safetensors.index.json",
    "model.safetensors",
    "pytorch_model.bin.index.json",
    "pytorch_model.bin",
)
_NESTED = ("state_dict", "model_state_dict", "model")
_DTYPES = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": np.uint16, "BOOL": np.bool_,
    "I64": np.int64, "I32": np.int32, "I16": np.int16, "I8": np.int8,
    "U64": np.uint64, "U32": np.uint32, "U16": np.uint16, "U8": np.uint8,
}  # fmt: skip


class CheckpointError(ValueError):
    """What is wrong with a file, in one line."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


@dataclass(frozen=True)
class Stored:
    """One tensor where it lies: shape, bits of one number, and how to read it."""

    shape: tuple[int, ...]
    bits: int
    read: Callable[[], ndarray]


@dataclass(frozen=True)
class Checkpoint(Mapping[str, ndarray]):
    """Tensors by name, read on access, in double precision.

    `config` is the config.json of a checkpoint that is a folder, else empty. Access raises
    CheckpointError for a missing name and for entries that are not finite.
    """

    path: Path
    stored: Mapping[str, Stored]
    config: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Float64[ndarray, ...]:
        if name not in self.stored:
            raise CheckpointError(f"{self.path}: the tensor {name} is missing")
        array = np.asarray(self.stored[name].read(), dtype=np.float64)
        if not np.all(np.isfinite(array)):
            raise CheckpointError(f"{self.path}: {name} has entries that are NaN or infinite")
        return array

    def __contains__(self, name: object) -> bool:
        return name in self.stored

    def __iter__(self) -> Iterator[str]:
        return iter(self.stored)

    def __len__(self) -> int:
        return len(self.stored)

    def shaped(self, name: str, *shape: int | None) -> Float64[ndarray, ...]:
        """The tensor `name`; CheckpointError unless it has this shape (None: any length)."""
        if name in self.stored:
            found = self.stored[name].shape
            if len(found) != len(shape) or any(
                length == 0 or wanted not in (None, length)
                for length, wanted in zip(found, shape, strict=True)
            ):
                wanted = ", ".join("any" if length is None else str(length) for length in shape)
                raise CheckpointError(f"{self.path}: {name} has shape {found}, not ({wanted})")
        return self[name]

    @property
    def n_parameters(self) -> int:
        """Numbers in all tensors."""
        return sum(math.prod(tensor.shape) for tensor in self.stored.values())

    @property
    def bits(self) -> int:
        """Bits of the widest number stored."""
        return max((tensor.bits for tensor in self.stored.values()), default=0)


def open_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint in a file, or in a folder as Hugging Face writes it."""
    if path.is_dir():
        return _open_folder(path)
    if not path.exists():
        raise CheckpointError(f"{path}: no such file")
    if not path.is_file():
        raise CheckpointError(f"{path}: not a regular file")
    return Checkpoint(path, _open_file(path))


def _open_folder(folder: Path) -> Checkpoint:
    config_file = folder / "config.json"
    config = _read_json(config_file) if config_file.is_file() else {}
    for name in _FOLDER_FILES:
        if not (folder / name).is_file():
            continue
        if not name.endswith(".index.json"):
            return Checkpoint(folder, _open_file(folder / name), config)
        return Checkpoint(folder, _open_shards(folder, name), config)
    files = [f for f in folder.iterdir() if f.suffix in (".safetensors", *_TORCH_SUFFIXES)]
    if len(files) != 1:
        found = f"{len(files)} candidates" if files else "no weights"
        raise CheckpointError(f"{folder}: {found} here; expected one of {', '.join(_FOLDER_FILES)}")
    return Checkpoint(folder, _open_file(files[0]), config)


def _open_shards(folder: Path, index: str) -> dict[str, Stored]:
    names = _read_json(folder / index).get("weight_map")
    if not isinstance(names, dict) or not all(isinstance(f, str) for f in names.values()):
        raise CheckpointError(f"{folder / index}: has no weight_map from tensors to files")
    shards: dict[str, dict[str, Stored]] = {}
    for shard in sorted(set(names.values())):
        if Path(shard).name != shard or not (folder / shard).is_file():
            raise CheckpointError(f"{folder / index}: no file {shard} beside it")
        shards[shard] = _open_file(folder / shard)
    missing = [name for name, shard in names.items() if name not in shards[shard]]
    if missing:
        raise CheckpointError(f"{folder / index}: {names[missing[0]]} has no tensor {missing[0]}")
    return {name: shards[shard][name] for name, shard in names.items()}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: not a JSON object")
    return content


def _open_file(path: Path) -> dict[str, Stored]:
    try:
        if path.suffix == ".safetensors":
            return _open_safetensors(path)
        if path.suffix in _TORCH_SUFFIXES:
            return _open_torch(path)
    except (OSError, MemoryError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error})") from error
    known = ", ".join((".safetensors", *_TORCH_SUFFIXES))
    raise CheckpointError(f"{path}: not a checkpoint; the file name should end in one of {known}")


def _open_safetensors(path: Path) -> dict[str, Stored]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np"):  # validates the header and every offset in it
            pass
    except SafetensorError as error:
        raise CheckpointError(f"{path}: not a safetensors file ({error})") from error
    content = np.memmap(path, dtype=np.uint8, mode="r")
    start = 8 + int.from_bytes(content[:8].tobytes(), "little")
    header = json.loads(content[8:start].tobytes())
    stored = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        if entry["dtype"] not in _DTYPES:
            raise CheckpointError(f"{path}: {name} has the unsupported type {entry['dtype']}")
        dtype = np.dtype(_DTYPES[entry["dtype"]])
        low, high = (start + offset for offset in entry["data_offsets"])
        read = _reader(content[low:high], dtype, tuple(entry["shape"]), entry["dtype"] == "BF16")
        stored[name] = Stored(tuple(entry["shape"]), 8 * dtype.itemsize, read)
    return stored


def _reader(
    raw: ndarray, dtype: np.dtype, shape: tuple[int, ...], bfloat16: bool
) -> Callable[[], ndarray]:
    def read() -> ndarray:
        array = np.frombuffer(raw.tobytes(), dtype=dtype).reshape(shape)
        if bfloat16:  # the upper half of a single-precision number
            return (array.astype(np.uint32) << 16).view(np.float32)
        return array

    return read


def _open_torch(path: Path) -> dict[str, Stored]:
    _refuse_compression(path)
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle can raise anything; none of it is executed
        reason = "it is damaged, or holds objects other than tensors"
        raise CheckpointError(f"{path}: not a checkpoint of tensors ({reason})") from error
    for name in _NESTED:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}, not tensors by name")
    size = path.stat().st_size
    stored = {}
    for name, tensor in content.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            continue
        plain = tensor.layout == torch.strided and not tensor.is_quantized
        if not plain or tensor.is_complex() or tensor.device.type != "cpu":
            raise CheckpointError(f"{path}: {name} is not a plain array of real numbers")
        if tensor.numel() * tensor.element_size() > size:
            raise CheckpointError(f"{path}: {name} claims more numbers than the file holds")
        stored[name] = Stored(tuple(tensor.shape), 8 * tensor.element_size(), _deferred(tensor))
    return stored


def _deferred(tensor: Any) -> Callable[[], ndarray]:
    return lambda: tensor.detach().double().numpy()


def _refuse_compression(path: Path) -> None:
    """Refuse damaged archives, and compressed ones, which torch.save never writes."""
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            stored = all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)
            # torch.load does not compare check sums.
            damaged = archive.testzip() if stored else None
    except zipfile.BadZipFile as error:
        raise CheckpointError(f"{path}: a damaged archive ({error})") from error
    if damaged is not None:
        raise CheckpointError(f"{path}: a damaged archive ({damaged} fails its check sum)")
    if not stored or sum(entry.file_size for entry in entries) > path.stat().st_size:
        raise CheckpointError(f"{path}: a compressed archive, which torch.save never writes")
