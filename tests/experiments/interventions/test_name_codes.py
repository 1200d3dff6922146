"""Means of what is read at names, and swaps of them."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.interventions.name_codes import (
    FIRST_MENTIONS,
    SITES,
    SLOTS,
    NameMeans,
    name_means,
    swap_margins,
    swap_successes,
)
from tests.experiments.interventions.made_codes import (
    NAMES,
    V,
    named_pairs,
    network,
    recorded,
    tallying,
)


def planted(values, offsets=(0, 1), block=1, site="ssm_input"):
    """The same value of every name in every slot: (names, offsets, channels)."""
    return NameMeans(
        block=block,
        site=site,
        offsets=offsets,
        slots=SLOTS,
        names=torch.arange(V - NAMES, V),
        mean=values.expand(len(SLOTS), *values.shape),
        count=torch.ones(len(SLOTS), NAMES, dtype=torch.int64),
    )


def margin(logits, target, answer):
    rows = torch.arange(len(logits))
    return logits[rows, target] - logits[rows, answer]


def live(model, pairs, site):
    """What is at a site of block 1: (pairs, length, channels)."""
    stem = f"blocks.1.mixer.{site}"
    if site == "ssm_input":
        return recorded(model, pairs.clean, stem)[stem]
    found = recorded(model, pairs.clean, f"{stem}.*")
    return torch.stack([found[f"{stem}.{t}"] for t in range(pairs.length)], dim=1)


@torch.no_grad()
def patched(model, pairs, values=None, site="ssm_input"):
    """Logits with these values at a site of block 1, by default those that are there."""
    stem = f"blocks.1.mixer.{site}"
    edits = {stem: values} if site == "ssm_input" else {}
    if site == "write":
        edits = {f"{stem}.{t}": values[:, t] for t in range(pairs.length)}
    with model.patch(edits if values is not None else {}):
        return model(pairs.clean)[torch.arange(len(pairs)), pairs.out]


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("mixer", ["mamba", "mamba2"])
@settings(max_examples=3)
@given(seed=st.integers(0, 100), offsets=st.sampled_from([(0,), (1,), (0, 2)]))
def test_means_are_those_of_loops(mixer, site, seed, offsets):
    model, pairs = network("mamba", mixer, seed=seed), named_pairs(11, seed=seed)
    pairs = replace(pairs, roles={**pairs.roles, "n2": pairs.roles["n2"].clone()})
    pairs.roles["n2"][3] = -1
    means = name_means(model, pairs, 1, offsets, site=site, rows=4)
    x = live(model, pairs, site)
    assert means.names.tolist() == sorted(set(means.names.tolist()))
    for slot, role in enumerate(means.slots):
        for which, name in enumerate(means.names.tolist()):
            seen = [
                torch.stack([x[pair, at + offset] for offset in offsets])
                for pair, at in enumerate(pairs.roles[role].tolist())
                if at >= 0 and pairs.clean[pair, at] == name
            ]
            assert means.count[slot, which] == len(seen)
            expected = torch.stack(seen).mean(0) if seen else torch.zeros_like(means.mean[0, 0])
            torch.testing.assert_close(means.mean[slot, which], expected)


def test_doubled_pairs_count_the_corrupted_prompts_too():
    model, pairs = network("mamba", "mamba"), named_pairs(10)
    assert name_means(model, pairs, 1, (1,)).count.sum() == 50
    assert name_means(model, pairs.doubled(), 1, (1,)).count.sum() == 100


def test_cosines_are_those_of_codes_without_the_means_of_slots():
    """Slots 0 and 1 have the same code about other means, slot 2 the opposite one."""
    rng = torch.Generator().manual_seed(0)
    code = torch.randn(NAMES, 2, 5, generator=rng, dtype=torch.float64)
    shift = 10 * torch.randn(len(SLOTS), 1, 2, 5, generator=rng, dtype=torch.float64)
    signs = torch.tensor([1.0, 3.0, -2.0, 1.0, -1.0], dtype=torch.float64)
    means = planted(code)
    means = replace(means, mean=signs[:, None, None, None] * code + shift)
    torch.testing.assert_close(means.cosines(), torch.outer(signs.sign(), signs.sign()))
    raw = means.mean.flatten(2)
    raw = raw / raw.norm(dim=-1, keepdim=True)  # negative control: with the means of slots
    uncentred = torch.einsum("swc,vwc->sv", raw, raw) / NAMES
    assert (uncentred - torch.outer(signs.sign(), signs.sign())).abs().max() > 0.1


def test_cosines_leave_out_names_that_a_slot_lacks():
    rng = torch.Generator().manual_seed(1)
    code = torch.randn(NAMES, 1, 5, generator=rng, dtype=torch.float64)
    means = planted(code, offsets=(1,))
    count = means.count.clone()
    count[1, 2:], count[2, :2] = 0, 0
    mean = torch.where(count[..., None, None] > 0, means.mean, 0)
    cosines = replace(means, mean=mean, count=count).cosines()
    assert cosines[1, 2].isnan()
    first, second = (code - code.mean(0))[:2, 0], (code[:2] - code[:2].mean(0))[:, 0]
    expected = torch.nn.functional.cosine_similarity(first, second).mean()
    torch.testing.assert_close(cosines[0, 1], expected)
    torch.testing.assert_close(cosines.diagonal(), torch.ones(5, dtype=torch.float64))


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("mixer", ["mamba", "mamba2"])
@pytest.mark.parametrize("slot", SLOTS)
def test_replacing_by_what_is_there_changes_nothing(mixer, site, slot):
    model, pairs = network("mamba", mixer), named_pairs(5)
    x = live(model, pairs, site)
    clean = patched(model, pairs)
    tried = 0
    for pair in range(5):
        here = pairs.roles[slot][pair] + torch.tensor([0, 1])
        there = x[pair, here]
        means = planted(there.expand(NAMES, *there.shape), site=site)
        margins = swap_margins(model, pairs, means, slot)[:, pair]
        old = pairs.clean[pair, pairs.roles[slot][pair]]
        target = pairs.corrupted_answer[pair] if slot in FIRST_MENTIONS else old
        expected = clean[pair, target] - clean[pair, pairs.answer[pair]]
        if not margins.isnan().all():
            tried += 1
            torch.testing.assert_close(margins, expected.expand(5))
            moved = replace(means, offsets=(1, 2))  # negative control: at other positions
            assert (swap_margins(model, pairs, moved, slot)[:, pair] - expected).abs().min() > 1e-6
    assert tried == (1 if slot in FIRST_MENTIONS else 5)


@settings(max_examples=5)
@given(seed=st.integers(0, 100), slot=st.sampled_from(SLOTS))
def test_adding_and_subtracting_equal_means_changes_nothing(seed, slot):
    model, pairs = network("mamba", "mamba", seed=seed), named_pairs(10, seed=seed)
    rng = torch.Generator().manual_seed(seed)
    means = planted(torch.randn(2, 16, generator=rng, dtype=torch.float64).expand(NAMES, -1, -1))
    margins = swap_margins(model, pairs, means, slot, how="add-subtract", rows=12)
    clean = patched(model, pairs)
    old = pairs.clean.gather(1, pairs.roles[slot][:, None])[:, 0]
    target = pairs.corrupted_answer if slot in FIRST_MENTIONS else old
    expected = margin(clean, target, pairs.answer).expand(5, -1)
    measured = ~margins.isnan()
    torch.testing.assert_close(margins[measured], expected[measured])
    assert measured.any()


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("how", ["replace", "add-subtract"])
@pytest.mark.parametrize("slot", SLOTS)
def test_margins_are_those_of_a_whole_run_patched_by_hand(how, slot, site):
    model, pairs = network("mamba", "mamba", "mamba"), named_pairs(10, seed=3)
    means = name_means(model, named_pairs(40, seed=4).doubled(), 1, (0, 1), site=site)
    margins = swap_margins(model, pairs, means, slot, how=how, rows=25)
    at, names = pairs.roles[slot], means.names.tolist()
    old = pairs.clean.gather(1, at[:, None])[:, 0]
    if slot in FIRST_MENTIONS:
        new = target = pairs.corrupted_answer
        allowed = (pairs.answer == old) & (pairs.meta["format"] == FIRST_MENTIONS.index(slot))
    else:
        new, target, allowed = pairs.answer, old, torch.ones(10, dtype=torch.bool)
    for source in (0, 4):
        x = live(model, pairs, site)
        for pair in range(10):
            here = at[pair] + torch.tensor([0, 1])
            code = means.mean[source, names.index(int(new[pair]))]
            if how == "add-subtract":
                code = x[pair, here] + code - means.mean[source, names.index(int(old[pair]))]
            x[pair, here] = code
        expected = margin(patched(model, pairs, x, site), target, pairs.answer)
        torch.testing.assert_close(margins[source, allowed], expected[allowed])
        assert margins[source, ~allowed].isnan().all()


def test_pairs_are_left_out_whose_names_have_no_mean():
    model, pairs = network("mamba", "mamba"), named_pairs(10)
    means = planted(torch.randn(NAMES, 2, 16, dtype=torch.float64))
    old, new = pairs.clean.gather(1, pairs.roles["n4"][:, None])[:, 0], pairs.answer
    for missing, ways in ((new[0], ("replace", "add-subtract")), (old[0], ("add-subtract",))):
        count = means.count.clone()
        count[2, means.names == missing] = 0
        for how in ("replace", "add-subtract"):
            margins = swap_margins(model, pairs, replace(means, count=count), "n4", how=how)
            assert bool(margins[2, 0].isnan()) == (how in ways)
            assert not margins[[0, 1, 3, 4]].isnan().any()
    fewer = replace(
        means, names=means.names[:-1], mean=means.mean[:, :-1], count=means.count[:, :-1]
    )
    unknown = swap_margins(model, pairs, fewer, "n4").isnan()
    assert torch.equal(unknown, (new == V - 1).expand(5, -1))


@pytest.mark.parametrize("how", ["replace", "add-subtract"])
def test_the_matrix_counts_margins(how):
    model, pairs = network("mamba", "mamba"), named_pairs(10)
    means = name_means(model, pairs.doubled(), 1, (0, 1))
    found = swap_successes(model, pairs, means, how=how)
    for edited, successes in zip(SLOTS, found, strict=True):
        margins = swap_margins(model, pairs, means, edited, how=how)
        assert torch.equal(successes.isnan(), margins.isnan())
        assert torch.equal(successes == 1, margins > 0)
    counts = dict(zip(SLOTS, (~found.isnan()).sum(dim=-1).amax(dim=1).tolist(), strict=True))
    assert max(counts[slot] for slot in FIRST_MENTIONS) <= 2 < counts["n4"] <= 10


@pytest.mark.parametrize("how", ["replace", "add-subtract"])
def test_codes_of_opposite_signs_swap_within_first_and_within_second_mentions(how):
    """Replacing +a by +b, or -b by -a, always changes the answer, replacing +a by -b never does."""
    model, pairs = tallying(), named_pairs(30)
    means = name_means(model, named_pairs(200, seed=1), 0, (0,))
    first = torch.tensor([1.0, 1, 1, -1, -1], dtype=torch.float64)
    torch.testing.assert_close(means.cosines(), torch.outer(first, first))
    matrix = swap_successes(model, pairs, means, how=how).nanmean(dim=-1)
    torch.testing.assert_close(matrix, (torch.outer(first, first) > 0).double())
    behind = name_means(model, named_pairs(200, seed=1), 0, (1,))  # negative control: no code there
    assert not swap_successes(model, pairs, behind, how=how).nansum()


def test_other_slots_and_first_mentions():
    model, pairs = network("mamba", "mamba"), named_pairs(10)
    means = name_means(model, pairs, 1, (1,), slots=("n1", "n5"))
    assert means.slots == ("n1", "n5")
    as_first = swap_margins(model, pairs, means, "n1")
    as_second = swap_margins(model, pairs, means, "n1", first=())
    assert as_first.isnan().sum() > as_second.isnan().sum()


def test_bad_arguments_are_named():
    model, pairs = network("mamba", "attention"), named_pairs(3)
    with pytest.raises(ValueError, match=r"slot must be one of 'n1'.* got 'n9'"):
        name_means(model, pairs, 0, (0,), slots=("n1", "n9"))
    for block in (1, 2):
        with pytest.raises(ValueError, match=f"block must be one whose mixer .* got {block}"):
            name_means(model, pairs, block, (0,))
    with pytest.raises(ValueError, match="site must be one of 'ssm_input', 'write'"):
        name_means(model, pairs, 0, (0,), site="h")
    with pytest.raises(ValueError, match="offsets must not lead from 'n5' past the prompt"):
        name_means(model, pairs, 0, (4,))
    for offsets in ((), (-1,), (1, 1)):
        with pytest.raises(ValueError, match="offsets must be different numbers from 0 up"):
            name_means(model, pairs, 0, offsets)
    means = name_means(model, pairs, 0, (0,))
    with pytest.raises(ValueError, match="how must be one of 'replace', 'add-subtract'"):
        swap_margins(model, pairs, means, "n1", how="add")
    with pytest.raises(ValueError, match="slot must be one of"):
        swap_margins(model, pairs, means, "out")
