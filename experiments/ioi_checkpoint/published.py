"""Published numbers about indirect object identification in mamba-370m.

Ensign and Garriga-Alonso 2024 (arXiv:2407.14008) and its released notebooks. Blocks count from 0,
look-back taps too: tap 1 is the paper's slice -1. Formats are those of `experiments.tasks.ioi`, and
positions count from the token <|endoftext|>.
"""

from __future__ import annotations

import numpy as np

LAYERS, D_MODEL, LENGTH = 48, 1024, 20
CENTRE = 39
"""The block that reads the names."""
POSITIONS = (3, 5, 7, 13, 15)
"""Of the five names, in the templates whose names stand at the same positions."""
OUT = 19
CHANGED = (3, 5, 7, 15, 13)
"""The position of the name that is another one, by format."""

ACCURACY, PROBABILITY = 0.96, 0.83
"""Of the answer; its probability among the names."""
LOGITS = ((16.24, 8.70), (9.80, 15.72))
"""Of Lauren and Wesley, in the example prompt with Lauren and in that with Wesley."""
PROBABILITIES = (0.195, 0.113)
"""Of the right one of them, among all tokens."""

REMOVED_PROBABILITY = np.full(LAYERS, 0.85)
"""Figure 4: of the answer among the names without a block; .80 to .90 where nothing is named."""
REMOVED_ACCURACY = np.full(LAYERS, 0.975)
"""Of 20 pairs; .95 to 1 where nothing is named."""
for _block, _value in {0: 0.137, 39: 0.450, 47: 0.727, 40: 0.771, 26: 0.773, 21: 0.793,
                       14: 0.917}.items():  # fmt: skip
    REMOVED_PROBABILITY[_block] = _value
for _block, _value in {0: 0.10, 39: 0.55, 47: 0.80, 11: 0.90, 33: 0.90, 44: 0.90}.items():
    REMOVED_ACCURACY[_block] = _value

MINIMAL_SETS = np.zeros(LAYERS)
"""Figure 5: share of templates and formats whose minimal set of cross-talk has a block."""
for _blocks, _value in {
    (39, 15): 1.0, (35,): 0.85, (47,): 0.75, (31,): 0.70, (19, 26): 0.60, (40,): 0.55,
    (33, 36): 0.30, (11,): 0.25, (24, 27, 32): 0.20, (0, 18, 21): 0.15,
    (12, 29, 34, 38): 0.10, (1, 14, 20, 25, 37, 43): 0.05,
}.items():  # fmt: skip
    MINIMAL_SETS[list(_blocks)] = _value
TRACE = (39, 35, 15, 40, 19)
"""Blocks let go one after the other, in template 0 and format 0."""
TRACE_ACCURACY = (0.0, 0.75, 0.80, 0.8375, 0.8725, 0.9125)

TAPS = np.zeros((5, 4, LENGTH))
"""Figure 7: effects in block 39, by format, tap and position."""
TAPS[np.arange(5), 1, np.array(CHANGED) + 1] = 0.95
TAPS[4, 0, OUT] = 0.12
BAND, NAMES = (0.77, 0.75), (0.30, -0.49)
"""Mean cosine with later states of what is written behind the first two names, and at them."""
ADD_SUBTRACT = np.array([
    [1.00, 1.00, 0.99, 0.68, 0.61],
    [0.98, 1.00, 0.95, 0.77, 0.58],
    [1.00, 1.00, 1.00, 0.88, 0.85],
    [0.98, 0.95, 0.96, 0.86, 0.84],
    [1.00, 1.00, 1.00, 0.94, 0.91],
])  # fmt: skip
"""Figure 8: success of swaps, by slot edited and slot that the mean is of."""
REPLACE = np.array([
    [1.00, 0.99, 0.99, 0.56, 0.52],
    [0.99, 1.00, 0.99, 0.63, 0.57],
    [0.98, 1.00, 1.00, 0.34, 0.52],
    [0.06, 0.00, 0.01, 0.94, 0.86],
    [0.19, 0.00, 0.00, 0.99, 0.94],
])  # fmt: skip

CIRCUIT_SHARE = 180 / 1225
HALF_NLD, HALF_ACCURACY = 0.969, 0.938
"""Of the first 612 edges."""
PRINTED_SCORES = {
    ("39", "output"): -0.0099,
    ("embed", "0"): -0.0059,
    ("0", "39"): -0.0039,
    ("embed", "39"): -0.0016,
    ("47", "output"): -0.0011,
}
"""Figure 11."""
SCALE = (390 / 30 + 10 / 10) / 400
"""Of printed scores: gradients were of means over batches, 13 of 30 pairs and one of 10."""
TO_OUTPUT = frozenset({32, 33, 35, 36, 39, 40, 43, 45, 46, 47})
KEPT_SHARE, KEPT_NLD, KEPT_ACCURACY = 364 / 1609, 0.84, 0.88
DROPS = {
    ("*", "39.tap.1"): 0.814, ("39", "output"): 0.698, ("embed", "0"): 0.629,
    ("*", "0.gate"): 0.627,
    ("0", "39"): 0.352, ("embed", "39"): 0.106, ("47", "output"): 0.084, ("39", "47"): 0.075,
    ("*", "20.gate"): 0.063, ("*", "47.gate"): 0.052, ("20", "39"): 0.049, ("0", "20"): 0.035,
    ("*", "15.tap.0"): 0.033, ("*", "47.tap.0"): 0.032, ("0", "15"): 0.031, ("15", "39"): 0.027,
    ("19", "39"): 0.025, ("*", "19.tap.0"): 0.025, ("*", "35.tap.1"): 0.021,
    ("*", "39.tap.2"): 0.014,
}  # fmt: skip
"""Fall of the normalised logit difference without an edge; "*" are all edges into one branch."""
TAPS_KEPT = (0, 1, 1, 0)
"""Of block 39."""
BLOCKS_KEPT = {"tap 1": frozenset({33, 35, 36, 39, 40}), "tap 2": frozenset({19, 39})}
"""Those in which such a tap is kept; of blocks 1 to 7, no tap is."""
REFINED_INTO = frozenset(range(39)) - {2, 31, 34}
REFINED_FROM = frozenset({43, 45, 46, 47, 48})
"""48 is the output, here and below."""


def _at_names(blocks: range, without: tuple[set[int], ...]) -> dict[int, frozenset[int]]:
    """The blocks at each of the five names, but for these."""
    return {at: frozenset(blocks) - less for at, less in zip(POSITIONS, without, strict=True)}


POSITIONAL_INTO = {
    **_at_names(range(39), ({2}, {34}, {34}, {1, 31, 32, 34}, {2, 31, 32, 34})),
    6: frozenset({34}),
    14: frozenset({31, 32, 34}),
    OUT: frozenset({28, 29, 30, 33, 35, 37, 38}),
}
"""By position: the blocks that write what block 39 reads there, in the positional circuit."""
POSITIONAL_FROM = {
    **dict.fromkeys((3, 5, 7, 14, 18), frozenset({40})),
    12: frozenset({43}),
    16: frozenset({40, 41, 43, 44, 45, 46, 47}),
    OUT: frozenset({43, 45, 46, 47, 48}),
}
"""And those that read block 39."""
_UNRESOLVED = frozenset({28, 31, 32, 33, 34, 40})
REST = {
    "to 24-31 at n4, n5": (frozenset({10, 11, 15, 19, 20}), frozenset(range(24, 32)), (13, 15)),
    "to 35 at names": (frozenset({15, 19, 20}), frozenset({35}), POSITIONS),
    "from 35 at the end": (frozenset({35}), frozenset(range(37, 48)), (OUT,)),
    "around 31 at n4, n5": (_UNRESOLVED, _UNRESOLVED, (13, 14, 15)),
}
"""Figures 17 to 19, where the embedding, block 0 and block 39 are hidden: writers, readers and
positions of the edges that are left."""
_NOT_EMBED, _NOT_FIRST = {33, *range(41, 48)}, {4, 5, *range(41, 48)}
POSITIONAL_EMBED = _at_names(
    range(48),
    (
        _NOT_EMBED | {1, 5, 8, 25, 28, 29, 30, 32, 34, 36},
        _NOT_EMBED | {30, 31, 36},
        _NOT_EMBED | {25, 27, 29, 30, 31, 34, 36, 38},
        _NOT_EMBED | {3, 9, 25, 32, 34, 40},
        _NOT_EMBED | {9, 25, 27, 31, 34, 37, 38, 40},
    ),
)
"""Those that read the embedding."""
POSITIONAL_FIRST = _at_names(
    range(1, 48),
    (
        _NOT_FIRST | {1, 2, 3, 28, 31, 32, 33, 34},
        _NOT_FIRST | {6, 7, 31, 33},
        _NOT_FIRST | {2, 31, 33},
        _NOT_FIRST | {1, 2, 3, 9, 18, 21, 32, 34, 40},
        _NOT_FIRST | {3, 9, 18, 31, 32, 34, 40},
    ),
)
"""Those that read block 0."""
