"""Errors of what answers queries, against their expectations."""

import pytest
import torch

from experiments.estimators.expected import linear_attention_error, mean_value_error
from experiments.estimators.retrieval import linear_attention_readout, mean_value, nearest_key


def drawn(prompts, pairs, queries, d):
    """Vectors of norm sqrt(d), queries among the keys, and what they ask for."""
    generator = torch.Generator().manual_seed(0)

    def vectors():
        gaussian = torch.randn(prompts, pairs, d, generator=generator, dtype=torch.float64)
        return d**0.5 * gaussian / gaussian.norm(dim=-1, keepdim=True)

    keys, values = vectors(), vectors()
    asked = torch.rand(prompts, pairs, generator=generator).argsort(dim=1)[:, :queries]
    asked = asked[..., None].expand(-1, -1, d)
    return keys, values, keys.gather(1, asked), values.gather(1, asked)


@pytest.mark.parametrize(("pairs", "d"), [(2, 3), (8, 8), (32, 20)])
def test_errors_are_as_expected(pairs, d):
    keys, values, queries, targets = drawn(4000, pairs, 2, d)

    def error(found):
        return (found - targets).square().mean().item()

    assert error(0 * targets) == pytest.approx(1)
    assert error(nearest_key(keys, values, queries)) == 0
    found = error(mean_value(keys, values, queries))
    assert found == pytest.approx(mean_value_error(pairs), rel=0.03)
    found = error(linear_attention_readout(keys, values, queries))
    assert found == pytest.approx(linear_attention_error(pairs, d=d), rel=0.06)
    # Gaussian vectors, whose norms vary, have n more: E |k|^4 / d^2 = 1 + 2/d.
    assert found != pytest.approx((pairs + 1) / d, rel=0.05)
    # Keys in place of values, as in the metric of the published code, answer nothing.
    assert error(nearest_key(keys, keys, queries)) == pytest.approx(2, rel=0.05)


def test_orthogonal_keys_are_read_exactly():
    keys = 2 * torch.eye(4, dtype=torch.float64)[None]
    values = torch.arange(16, dtype=torch.float64).reshape(1, 4, 4)
    queries = keys[:, [2, 0]]
    torch.testing.assert_close(linear_attention_readout(keys, values, queries), values[:, [2, 0]])
    assert torch.equal(nearest_key(keys, values, queries + 0.4), values[:, [2, 0]])
    assert torch.equal(mean_value(keys, values, queries), values.mean(1)[:, None].repeat(1, 2, 1))


def test_errors_need_counts():
    with pytest.raises(ValueError, match="pairs must be a whole number"):
        mean_value_error(0)
    with pytest.raises(ValueError, match="d must be a whole number"):
        linear_attention_error(2, d=0)
