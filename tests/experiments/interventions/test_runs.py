"""Forward passes that go on from the middle of a model."""

import pytest
import torch

from experiments.interventions.runs import stream_site
from tests.experiments.interventions.made import network, pairs


@torch.no_grad()
def test_a_pass_goes_on_as_the_whole_one():
    model, documents = network("mamba", "mlp", "attention", positions="learned"), pairs().clean
    query = documents.positions["query"][:, None]
    sites = [stream_site(model, block) for block in range(4)]
    assert sites[-1] == "resid_final"
    with model.record(*sites) as streams:
        logits = model(documents.tokens)
    for block, site in enumerate(sites):
        torch.testing.assert_close(model.resume(streams[site], block=block), logits)
        some = model.resume(streams[site], block=block, at=query)
        torch.testing.assert_close(some, model(documents.tokens, query))
    for block in (-1, 4):
        with pytest.raises(ValueError, match=f"block must be from 0 to 3, got {block}"):
            model.resume(streams["resid_final"], block=block)
