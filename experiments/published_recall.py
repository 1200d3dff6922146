"""Published accuracies in associative recall: 16 pairs of 4096 keys, the best learning rate.

Arora et al. 2025 (arXiv:2505.15105), appendix and released notebooks; 320 documents, one seed.
"""

from __future__ import annotations

WIDTHS = (16, 32, 64, 128, 256)
PAIRS, KEYS = 16, 4096

_PERCENT = {
    ("attention", 1): (1.25, 6.56, 9.06, 8.44, 6.25),
    ("based", 1): (2.50, 2.50, 2.81, 2.50, 1.88),
    ("base-conv", 1): (2.50, 2.50, 2.81, 2.50, 1.88),
    ("h3", 1): (0.62, 1.88, 2.50, 2.81, 3.12),
    ("hyena", 1): (0.31, 1.25, 2.19, 7.81, 31.56),
    ("mamba", 1): (10.62, 47.19, 83.12, 86.88, 96.25),
    ("attention", 2): (6.56, 100.0, 100.0, 100.0, 100.0),
    ("based", 2): (24.38, 93.12, 99.06, 98.75, 99.06),
    ("base-conv", 2): (0.0, 0.94, 3.75, 6.56, 9.69),
    ("h3", 2): (0.94, 0.62, 1.88, 2.50, 1.56),
    ("hyena", 2): (0.62, 0.94, 2.81, 13.75, 29.69),
    ("mamba", 2): (10.00, 76.88, 80.62, 89.69, 91.25),
    ("mamba-conv-0", 2): (0.94, 3.75, 2.81, 3.75, 5.62),
    ("mamba-conv-1", 2): (0.94, 3.12, 2.19, 2.81, 2.81),
    ("mamba-conv-2", 2): (4.38, 18.75, 90.94, 39.06, 94.38),
    ("mamba-conv-3", 2): (11.88, 70.94, 90.94, 94.06, 92.19),
    ("based-conv-1", 2): (0.94, 2.81, 3.44, 3.75, 6.25),
    ("based-conv-2", 2): (18.75, 94.69, 98.75, 98.75, 98.44),
    ("based-conv-4", 2): (28.44, 85.62, 97.19, 97.50, 98.12),
    ("based-conv-long", 2): (0.31, 1.56, 3.75, 5.94, 9.06),
    ("attention", 3): (13.12, 99.69, 100.0, 100.0, 100.0),
    ("based", 3): (37.50, 90.94, 99.06, 98.75, 99.38),
    ("base-conv", 3): (0.31, 2.19, 3.12, 7.50, 8.12),
    ("h3", 3): (0.94, 1.25, 1.25, 1.56, 1.88),
    ("hyena", 3): (0.62, 1.25, 3.44, 8.44, 20.00),
    ("mamba", 3): (8.44, 13.12, 76.56, 86.88, 90.00),
}
ACCURACIES = {
    (architecture, layers, width): share / 100
    for (architecture, layers), shares in _PERCENT.items()
    for width, share in zip(WIDTHS, shares, strict=True)
}
"""By architecture (`experiments.recall.ARCHITECTURES`), layers and width."""
