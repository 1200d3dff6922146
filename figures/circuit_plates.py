"""The figures of toys, of indirect object identification and of circuits."""

from __future__ import annotations

from figures import circuit_graph, circuits, ioi_maps
from figures.plate import Plate

CIRCUIT_PLATES: dict[str, Plate] = {
    "ioi-resample": Plate(
        ("ioi-maps",),
        "Where it matters that a token is another one: share of the logit difference that is lost "
        "when one block reads one token of the corrupted prompt, by block, token and format of the "
        "pair. Boxes: the name that differs. Means over the seeds that have learned the task.",
        ioi_maps.ioi_resample,
    ),
    "ioi-taps": Plate(
        ("ioi-maps",),
        "How far the convolution of the bottleneck looks back: share of the logit difference that "
        "is lost when one of its taps reads the corrupted prompt. Boxes: tap k at k tokens behind "
        "the name that differs, where it reads this name. In mamba-370m, tap 1 of layer 39 has an "
        "effect of 0.95; here the taps depend on the seed.",
        ioi_maps.ioi_taps,
    ),
    "ioi-ablations": Plate(
        ("ioi-maps",),
        "Left: answers that are right if the tokens that a block mixes are those of the corrupted "
        "prompt, for all blocks but one, for all, and for none; hatched: a block that mixes none. "
        "Right: probability of the answer among the names without a block, and with all. Bars: "
        "means; dots: seeds.",
        ioi_maps.ioi_ablations,
    ),
    "ioi-cosines": Plate(
        ("ioi-maps",),
        "Top: cosines of what each token writes into the state of the bottleneck and of the state "
        "at every token, means over prompts. Below: cosines of the mean codes of a name in two "
        "slots, without the mean of the slot, in what the state-space model is told and in what it "
        "writes into its state.",
        ioi_maps.ioi_cosines,
    ),
    "ioi-swaps": Plate(
        ("ioi-maps",),
        "Names swapped by their mean codes in what the bottleneck's state-space model is told, at "
        "all tokens that its convolution carries them to: share of prompts with the answer of the "
        "swap, by the slot that is edited and the slot of the mean. Last line: mean writes added "
        "and subtracted in the state only, while steps, B, C, skip and gate stay as they are. In "
        "mamba-370m, at one token behind the name.",
        ioi_maps.ioi_swaps,
    ),
    "ioi-writes": Plate(
        ("ioi-maps",),
        "What each token writes into the state of the bottleneck, as read at the last token: "
        "toward the name of each slot, beside names that the prompt has not, and toward the answer "
        "beside that of the corrupted prompt. Boxes: tokens that the convolution carries the name "
        "to, whose sums are at the right: for first mentions, against second ones.",
        ioi_maps.ioi_writes,
    ),
    "toys": Plate(
        ("toys",),
        "Accuracy of small models on new prompts while they train, a line for every seed; dotted: "
        "that of mamba-370m on indirect object identification.",
        circuits.toys,
    ),
    "edge-agreement": Plate(
        ("edge-attribution",),
        "Scores of edges at single positions against the effects of patching each of them alone, "
        "means over pairs; grey: equal; linear within 0.01, logarithmic beyond. Correlations and "
        "their bootstrap intervals over pairs are means over the seeds that have learned the task. "
        "Below: what the scores of all edges add up to, beside the effect of patching all of them.",
        circuits.edge_agreement,
    ),
    "faithfulness": Plate(
        ("circuits",),
        "Circuits of the edges that a method ranks first, all others patched, on other pairs than "
        "the ranking is of: logit difference kept, and pairs answered. Thin: seeds; thick: their "
        "mean. Marks: the smallest circuits that answer 85 % of the first pairs (integrated "
        "gates), as many random edges, and all edges but the circuit. Vertical: share of the edges "
        "between the blocks of mamba-370m in its published circuit, without positions.",
        circuits.faithfulness,
    ),
    "circuit": Plate(
        ("circuits", "edge-attribution"),
        "The circuit of one model: edges from what is written at a token to the blocks that read "
        "it, by branch; tap k carries a token k positions on. Widths: roots of the scores by "
        "integrated gates; faint: edges that automatic circuit discovery removes. Blocks carry "
        "what they have read onward in their states. Below: Jaccard indices of the circuits of "
        "any two seeds, and, on the diagonal, of two halves of the pairs.",
        circuit_graph.circuit,
    ),
}
