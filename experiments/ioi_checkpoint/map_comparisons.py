"""What was published about the blocks, taps and names of mamba-370m, and how close a measurement
has to come."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy import ndarray

from experiments.ioi_checkpoint import published
from experiments.ioi_checkpoint.comparison import Comparison


def _sparse(values: Mapping[int, float]) -> ndarray:
    cells = np.full(published.LAYERS, np.nan)
    cells[list(values)] = list(values.values())
    return cells


def _blocks(matrix: ndarray, *, within: bool) -> ndarray:
    """Means over the sources of the same kind of mention, or of the other kind, by slot."""
    first, second = matrix[:, :3].mean(axis=1), matrix[:, 3:].mean(axis=1)
    return np.where((np.arange(5) < 3) == within, first, second)


_LEADS = np.delete(published.REMOVED_PROBABILITY, [0, 39]) - published.REMOVED_PROBABILITY[39]

MAP_COMPARISONS = (
    Comparison(
        name="names-the-third",
        metric="accuracy",
        statement="96 % of prompts are answered with the right one of their names (± 4 %)",
        place="section 3",
        published=published.ACCURACY,
        relation="~", bound=0.04,
    ),
    Comparison(
        name="probability-of-the-third",
        metric="relative_probability",
        statement="its probability among the names is 0.83 (± 0.1)",
        place="figure 4",
        published=published.PROBABILITY,
        relation="~", bound=0.1,
    ),
    Comparison(
        name="logits-of-the-example",
        metric="example_logits",
        statement="the logits of Lauren and Wesley in the example prompt, and with Wesley in place "
        "of Lauren, are those published (± 0.01)",
        place="released notebooks",
        published=published.LOGITS,
        relation="~", bound=0.01,
    ),
    Comparison(
        name="probabilities-of-the-example",
        metric="example_probabilities",
        statement="the right name of the example prompts has the published probability (± 0.003)",
        place="released notebooks",
        published=published.PROBABILITIES,
        relation="~", bound=0.003,
    ),
    Comparison(
        name="fourth-tap-is-idle",
        metric="farthest_tap",
        statement="the convolutions see three tokens: no weight of the farthest tap is above 1 % "
        "of the largest weight",
        place="convolution slices",
        published=0.0,
        relation="<=", bound=0.01,
    ),
    Comparison(
        name="removal-of-each-block",
        metric="removed_probability",
        statement="without any one block the probability of the answer among the names is that "
        "published (± 0.1)",
        place="figure 4",
        published=published.REMOVED_PROBABILITY,
        relation="~", bound=0.1,
    ),
    Comparison(
        name="accuracy-without-each-block",
        metric="removed_accuracy",
        statement="without any one block the accuracy is that published of 20 pairs (± 0.2)",
        place="figure 4",
        published=published.REMOVED_ACCURACY,
        relation="~", bound=0.2,
    ),
    Comparison(
        name="first-and-39-cannot-be-removed",
        metric="removal_leads",
        statement="without block 0 the probability is lowest, then without block 39, then without "
        "any other (by at least 0.1 each)",
        place="figure 4",
        published=np.array([*(published.REMOVED_PROBABILITY[[39]] - 0.137), *_LEADS]),
        relation=">=", bound=0.1,
    ),
    Comparison(
        name="half-of-the-blocks-are-removable",
        metric="removable",
        statement="at least 40 % of the blocks can be removed, one after the other, before the "
        "accuracy falls below 0.91",
        place="layer removal",
        published=0.5,
        relation=">=", bound=0.4,
    ),
    Comparison(
        name="39-and-15-in-all-minimal-sets",
        metric="in_minimal_set",
        statement="blocks 39 and 15 are in the minimal sets of cross-talk of at least 90 % of "
        "templates and formats",
        place="figure 5",
        published=_sparse({39: 1.0, 15: 1.0}),
        relation=">=", bound=0.9,
    ),
    Comparison(
        name="39-is-found-first",
        metric="centre_first",
        statement="block 39 is the first one found of the minimal sets, of at least 90 % of "
        "templates and formats",
        place="figure 5",
        published=1.0,
        relation=">=", bound=0.9,
    ),
    Comparison(
        name="minimal-sets-are-those-published",
        metric="minimal_set_deviation",
        statement="each block is in as many minimal sets as published (± 0.1 on average)",
        place="figure 5",
        published=0.0,
        relation="<=", bound=0.1,
    ),
    Comparison(
        name="blocks-of-one-minimal-set",
        metric="trace",
        statement="cross-talk of blocks 39, 35, 15, 40 and 19 gives the published accuracies, with "
        "each of them one by one (± 0.2)",
        place="released notebooks",
        published=published.TRACE_ACCURACY,
        relation="~", bound=0.2,
    ),
    Comparison(
        name="39-reads-the-changed-name",
        metric="resample_centre",
        statement="a changed first mention of a name that block 39 alone reads has an effect of at "
        "least 0.4",
        place="figure 3",
        published=(0.43, 0.43, 0.43),
        relation=">=", bound=0.4,
    ),
    Comparison(
        name="first-block-reads-the-changed-name",
        metric="resample_first",
        statement="one that block 0 alone reads has an effect of 0.35 (± 0.1)",
        place="figure 3",
        published=(0.35, 0.35, 0.35),
        relation="~", bound=0.1,
    ),
    Comparison(
        name="second-mention-is-read-by-both",
        metric="resample_second",
        statement="of a changed second mention, the effects are 0.28 in block 39 and 0.39 in "
        "block 0 (± 0.1)",
        place="figure 3",
        published=(0.28, 0.39),
        relation="~", bound=0.1,
    ),
    Comparison(
        name="no-other-block-reads-the-changed-name",
        metric="resample_others",
        statement="a changed first mention that any other block alone reads has no effect (± 0.1)",
        place="figure 3",
        published=np.zeros((46, 3)),
        relation="~", bound=0.1,
    ),
    Comparison(
        name="39-shifts-names-by-one",
        metric="shift",
        statement="tap 1 of block 39 behind the changed name has an effect of 0.95 (± 0.05), in "
        "every format",
        place="figure 7",
        published=(0.95,) * 5,
        relation="~", bound=0.05,
    ),
    Comparison(
        name="no-other-tap-of-39",
        metric="tap_effects",
        statement="the effects of all taps of block 39 at all tokens are those published (± 0.1)",
        place="figure 7",
        published=published.TAPS,
        relation="~", bound=0.1,
    ),
    Comparison(
        name="no-other-block-shifts-names",
        metric="shift_others",
        source="seqtheory",
        statement="behind the changed name, tap 1 of no other block has an effect, in the mean "
        "over formats (± 0.1)",
        place="indirect object identification",
        published=np.zeros(47),
        relation="~", bound=0.1,
    ),
    Comparison(
        name="bands-behind-names",
        metric="band",
        statement="what is written behind the first two names has a mean cosine of at least 0.5 "
        "with all later states of block 39",
        place="figure 6",
        published=published.BAND,
        relation=">=", bound=0.5,
    ),
    Comparison(
        name="bands-start-one-token-late",
        metric="band_start",
        statement="that is at least 0.2 more than of what is written at the names themselves",
        place="figure 6",
        published=np.subtract(published.BAND, published.NAMES),
        relation=">=", bound=0.2,
    ),
    Comparison(
        name="names-are-added",
        metric="add_subtract",
        statement="adding the mean of a name and subtracting another swaps them as often as "
        "published (± 0.2)",
        place="figure 8",
        published=published.ADD_SUBTRACT,
        relation="~", bound=0.2,
    ),
    Comparison(
        name="names-are-replaced",
        metric="replace",
        statement="replacing by the mean of a name swaps it as often as published (± 0.2)",
        place="figure 8",
        published=published.REPLACE,
        relation="~", bound=0.2,
    ),
    Comparison(
        name="mentions-of-a-kind-share-a-code",
        metric="replace_within",
        statement="the mean of a slot of the same kind of mention, first or second, swaps at "
        "least 80 %",
        place="figure 8",
        published=_blocks(published.REPLACE, within=True),
        relation=">=", bound=0.8,
    ),
    Comparison(
        name="kinds-of-mentions-have-two-codes",
        metric="replace_across",
        statement="that of a slot of the other kind swaps at most 70 %",
        place="figure 8",
        published=_blocks(published.REPLACE, within=False),
        relation="<=", bound=0.7,
    ),
)  # fmt: skip
