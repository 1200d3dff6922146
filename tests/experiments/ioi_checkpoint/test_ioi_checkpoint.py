"""The study of a checkpoint: tiny ones on disk run through it, and made-up ones through its claims.

Random models know nothing of the task: what is checked is what is measured of them, and that
published numbers say nothing about them.
"""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from experiments.checkpoint import CheckpointError
from experiments.claims import asserted
from experiments.commands import main
from experiments.interventions.acdc import Refined
from experiments.interventions.circuit_search import Found, ranked
from experiments.interventions.edge_attribution import Attribution, attribute, midpoints
from experiments.interventions.edge_patching import exact
from experiments.interventions.greedy_ablations import GreedyOrder
from experiments.interventions.pair_runs import pair_runs
from experiments.ioi_checkpoint import edges, maps, published
from experiments.ioi_checkpoint.comparison import compared
from experiments.ioi_checkpoint.edges import edges_between
from experiments.ioi_checkpoint.maps import Subject
from experiments.models import checkpoints
from experiments.models.backbone import ModelConfig, SequenceModel
from experiments.studies.ioi_checkpoint import COMPARISONS, PARTS, IOICheckpoint, digest
from experiments.tasks.ioi import FORMATS
from experiments.tasks.ioi_text import read_grammar
from experiments.tasks.sequences import DataFileError

pytest.importorskip("tokenizers")
from tests.experiments.tasks.test_ioi_text import write

SHARE = 0.02
CLAIMS = {claim.name: claim for claim in IOICheckpoint.claims}


def random_model(vocab_size, *, layers, d_model, mixer="mamba"):
    options = {"d_state": 2, "dt_rank": 1} if mixer == "mamba" else {}
    config = ModelConfig(
        layers=(mixer,) * layers, d_model=d_model, vocab_size=vocab_size, mixers={mixer: options}
    )
    return SequenceModel(config, seed=0)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The same three layers in both layouts."""
    found = {}
    for layout in ("huggingface", "state-spaces"):
        found[layout] = tmp_path_factory.mktemp(layout)
        tokens = write(found[layout]).get_vocab_size()
        checkpoints.export(random_model(tokens, layers=3, d_model=16), found[layout], layout=layout)
    return found


@pytest.fixture(scope="module")
def subject(folders):
    folder = folders["huggingface"]
    return Subject(model=checkpoints.load(folder), grammar=read_grammar(folder), share=SHARE)


@pytest.fixture(scope="module")
def deep(subject):
    """As many blocks as published, and two pairs."""
    tokens = subject.grammar.vocab_size
    model = random_model(tokens, layers=published.LAYERS, d_model=4)
    return replace(subject, model=model, share=0.001)


def with_one_template(subject):
    """The greedy search is for every template."""
    grammar = replace(subject.grammar, templates=subject.grammar.templates[:1])
    return replace(subject, grammar=grammar)


def measure(folder, part):
    (trial,) = IOICheckpoint(folder=str(folder), parts=(part,), share=SHARE).trials()
    return IOICheckpoint.measure(trial.rng, **trial.config)


@pytest.mark.parametrize("part", PARTS)
def test_every_part_runs(subject, part):
    found = PARTS[part](with_one_template(subject) if part == "cross-talk" else subject)
    assert found
    for name, values in found.items():
        if part != "swaps":  # where pairs that cannot be swapped are NaN
            assert np.isfinite(values).all(), name


def test_both_layouts_give_the_same_numbers(folders):
    ours, theirs = (measure(folder, "accuracy") for folder in folders.values())
    assert ours.keys() == theirs.keys()
    for key, value in ours.items():
        if key == "weights":
            assert value != theirs[key]
        else:
            np.testing.assert_array_equal(value, theirs[key])
    assert ours["weights"] == digest(folders["huggingface"])
    assert (ours["layers"], ours["d_model"], ours["names"]) == (3, 16, 6)
    assert ours["example_logits"].shape == (2, 2, 1)


def test_published_numbers_say_nothing_of_other_models(folders):
    row = measure(folders["huggingface"], "accuracy")
    assert not row["is_370m"]
    table = IOICheckpoint.table(pandas.DataFrame([row]))
    for claim in IOICheckpoint.claims:
        verdict = claim.check(table)
        assert asserted(verdict, claim) == "undecided"
        assert verdict.evidence.startswith("not run at this preset: no row has is_370m = True")


def test_the_example_prompt_is_the_published_one(subject):
    tokens = maps._example(subject.grammar, "Lauren")
    assert "".join(subject.grammar.words(torch.tensor(tokens))) == (
        "<|endoftext|>Friends Lauren, Isaac and Lucas went to the office. "
        "Isaac and Lucas gave a necklace to"
    )
    assert maps._example(subject.grammar, "Zbigniew") is None


def test_sizes_and_seeds(subject):
    assert len(subject.pairs(200)) == 4
    assert len(subject.pairs(1)) == 2
    assert subject.centre == 2
    other = subject.pairs(200, seed=28)
    assert not torch.equal(subject.pairs(200).clean, other.clean)
    for kind, pairs in enumerate(subject.of_each_format(300)):
        assert (pairs.meta["format"] == kind).all()
        ((_, at),) = {(int(i), int(j)) for i, j in pairs.changed.nonzero() if i == 0}
        assert published.CHANGED[kind] == at == maps._changed(pairs)
        assert pairs.length == published.LENGTH


def test_taps_and_positions_are_those_of_the_changed_names(subject, monkeypatch):
    """Effects that tell where they are."""

    def effects(model, pairs, blocks=(0, 1, 2), **options):
        cells = torch.arange(80.0).view(4, 20, 1).expand(-1, -1, len(pairs))
        return torch.stack([cells + 1000 * block for block in blocks])

    monkeypatch.setattr(maps, "tap_map", effects)
    everything = PARTS["taps"](subject)
    found = everything["shift"] - 2000
    expected = [20 + at + 1 for at in published.CHANGED]
    np.testing.assert_array_equal(found, np.tile(np.array(expected)[:, None], found.shape[1]))
    assert everything["shift_others"].shape == (2, 2)
    np.testing.assert_allclose(everything["shift_others"].T, np.mean(expected) + [[0, 1000]] * 2)
    assert everything["tap_map"].shape == (5, 3, 4, 20)

    def cells(model, pairs, **options):
        blocks, length = torch.meshgrid(torch.arange(48.0), torch.arange(20.0), indexing="ij")
        return (100 * blocks + length)[..., None].expand(-1, -1, len(pairs))

    monkeypatch.setattr(maps, "resample_map", cells)
    monkeypatch.setattr(Subject, "centre", published.CENTRE)
    found = PARTS["resample"](subject)
    assert found["resample_centre"][:, 0].tolist() == [3903, 3905, 3907]
    assert found["resample_first"][:, 0].tolist() == [3, 5, 7]
    assert found["resample_second"][:, 0].tolist() == [3913, 13]
    assert found["resample_others"].shape[:2] == (46, 3)
    others = {*range(1, 48)} - {39}
    assert {int(x) // 100 for x in found["resample_others"].flat} == others
    assert FORMATS[4].changed == "n4"


def test_blocks_of_minimal_sets_are_counted(deep, monkeypatch):
    """Block 39 is found first in formats of even numbers."""

    def found(model, pairs, **options):
        order = (39, 15) if int(pairs.meta["format"][0]) % 2 == 0 else (15, 39)
        return GreedyOrder(order=order, accuracy=(0.0, 0.5, 0.95))

    def patched(model, pairs, sets, **options):
        left = [[len({*range(48)} - some)] * len(pairs) for some in sets]
        return SimpleNamespace(candidate_accuracy=torch.tensor(left, dtype=torch.float64))

    monkeypatch.setattr(maps, "greedy_cross_talk", found)
    monkeypatch.setattr(maps, "cross_talk", patched)
    metrics = PARTS["cross-talk"](deep)
    assert metrics["centre_first"].mean() == 3 / 5
    assert metrics["in_minimal_set"].shape == (48, 20)
    assert metrics["in_minimal_set"][[15, 39]].all()
    assert metrics["in_minimal_set"].sum() == 40
    rest = published.MINIMAL_SETS.sum() - 2
    assert metrics["minimal_set_deviation"] == pytest.approx(rest / 48)
    assert metrics["trace"].mean(axis=1).tolist() == [0, 1, 2, 3, 4, 5]


def test_a_pair_and_its_exchange_are_one_repeat(subject):
    """Four pairs, then the same exchanged."""
    values = torch.tensor([[0.0, 1.0, 2.0, 3.0, 10.0, 11.0, 12.0, 13.0]])
    assert maps.by_pair(values).tolist() == [[5.0, 6.0, 7.0, 8.0]]
    pairs = subject.pairs(200)
    runs = pair_runs(subject.model, pairs.doubled()).clean.logit_difference
    both = [pair_runs(subject.model, x).clean.logit_difference for x in (pairs, pairs.swapped())]
    np.testing.assert_allclose(maps.by_pair(runs), (both[0] + both[1]) / 2, atol=1e-6)


def test_without_blocks_the_first_and_the_centre_lead(subject):
    found = PARTS["ablations"](subject)
    p = found["removed_probability"]
    np.testing.assert_array_equal(found["removal_leads"], [p[2] - p[0], p[1] - p[2]])


def planted_circuit(runs, *, positional=False):
    """Exactly the published sets, where the real search is stubbed."""
    graph = runs.graph
    kept = torch.zeros(*graph.edges.shape, 20 if positional else 1, dtype=torch.bool)
    if positional:
        for at, blocks in published.POSITIONAL_INTO.items():
            kept[[1 + block for block in blocks], 39, at] = True
        for source, cells in ((40, published.POSITIONAL_FROM), (0, published.POSITIONAL_EMBED),
                              (1, published.POSITIONAL_FIRST)):  # fmt: skip
            for at, blocks in cells.items():
                kept[source, list(blocks), at] = True
    else:
        kept[:40, 39] = kept[0, :40] = kept[1, 1:40] = True
        kept[[1 + block for block in published.TO_OUTPUT], 48] = True
    scores = torch.zeros(*kept.shape, len(runs.pairs), dtype=torch.float64)
    scored = Attribution(method="gates", points=(0.5,), scores=scores, effect_of_all=-1.0)
    found = Found(circuit=kept, size=int(kept.sum()), nld=0.9, accuracy=0.9, evaluations=1)
    return scored, ranked(graph, scored.mean), found


def test_published_circuits_overlap_with_themselves(deep, monkeypatch):
    monkeypatch.setattr(edges, "_circuit", planted_circuit)
    monkeypatch.setattr(edges, "attribute", lambda runs, *args, **options: planted_circuit(runs)[0])
    found = PARTS["edges"](deep)
    assert np.abs(found["completeness_gap"]) == pytest.approx(1.0)  # no score at all
    assert found["circuit_overlap"].tolist() == [[1.0]] * 4
    assert found["scores"].shape == (5, 2)
    # The embedding feeds 39 there too, and block 0 does so where POSITIONAL_INTO has it.
    assert PARTS["positional"](deep)["positional_overlap"].min() >= 0.95


def test_correlations_with_patching_are_of_groups_of_pairs(subject):
    """Of all edges of a small graph, against the same by hand; 12 pairs are five groups."""
    subject = replace(subject, share=0.06)
    found = PARTS["patching"](subject)
    runs = edges._runs(subject.model, subject.pairs(200).doubled())
    effects = exact(runs, positional=False)
    scored = attribute(runs, "eap", positional=False).scores
    acting = runs.graph.edges
    x, y = (maps.by_pair(values[acting][:, 0]) for values in (scored, effects))
    assert found["effects"].shape == y.shape == (len(runs.graph), 12)
    groups = [[0, 1, 2], [3, 4, 5], [6, 7], [8, 9], [10, 11]]
    expected = [np.corrcoef(x[:, i].mean(1), y[:, i].mean(1))[0, 1] for i in groups]
    np.testing.assert_allclose(found["eap_pearson"], expected, atol=1e-6)
    scores, effects = found["gates_scores"], found["effects"]
    ranks = [spearmanr(scores[:, i].mean(1), effects[:, i].mean(1))[0] for i in groups]
    np.testing.assert_allclose(found["gates_spearman"], ranks, atol=1e-6)


def test_of_many_edges_a_sample_is_patched_and_the_strongest(deep):
    found = PARTS["patching"](deep)
    count, pairs = found["effects"].shape
    assert found["eap_scores"].shape == (count, pairs)
    assert (50 <= count <= 60, pairs) == (True, 2)
    runs = edges._runs(deep.model, deep.pairs(200).doubled())
    every = maps.by_pair(
        attribute(runs, "gates", positional=False, points=midpoints(edges.POINTS)).scores
    )
    largest = np.sort(np.abs(every.mean(-1)).ravel())[-10:]
    sampled = np.sort(np.abs(found["gates_scores"].mean(axis=1)))
    np.testing.assert_allclose(sampled[-10:], largest, rtol=1e-4)


def test_groups_of_edges_lead_where_they_are_kept():
    """All of one group; groups at other tokens have nothing to do with it."""
    groups = [*published.REST]
    for number, (writers, readers, positions) in enumerate(published.REST.values()):
        kept = torch.zeros(48, 48, 20, dtype=torch.bool)
        kept[np.ix_(sorted(writers), sorted(readers), positions)] = True
        leads = edges.rest_leads(kept)
        assert leads[number] == 1.0, groups[number]
        assert np.delete(leads, number).max() < 0.2
        # Whatever is read at these tokens, not only by this group.
        kept = torch.zeros(48, 48, 20, dtype=torch.bool)
        kept[:, :, positions] = True
        assert edges.rest_leads(kept)[number] == 0.0
    assert edges.rest_leads(torch.zeros(48, 48, 20, dtype=torch.bool)).tolist() == [0.0] * 4
    assert edges.rest_leads(torch.ones(48, 48, 20, dtype=torch.bool)).tolist() == [0.0] * 4
    hidden = torch.zeros(48, 48, 20, dtype=torch.bool)
    hidden[[0, 39]] = hidden[:, [0, 39]] = True
    assert edges.rest_leads(hidden).tolist() == [0.0] * 4


def test_refined_circuits_are_counted_by_blocks_taps_and_gates(deep, monkeypatch):
    def refined(runs, start, *, groups):
        graph, kept = runs.graph, torch.zeros_like(start)
        for block in published.REFINED_INTO:
            kept[1 + block, graph.destinations.index("39.tap.1")] = True
            kept[1 + block, graph.destinations.index("39.tap.2")] = True
        for block in published.REFINED_FROM - {48}:
            kept[40, graph.destinations.index(f"{block}.gate")] = True
        kept[40, -1] = True
        groups, drops = zip(
            *((edges_between(graph, *names).nonzero(), drop) for names, drop in some), strict=True
        )
        return Refined(circuit=kept, kept=groups, drops=drops, nld=(1.0,), evaluations=1)

    some = list(published.DROPS.items())[1::2]

    monkeypatch.setattr(edges, "_circuit", planted_circuit)
    monkeypatch.setattr(edges, "acdc", refined)
    found = PARTS["refinement"](deep)
    assert found["refined_overlap"].tolist() == [[1.0]] * 2
    # Taps 1 and 2 are of block 39 alone, in place of five blocks and of two.
    assert found["tap_overlap"].tolist() == [[1 / 5], [1 / 2]]
    assert found["early_taps_kept"] == 0
    assert found["centre_taps_kept"][:, 0].tolist() == list(published.TAPS_KEPT)
    assert found["far_taps_kept"] == 0
    # 36 and 5 edges between blocks, and five branches: two taps and four gates; of 1465.
    # Those removed have fallen by nothing.
    assert found["drops"][1::2, 0].tolist() == [drop for _, drop in some]
    assert not found["drops"][::2].any()
    assert found["all_drops"].tolist() == [drop for _, drop in some]
    ranks = spearmanr(found["drops"][:, 0], list(published.DROPS.values()))[0]
    assert found["order_of_drops"] == pytest.approx(ranks)
    assert found["kept_share"] == pytest.approx((36 + 5 + 2 + 4) / (1225 + 48 * 5))


def planted(comparison, by=0.0):
    """Three pairs that scatter about the published numbers, which are moved by so much."""
    scatter = 1e-4 * comparison.bound * np.linspace(-1, 1, 3)
    if comparison.relation != "~":
        scatter = np.zeros(3)
    return np.nan_to_num(comparison.values)[..., None] + by + scatter


@pytest.mark.parametrize("comparison", COMPARISONS, ids=lambda comparison: comparison.name)
def test_planted_numbers_decide_each_claim(comparison):
    """Published ones support it; one that is too far off in a single cell refutes it."""
    claim = CLAIMS[comparison.name]

    def outcome(metric):
        rows = pandas.DataFrame([{"is_370m": True, comparison.metric: metric}])
        return claim.check(compared(rows, [comparison])).outcome

    assert outcome(planted(comparison)) == "supported"
    by = {"~": 1.1 * comparison.bound, "<=": 1 + comparison.bound, ">=": -1 - comparison.bound}
    spoiled = planted(comparison)
    cell = np.unravel_index(np.nanargmin(comparison.values), comparison.values.shape)
    spoiled[cell] += by[comparison.relation] - (comparison.relation == ">=")
    assert outcome(spoiled) == "refuted"
    if comparison.relation == "~":
        spoiled[cell] -= 2 * by["~"]
        assert outcome(spoiled) == "refuted"


def test_all_published_numbers_together_come_out_as_expected():
    """One trial a part, as in the store; printed scores are refuted by those of pairs."""
    metrics = {c.metric: planted(c) for c in COMPARISONS if c.expected == "supported"}
    by_sum = np.array([*published.PRINTED_SCORES.values()]) / published.SCALE
    metrics["scores"] = metrics["score_ratios"] * by_sum[:, None]
    rows = [{"is_370m": True, name: values} for name, values in metrics.items()]
    table = IOICheckpoint.table(pandas.DataFrame(rows))
    for claim in IOICheckpoint.claims:
        assert asserted(claim.check(table), claim) == "as expected", claim.name


@settings(max_examples=25)
@given(by=st.floats(-0.2, 0.2), cell=st.integers(0, 4), pairs=st.integers(2, 5))
def test_close_is_within_the_bound(by, cell, pairs):
    """Whatever is moved, and by however little beyond."""
    comparison = next(c for c in COMPARISONS if c.name == "39-shifts-names-by-one")
    assume(abs(abs(by) - comparison.bound) > 1e-9)
    metric = np.tile(comparison.values[:, None], pairs)
    metric[cell] += by
    rows = pandas.DataFrame([{"is_370m": True, "shift": metric}])
    verdict = comparison.claim.check(compared(rows, [comparison]))
    assert verdict.outcome == ("supported" if abs(by) < comparison.bound else "refuted")
    assert verdict.points == 10


def test_what_scatters_too_much_is_not_decided():
    comparison = next(c for c in COMPARISONS if c.name == "names-the-third")
    rows = pandas.DataFrame([{"is_370m": True, "accuracy": np.array([1.0, 1.0, 1.0, 0.0])}])
    assert comparison.claim.check(compared(rows, [comparison])).outcome == "inconclusive"


def test_a_metric_with_other_cells_is_named():
    rows = pandas.DataFrame([{"is_370m": True, "removed_probability": np.zeros((3, 2))}])
    with pytest.raises(ValueError, match="'removed_probability' must have cells"):
        IOICheckpoint.table(rows)


def test_cells_are_named_and_cells_without_a_number_left_out():
    chosen = [c for c in COMPARISONS if c.metric in ("in_minimal_set", "scores")]
    metrics = {"in_minimal_set": np.ones((48, 2)), "scores": np.zeros((5, 2))}
    table = compared(pandas.DataFrame([{"is_370m": True, **metrics}]), chosen)
    cells = table.groupby("claim")["cell"].unique()
    assert list(cells["39-and-15-in-all-minimal-sets"]) == ["15", "39"]
    assert "39 -> output (above)" in cells["scores-as-printed"]


def test_missing_files_are_named(tmp_path, folders):
    with pytest.raises(CheckpointError, match="no such folder; it should have the weights and"):
        measure(tmp_path / "nowhere", "accuracy")
    with pytest.raises(DataFileError, match=r"must have a file tokenizer\.json"):
        measure(tmp_path, "accuracy")
    tokens = write(tmp_path).get_vocab_size()
    with pytest.raises(CheckpointError, match="no weights here"):
        measure(tmp_path, "accuracy")
    checkpoints.save(random_model(tokens, layers=2, d_model=4, mixer="mlp"), tmp_path)
    with pytest.raises(CheckpointError, match="all layers must be those of Mamba"):
        measure(tmp_path, "accuracy")
    Path(tmp_path / "names.txt").unlink()
    with pytest.raises(DataFileError, match=r"must have a file names\.txt"):
        measure(tmp_path, "accuracy")


def test_the_command_line_says_what_is_missing(tmp_path, capsys):
    arguments = ["--workers", "0", "--results", str(tmp_path), "--folder", str(tmp_path / "gone")]
    assert main(["run", "ioi-checkpoint", "--preset", "paper", *arguments]) == 1
    said = capsys.readouterr()
    assert f"{len(PARTS)} failed" in said.err
    assert f"CheckpointError: {tmp_path / 'gone'}: no such folder" in said.err
    assert main(["run", "ioi-checkpoint"]) == 2
    assert "has no preset 'quick'; its presets: medium, paper" in capsys.readouterr().err


def test_unknown_parts_and_shares_are_named():
    with pytest.raises(ValueError, match="part must be one of 'accuracy'"):
        IOICheckpoint(parts=("maps",)).trials()
    with pytest.raises(ValueError, match="share must be a finite number > 0"):
        IOICheckpoint(share=0.0).trials()
    assert len(IOICheckpoint.at("medium").trials()) == len(PARTS)


def test_published_claims_are_those_of_the_right_model():
    names = [comparison.name for comparison in COMPARISONS]
    assert len(set(names)) == len(names)
    assert all(claim.where["is_370m"] is True for claim in IOICheckpoint.claims)
    corrected = [claim for claim in IOICheckpoint.claims if claim.expected == "refuted"]
    assert [claim.corrected_by for claim in corrected] == ["scores-by-pair"]
