"""Effects by look-back tap and role."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.interventions.pair_maps import tap_map
from experiments.interventions.shift import ELSEWHERE, dominant_shift, shift_table
from tests.experiments.interventions.made_codes import named_pairs, network

ROLES = {"a": torch.tensor([1, 2, 1, 1]), "b": torch.tensor([4, 5, -1, 3])}
FORMATS = torch.tensor([0, 0, 1, 1])


def planted():
    """Block 1 reads "a" with tap 2 in format 0, block 0 reads "b" with tap 1 in format 1."""
    effects = torch.zeros(2, 3, 8, 4)
    effects[1, 2, 3, 0] = effects[1, 2, 4, 1] = 0.75
    effects[1, 0, 0, :2] = 0.25  # no role
    effects[1, 1, 5, :2] = -5.0
    effects[0, 1, 4, 3] = 1.0
    return effects


def test_a_planted_shift_is_found():
    table = shift_table(planted(), ROLES, FORMATS)
    cells = table.set_index(["format", "block", "tap", "role"])
    assert cells.loc[(0, 1, 2, "a"), "effect"] == 0.75
    assert cells.loc[(0, 1, 2, "a"), "share"] == 0.75
    assert cells.loc[(0, 1, 0, ELSEWHERE), "share"] == 0.25
    assert cells.loc[(1, 0, 1, "b"), "effect"] == 0.5  # of the two pairs, one lacks the role
    assert cells["effect"].sum() == 0.75 + 0.25 + 0.5
    assert cells.loc[(0, 0), "share"].isna().all()
    assert dominant_shift(table).to_dict("records") == [
        {"format": 0, "block": 1, "tap": 2, "effect": 0.75, "share": 0.75},
        {"format": 1, "block": 0, "tap": 1, "effect": 0.5, "share": 1.0},
    ]


def test_effects_elsewhere_are_not_dominant():
    effects = planted()
    effects[1, 0, 0, :2] = 3.0
    found = dominant_shift(shift_table(effects, ROLES, FORMATS))
    assert found["tap"].tolist() == [2, 1]
    assert found["share"].tolist() == [0.2, 1.0]


def test_where_the_token_was_read_matters_not_where_the_tap_writes():
    """Negative control: by the position of the tap, the effect would be nobody's."""
    table = shift_table(planted(), {"a": ROLES["a"] + 2}, FORMATS)
    assert not table[(table["role"] == "a") & (table["format"] == 0)]["effect"].any()


@settings(max_examples=20)
@given(seed=st.integers(0, 1000))
def test_shares_are_those_of_loops_and_add_up(seed):
    rng = torch.Generator().manual_seed(seed)
    effects = torch.randn(2, 3, 8, 4, generator=rng, dtype=torch.float64)
    table = shift_table(effects, ROLES, FORMATS)
    sums = table.groupby(["format", "block"])["share"].sum()
    assert sums.to_numpy() == pytest.approx(1)
    cells = table.set_index(["format", "block", "tap", "role"])["effect"]
    for block in range(2):
        for tap in range(3):
            of = [float(effects[block, tap, int(ROLES["a"][pair]) + tap, pair]) for pair in (0, 1)]
            assert cells[0, block, tap, "a"] == pytest.approx(max(0, sum(of) / 2))
            rest = 0.0
            for position in range(8):
                those = [
                    float(effects[block, tap, position, pair])
                    for pair in (2, 3)
                    if position - tap not in {int(at[pair]) for at in ROLES.values()} - {-1}
                ]
                rest += max(0, sum(those) / 2)
            assert cells[1, block, tap, ELSEWHERE] == pytest.approx(rest)


def test_taps_that_a_block_lacks_have_no_rows():
    effects = planted()
    effects[0], effects[1, 0] = torch.nan, torch.nan
    table = shift_table(effects, ROLES, FORMATS)
    assert set(zip(table["block"], table["tap"], strict=True)) == {(1, 1), (1, 2)}
    assert dominant_shift(table[table["format"] == 0])["share"].tolist() == [1.0]


def test_a_convolution_of_one_tap_is_dominant_in_a_model():
    """Only what stands two positions earlier gets into the state of this block."""
    model, pairs = network("mamba"), named_pairs(10)
    with torch.no_grad():
        weight = model.blocks[0].mixer.conv1d.weight
        weight[:, :, [0, 2, 3]] = 0  # tap k has the weight 3 - k
        weight[:, :, 1] *= 4
    roles = {name: at for name, at in pairs.roles.items() if name != "out"}
    table = shift_table(tap_map(model, pairs).abs(), roles, pairs.meta["format"])
    found = dominant_shift(table)
    assert found["tap"].tolist() == [2] * 5
    assert found["share"].to_numpy() == pytest.approx(1)


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="roles must be from -1 to 7, got 7 to 8"):
        shift_table(planted(), {"a": ROLES["a"] + 6}, FORMATS)
    with pytest.raises(ValueError, match="roles must be at different positions"):
        shift_table(planted(), {"a": ROLES["a"], "b": ROLES["a"]}, FORMATS)
    with pytest.raises(ValueError, match="roles must be names"):
        shift_table(planted(), {ELSEWHERE: ROLES["a"]}, FORMATS)
