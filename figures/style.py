"""One look for every figure: venue sizes, colours by meaning, provenance in the file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from tueplots import bundles

FULL_WIDTH = 5.5
"""Text width of a single-column venue (NeurIPS, ICLR) in inches."""

# Okabe and Ito: distinct under every common form of colour blindness.
COLORS = {
    "upper": "#0072B2",
    "lower": "#009E73",
    "published": "#D55E00",
    "measured": "#000000",
    "norm": "#56B4E9",
    "hybrid": "#CC79A7",
    "parameter": "#E69F00",
    "selective SSM": "#0072B2",
    "LTI SSM": "#56B4E9",
    "RNN": "#CC79A7",
    "linear attention": "#E69F00",
    "softmax attention": "#D55E00",
}
MEMORIES = {
    "outer-product": "#0072B2",
    "pseudo-inverse": "#56B4E9",
    "trained-linear": "#332288",
    "kernel-quadratic": "#882255",
    "kernel-relu": "#CC79A7",
    "mlp-readout": "#44AA99",
    "trained-mlp": "#0B5345",
    "attention": "#D55E00",
    "linear-attention": "#E69F00",
    "delta-rule": "#A6761D",
    "diagonal-ssm": "#999933",
    "hopfield": "#808080",
}
"""Colours of memories: blues for one matrix, reds for kernel and greens for other MLPs, the darkest
for trained ones; where hues are close, lightness differs."""
MEMORIES |= dict.fromkeys(
    ("one-bit", "two-bit", "low-rank", "projection"), MEMORIES["outer-product"]
)
SEQUENCE_MODELS = {
    "attention": COLORS["softmax attention"],
    "based": COLORS["linear attention"],
    "base-conv": "#882255",
    "hyena": "#009E73",
    "h3": COLORS["LTI SSM"],
    "mamba": COLORS["selective SSM"],
    "delta-net": MEMORIES["delta-rule"],
}
"""Colours of families of trained models; variants, as mamba-conv-2, have that of their family."""
YELLOW = "#F0E442"
"""Too light for lines."""
BLOCKS = ("#0072B2", "#56B4E9", "#009E73", YELLOW, "#E69F00", "#D55E00", "#CC79A7")
"""Colours of parts that are stacked."""


def shades(number: int) -> list[Any]:
    """Blues from light to dark, for an ordered size."""
    return [matplotlib.colormaps["Blues"](0.4 + 0.6 * (k + 1) / number) for k in range(number)]


def family(architecture: str) -> str:
    """The family in `SEQUENCE_MODELS` that a model is a variant of, by its name."""
    for name in SEQUENCE_MODELS:
        if f"{architecture}-".startswith(f"{name}-"):
            return name
    known = ", ".join(SEQUENCE_MODELS)
    raise ValueError(f"architecture {architecture!r} is a variant of none of: {known}")


@contextmanager
def paper() -> Iterator[None]:
    """Settings of a paper figure: Times-like text, thin lines, no top and right axis."""
    settings = bundles.neurips2024(usetex=False) | {
        "font.serif": ["STIXGeneral"],
        "mathtext.fontset": "stix",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.linewidth": 0.6,
        "xtick.major.width": 0.6,
        "ytick.major.width": 0.6,
        "lines.linewidth": 1.3,
        "lines.markersize": 3.5,
        "legend.frameon": False,
        "legend.handlelength": 1.6,
        "axes.titlesize": 8,
        "axes.labelsize": 8,
        "savefig.dpi": 220,
        "savefig.bbox": None,
        "pdf.fonttype": 42,
    }
    with plt.rc_context(settings):
        yield


def save(
    figure: Figure, folder: Path, name: str, provenance: Mapping[str, Any]
) -> tuple[Path, Path]:
    """Write `name` as PNG and PDF with the provenance in the metadata; closes the figure."""
    folder.mkdir(parents=True, exist_ok=True)
    origin = ", ".join(f"{key}={value}" for key, value in provenance.items())
    png, pdf = folder / f"{name}.png", folder / f"{name}.pdf"
    figure.savefig(png, metadata={"Title": name, "Description": origin, "Software": "seqtheory"})
    figure.savefig(pdf, metadata={"Title": name, "Subject": origin, "Creator": "seqtheory"})
    plt.close(figure)
    return png, pdf
