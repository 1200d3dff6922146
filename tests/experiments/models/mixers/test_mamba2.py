"""Mamba-2 against its definition, and the order of what its maps put side by side."""

import numpy as np
import pytest
import torch

from experiments.models.mixers.mamba2 import Mamba2
from tests.experiments.models.mixers.alone import inputs, run
from tests.experiments.models.mixers.naive import agrees, convolved, rms, shaken, silu, softplus


def definition(groups):
    def outputs(w, x):
        H, E = len(w["A_log"]), len(w["norm.weight"])
        P, N = E // H, (len(w["in_proj.weight"]) - 2 * E - H) // (2 * groups)
        projected = x @ w["in_proj.weight"].T
        z, a, d = np.split(projected, [E, len(projected[0]) - H], axis=1)
        xBC = silu(convolved(a, w))
        h, out = np.zeros((H, P, N)), []
        for t in range(len(x)):
            s, B, C = np.split(xBC[t], [E, E + groups * N])
            s, B, C = s.reshape(H, P), B.reshape(groups, N), C.reshape(groups, N)
            delta = softplus(d[t] + w["dt_bias"])
            y = np.zeros((H, P))
            for head in range(H):
                group = head * groups // H
                h[head] *= np.exp(-np.exp(w["A_log"][head]) * delta[head])
                h[head] += delta[head] * np.outer(s[head], B[group])
                y[head] = h[head] @ C[group] + w["D"][head] * s[head]
            gated = y.reshape(E) * silu(z[t])
            normed = np.concatenate([rms(part) for part in np.split(gated, groups)])
            out.append(w["out_proj.weight"] @ (w["norm.weight"] * normed))
        return np.array(out)

    return outputs


@pytest.mark.parametrize(
    "options",
    [
        dict(d_state=5),
        dict(d_state=3, head_dim=2, groups=2, d_conv=2),
        dict(d_state=2, head_dim=1, groups=4, expand=1, d_conv=0),
    ],
)
@pytest.mark.parametrize("length", [1, 40])
def test_is_its_definition(options, length):
    model, x = shaken("mamba2", 8, **options), inputs(length=length, d_model=8)
    agrees(model, x, definition(options.get("groups", 1)))


def test_the_definition_tells_one_group_from_two():
    model, x = shaken("mamba2", 8, d_state=4, head_dim=4, groups=2), inputs(length=5, d_model=8)
    with pytest.raises(AssertionError):
        agrees(model, x, definition(1))


def test_parameters_are_the_official_ones():
    mixer = Mamba2(32, d_state=16, head_dim=16, groups=2)
    shapes = {name: tuple(p.shape) for name, p in mixer.named_parameters()}
    conv = 64 + 2 * 2 * 16
    assert shapes == {
        "dt_bias": (4,),
        "A_log": (4,),
        "D": (4,),
        "in_proj.weight": (64 + conv + 4, 32),
        "conv1d.weight": (conv, 1, 4),
        "conv1d.bias": (conv,),
        "norm.weight": (64,),
        "out_proj.weight": (32, 64),
    }


def test_starts_as_stated():
    torch.manual_seed(0)
    mixer = Mamba2(256, head_dim=4, dt_min=0.01, dt_max=0.02)
    A = mixer.A_log.exp()
    assert 1 <= A.min() < 2 < 15 < A.max() <= 16
    assert abs(A.mean() - 8.5) < 1.5
    steps = torch.nn.functional.softplus(mixer.dt_bias.detach())
    assert 0.0099 < steps.min() < steps.max() < 0.0201


def test_sites_are_the_parts_of_the_definition():
    model, x = shaken("mamba2", 8, d_state=3, head_dim=4, groups=2), inputs(length=5, d_model=8)
    _, seen = run(model, x)
    write = np.einsum(
        "bhp,bhn->bhpn",
        (seen["delta"][:, 2, :, None] * seen["x"][:, 2].reshape(2, 4, 4)),
        np.repeat(seen["B"][:, 2], 2, axis=1),
    )
    np.testing.assert_allclose(seen["write.2"], write)
    carried = seen["A_bar.2"][..., None, None] * seen["h.1"] + write
    np.testing.assert_allclose(seen["h.2"], carried)
    joined = [seen[name].reshape(2, 5, -1) for name in ("x", "B", "C")]
    np.testing.assert_array_equal(seen["ssm_input"], np.concatenate(joined, axis=-1))
    np.testing.assert_allclose(seen["gated"], seen["ssm_out"] * silu(seen["skip"]))


@pytest.mark.parametrize(
    ("options", "name"), [(dict(head_dim=5), "head_dim"), (dict(head_dim=4, groups=3), "groups")]
)
def test_sizes_that_do_not_divide_are_refused(options, name):
    with pytest.raises(ValueError, match=name):
        Mamba2(8, **options)


def test_strong_decays_in_single_precision():
    """Steps of 1e4 forget everything but the present, to the last bit and in the gradient."""
    model = shaken("mamba2", 8, d_state=4).float()
    with torch.no_grad():
        model.mixer.dt_bias += 1e4
    x = inputs(length=70, d_model=8).float().requires_grad_()
    y = model(x)
    with model.patch({"mixer.h.*": lambda live: live}):
        # Where the sum over states cancels, rounding of 1e-7 grows to some 1e-5 of outputs near 1.
        torch.testing.assert_close(model(x), y, rtol=0, atol=1e-4)
    y.square().sum().backward()
    assert x.grad.isfinite().all()
