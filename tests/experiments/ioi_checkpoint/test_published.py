"""The published numbers: their shapes, and sums that a slip of the pen would change."""

import numpy as np
import pytest

from experiments.interventions.acdc import layer_and_branch_groups
from experiments.interventions.edge_graph import EdgeGraph
from experiments.ioi_checkpoint import published
from experiments.ioi_checkpoint.edges import edges_between
from experiments.models.backbone import ModelConfig, SequenceModel
from experiments.tasks.ioi import FORMATS, IOI


@pytest.fixture(scope="module")
def graph():
    config = ModelConfig(
        layers=("mamba",) * 48, d_model=2, vocab_size=5, mixers={"mamba": {"d_state": 1}}
    )
    return EdgeGraph(SequenceModel(config, seed=0), resolution="tap")


def test_positions_are_those_of_the_prompts():
    for template in (0, 1, 3):
        for kind, changed in enumerate(published.CHANGED):
            pairs = IOI(templates=(template,), formats=(kind,)).pairs(3, seed=0)
            roles = {role: int(at[0]) for role, at in pairs.roles.items()}
            assert tuple(roles.values()) == (*published.POSITIONS, published.OUT)
            assert roles[FORMATS[kind].changed] == changed
            assert pairs.length == published.LENGTH


def test_shares_of_minimal_sets_are_of_twenty():
    """On average 8.65 blocks in a set."""
    assert published.MINIMAL_SETS.sum() == pytest.approx(8.65)
    np.testing.assert_allclose(20 * published.MINIMAL_SETS % 1, 0, atol=1e-9)
    assert (published.MINIMAL_SETS > 0).sum() == 27
    assert set(published.TRACE) < set(np.flatnonzero(published.MINIMAL_SETS))


def test_everything_is_a_share_where_it_has_to_be():
    for values in (
        published.REMOVED_PROBABILITY, published.REMOVED_ACCURACY, published.MINIMAL_SETS,
        published.ADD_SUBTRACT, published.REPLACE, published.TRACE_ACCURACY, published.TAPS,
        list(published.DROPS.values()), published.PROBABILITIES,
    ):  # fmt: skip
        assert np.min(values) >= 0
        assert np.max(values) <= 1
    assert np.all(np.diff(published.TRACE_ACCURACY) > 0)
    assert published.ADD_SUBTRACT.shape == published.REPLACE.shape == (5, 5)
    assert list(np.argsort(published.REMOVED_PROBABILITY)[:3]) == [0, 39, 47]
    assert (published.TAPS > 0).sum() == 6


def test_groups_of_drops_are_groups_that_refinement_tries(graph):
    """Otherwise what it loses without them would go unnoticed."""
    tried = {frozenset(map(tuple, group.tolist())) for group in layer_and_branch_groups(graph)}
    for names in published.DROPS:
        assert frozenset(map(tuple, edges_between(graph, *names).nonzero().tolist())) in tried


def test_blocks_and_groups_of_edges_are_as_many_as_published():
    assert {name: len(blocks) for name, blocks in published.BLOCKS_KEPT.items()} == {
        "tap 1": 5, "tap 2": 2,
    }  # fmt: skip
    assert published.BLOCKS_KEPT["tap 1"] & published.BLOCKS_KEPT["tap 2"] == {39}
    counts = {
        name: sum(i < j for i in writers for j in readers) * len(positions)
        for name, (writers, readers, positions) in published.REST.items()
    }
    assert list(counts.values()) == [5 * 8 * 2, 3 * 5, 11, 15 * 3]


def test_scores_are_divided_by_the_batch():
    """390 pairs by 30 and 10 by 10: 3.5 %, so that the first edge is -0.28 a pair, not -0.01."""
    assert published.SCALE == pytest.approx(0.035)
    scores = [score / published.SCALE for score in published.PRINTED_SCORES.values()]
    assert scores == pytest.approx([-0.283, -0.169, -0.111, -0.046, -0.031], abs=5e-4)
    exact = [published.DROPS[edge] for edge in published.PRINTED_SCORES]
    assert exact == pytest.approx([0.698, 0.629, 0.352, 0.106, 0.084])


def test_named_edges_exist(graph):
    for source, reader in published.DROPS:
        edges = edges_between(graph, source, reader)
        into = sum(name == reader or name.startswith(f"{reader}.") for name in graph.destinations)
        block = graph.destination_block[edges.any(0)[:, 0]][0]
        assert int(edges.sum()) == into * (graph.before(int(block)) if source == "*" else 1)
    assert not edges_between(graph, "47", "39").any()
    assert int(edges_between(graph, "3", "30").sum()) == 5  # not into 3, 300, ...


def test_sets_of_edges_stay_inside_the_graph():
    assert all(block < 39 for blocks in published.POSITIONAL_INTO.values() for block in blocks)
    assert all(
        39 < block <= 48 for blocks in published.POSITIONAL_FROM.values() for block in blocks
    )
    assert all(39 < block <= 48 for block in published.REFINED_FROM)
    sizes = {at: len(blocks) for at, blocks in published.POSITIONAL_INTO.items()}
    assert sizes == {3: 38, 5: 38, 7: 38, 13: 35, 15: 35, 6: 1, 14: 3, 19: 7}
    for cells in (published.POSITIONAL_EMBED, published.POSITIONAL_FIRST):
        assert set(cells) == set(published.POSITIONS)
        assert max(max(blocks) for blocks in cells.values()) == 40
    # Of 41 and 38 blocks, less 1 and 2 at all names, and those that lack it.
    assert [len(blocks) for blocks in published.POSITIONAL_EMBED.values()] == [30, 37, 32, 34, 32]
    assert [len(blocks) for blocks in published.POSITIONAL_FIRST.values()] == [30, 34, 35, 29, 31]
