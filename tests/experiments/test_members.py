"""Random and extremal members: inside the class, and simulated correctly."""

import numpy as np
import pytest

from bounds.lipschitz import output_range
from experiments.members import (
    extremal_members,
    random_members,
    random_sequences,
    reference_class,
)

CLASSES = {
    "stable": reference_class(),
    "tight sums": reference_class(M_w=1.0, M_B=1.0, M_C=1.5, M_q=1.0, M_A=8.5),
    "tight Frobenius": reference_class(F_B=1.1, F_C=1.0),
    "unstable": reference_class(s_A=0.3, M_A=2.0),
    "per channel": reference_class(steps="per_channel"),
    "per head": reference_class(steps="per_head", heads=2),
}


@pytest.mark.parametrize("name", CLASSES)
def test_random_members_meet_every_budget(name):
    ssm = CLASSES[name]
    members = random_members(np.random.default_rng(0), ssm, 600)
    slack = 1 + 1e-12
    for block in ("B", "C"):
        matrices = getattr(members, block)
        assert np.linalg.norm(matrices, 2, axis=(1, 2)).max() <= getattr(ssm, f"B_{block}") * slack
        assert np.linalg.norm(matrices, axis=(1, 2)).max() <= getattr(ssm, f"F_{block}") * slack
        assert np.abs(matrices).sum(axis=(1, 2)).max() <= getattr(ssm, f"M_{block}") * slack
    assert np.linalg.norm(members.w, axis=1).max() <= ssm.B_w * slack
    assert np.abs(members.w).sum(axis=1).max() <= ssm.M_w * slack
    assert np.linalg.norm(members.q, axis=2).max() <= ssm.B_q * slack
    assert np.abs(members.q).sum(axis=(1, 2)).max() <= ssm.M_q * slack
    assert ssm.a_lo <= members.A.min()
    assert members.A.max() <= ssm.s_A
    free = members.A if ssm.heads is None else members.A[:, :: int(ssm.d // ssm.heads), :1]
    assert np.abs(free).sum(axis=(1, 2)).max() <= ssm.M_A * slack
    assert ssm.p_lo <= members.p.min()
    assert members.p.max() <= ssm.p_hi


def test_random_members_reach_the_edge_of_the_class():
    members = random_members(np.random.default_rng(0), CLASSES["stable"], 600)
    assert np.isclose(np.linalg.norm(members.w, axis=1), 1).mean() > 0.3
    assert (CLASSES["stable"].s_A == members.A).all(axis=(1, 2)).any()


@pytest.mark.parametrize("name", CLASSES)
def test_outputs_equal_the_unrolled_sum(name):
    ssm, T = CLASSES[name], 6
    rng = np.random.default_rng(1)
    members, u = random_members(rng, ssm, 30), random_sequences(rng, ssm, 30, T)
    step = np.repeat(members.step_sizes(u), 4 // members.q.shape[1], axis=2)
    elapsed = np.cumsum(step[:, ::-1], axis=1)[:, ::-1] - step
    unrolled = np.zeros(30)
    for k in range(T):
        decay = np.exp(members.A * elapsed[:, k, :, None])
        read_in = np.einsum("mnd,md->mn", members.B, u[:, k])
        read_out = np.einsum("mnd,md->mn", members.C, u[:, -1])
        drive = members.w * step[:, k] * u[:, k]
        unrolled += np.einsum("mi,min,mn,mn->m", drive, decay, read_in, read_out)
    np.testing.assert_allclose(members.outputs(u), unrolled, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("s_A", [-2.0, 0.0, 0.3])
@pytest.mark.parametrize("T", [1, 2, 40])
def test_extremal_member_attains_the_range(s_A, T):
    ssm = reference_class(s_A=s_A)
    model, direction = extremal_members(ssm)
    z = model.outputs(np.broadcast_to(direction[:, None], (1, T, 4)))
    assert abs(z[0]) == pytest.approx(float(output_range(ssm, T=T)), rel=1e-12)


def test_sequences_stay_within_the_input_norm():
    ssm = reference_class(B_u=2.5)
    u = random_sequences(np.random.default_rng(2), ssm, 90, 7)
    assert np.linalg.norm(u, axis=2).max() <= 2.5 * (1 + 1e-12)


def test_moving_one_block_stays_in_the_class_and_is_measured():
    rng = np.random.default_rng(3)
    first, second = (random_members(rng, CLASSES["stable"], 5) for _ in range(2))
    moved = first.toward(second, "q", 0.25)
    distance = first.distance(moved)
    assert all(np.all(distance[block] == 0) for block in ("w", "B", "C", "A", "p"))
    np.testing.assert_allclose(distance["q"], 0.25 * first.distance(second)["q"])
