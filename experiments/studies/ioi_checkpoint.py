"""The published circuit of mamba-370m, measured again where its weights are at hand."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas

from bounds import checks
from experiments import device
from experiments.checkpoint import CheckpointError
from experiments.ioi_checkpoint import edges, maps, published
from experiments.ioi_checkpoint.comparison import compared
from experiments.ioi_checkpoint.edge_comparisons import EDGE_COMPARISONS
from experiments.ioi_checkpoint.map_comparisons import MAP_COMPARISONS
from experiments.ioi_checkpoint.maps import Metrics, Subject
from experiments.models import checkpoints
from experiments.study import Preset, Study
from experiments.tasks.ioi_text import read_grammar

PARTS: dict[str, Callable[[Subject], Metrics]] = {
    "accuracy": maps.accuracy,
    "ablations": maps.ablations,
    "removal": maps.removal,
    "cross-talk": maps.minimal_sets,
    "resample": maps.resampling,
    "taps": maps.shifts,
    "cosines": maps.cosines,
    "swaps": maps.swaps,
    "edges": edges.attribution,
    "patching": edges.patching,
    "refinement": edges.refinement,
    "positional": edges.positional,
}
COMPARISONS = (*MAP_COMPARISONS, *EDGE_COMPARISONS)
_WEIGHTS = (".safetensors", ".bin")


@dataclass(frozen=True)
class IOICheckpoint(Study):
    """Indirect object identification in a checkpoint of Mamba, one trial for each experiment.

    The folder has the weights with their config.json (as state-spaces or Hugging Face store them),
    tokenizer.json and names.txt, one first name a line. Nothing is downloaded. Other checkpoints
    of Mamba than that of 370 million parameters are measured too, but published numbers say
    nothing of them. A worker needs up to 16 GiB of memory.
    """

    folder: str = "mamba-370m"
    """Where the checkpoint is, seen from where this runs."""
    parts: tuple[str, ...] = (*PARTS,)
    """Experiments: accuracy, ablations, removal, cross-talk, resample, taps, cosines, swaps, edges,
    patching, refinement, positional."""
    share: float = 1.0
    """How many pairs of prompts, as a share of as many as a decision needs, mostly those published.
    """

    name = "ioi-checkpoint"
    title = "The circuit of indirect object identification in mamba-370m"
    version = 2
    presets = {
        "medium": Preset("a day on 2 cores", {"share": 0.1}),
        "paper": Preset("hours on a GPU"),
    }
    claims = tuple(comparison.claim for comparison in COMPARISONS)

    def grid(self) -> Mapping[str, Iterable[Any]]:
        for part in self.parts:
            checks.one_of((*PARTS,), part=part)
        checks.positive(share=self.share)
        return dict(folder=(self.folder,), share=(self.share,), part=self.parts)

    @staticmethod
    def measure(
        rng: np.random.Generator, *, folder: str, share: float, part: str
    ) -> dict[str, Any]:
        """The metrics of one experiment, and which weights they are of.

        CheckpointError and DataFileError say what the folder lacks.
        """
        path = Path(folder)
        if not path.is_dir():
            raise CheckpointError(
                f"{folder}: no such folder; it should have the weights and config.json of "
                "mamba-370m, its tokenizer.json and names.txt, one name a line"
            )
        grammar = read_grammar(path)
        model = checkpoints.load(path).to(device.chosen())
        layers = model.config.layers
        if {*layers} != {"mamba"}:
            raise CheckpointError(f"{folder}: all layers must be those of Mamba, got {layers}")
        subject = Subject(model=model, grammar=grammar, share=share)
        size = (len(layers), model.config.d_model)
        return {
            "is_370m": size == (published.LAYERS, published.D_MODEL),
            "layers": len(layers),
            "d_model": model.config.d_model,
            "names": len(grammar.names),
            "weights": digest(path),
            **PARTS[part](subject),
        }

    @staticmethod
    def table(rows: pandas.DataFrame) -> pandas.DataFrame:
        """For each claim, every repeat of every published number."""
        return compared(rows, COMPARISONS)


def digest(folder: Path) -> str:
    """SHA-256 of the files of weights in a folder, in the order of their names."""
    found = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in _WEIGHTS:
            with path.open("rb") as file:
                found.update(hashlib.file_digest(file, "sha256").digest())
    return found.hexdigest()
