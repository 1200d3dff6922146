"""The one-layer transformer against plain loops, and what it must not depend on."""

from __future__ import annotations

import copy

import hypothesis
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.func import functional_call, stack_module_state

from memory.factual_recall import Prompts, draw_task
from memory.factual_transformer import FactualTransformer, accuracy, recalled
from tests.laws import as_users_call
from tests.memory import laws

DOUBLE = torch.float64
VOCABULARY, ANSWERS, D, HEADS, HEAD_DIM, WIDTH = 11, 6, 5, 3, 2, 4
SIZES = (VOCABULARY, ANSWERS, D, HEADS, HEAD_DIM)


def model(width: int = WIDTH, seed: int = 0, **options: object) -> FactualTransformer:
    built = FactualTransformer(*SIZES, width, seed=seed, dtype=DOUBLE, **options).initialize(seed)
    if built.hidden_bias is not None:
        built.hidden_bias.data.normal_(generator=torch.Generator().manual_seed(seed))
    return built


def prompts(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(VOCABULARY - 1, shape, generator=generator)
    tokens[..., -1] = VOCABULARY - 1
    return tokens


def by_loops(net: FactualTransformer, prompt: Tensor) -> Tensor:
    """The definition, one prompt, one head and one place after the other."""
    X = net.embedding[prompt]
    attended = torch.zeros(D, dtype=DOUBLE)
    for Q, K, V, O_h in zip(net.query, net.key, net.value, net.output, strict=True):
        alpha = torch.softmax(X @ K.T @ Q @ X[-1] / HEAD_DIM**0.5, dim=0)
        read = sum(alpha[t] * (V @ X[t]) for t in range(len(prompt)))
        attended = attended + O_h.T @ read
    out = attended
    if net.hidden is not None:
        pre = net.hidden @ attended
        pre = pre if net.hidden_bias is None else pre + net.hidden_bias
        active = pre.clamp(min=0) if net.activation == "relu" else pre**2
        out = attended + net.mlp_output.T @ active
    return net.unembedding @ out


@pytest.mark.parametrize("width", [0, WIDTH])
@pytest.mark.parametrize("activation", ["relu", "quadratic"])
@pytest.mark.parametrize("bias", [True, False])
def test_forward_and_gradients_are_those_of_plain_loops(width, activation, bias):
    net = model(width, activation=activation, bias=bias, train_embeddings=True)
    tokens = prompts(7, 6)
    weight = torch.randn(7, ANSWERS, dtype=DOUBLE, generator=torch.Generator().manual_seed(1))
    expected = torch.stack([by_loops(net, prompt) for prompt in tokens])
    laws.close(net(tokens), expected, 1e-12)
    names = [name for name, _ in net.named_parameters()]
    assert {"embedding", "unembedding"} < set(names)
    for ours, theirs in zip(
        torch.autograd.grad((net(tokens) * weight).sum(), net.parameters()),
        torch.autograd.grad((expected * weight).sum(), net.parameters()),
        strict=True,
    ):
        laws.close(ours, theirs, 1e-11)


def test_the_parts_are_those_of_the_forward_pass():
    net, tokens = model(), prompts(7, 6)
    attention = net.attention(tokens)
    assert (attention > 0).all()
    laws.close(attention.sum(dim=1), torch.ones(7, HEADS, dtype=DOUBLE))
    X = net.embedding[tokens]
    read = torch.einsum("nth,ntd,hkd->nhk", attention, X, net.value).flatten(1)
    laws.close(net.heads_output(tokens), read)
    attended = net.attended(tokens)
    laws.close(attended, read @ net.output.flatten(0, 1))
    laws.close(net.mlp(attended), net.hidden_features(attended) @ net.mlp_output)
    laws.close(net(tokens), (attended + net.mlp(attended)) @ net.unembedding.T)


@pytest.mark.parametrize("width", [0, WIDTH])
def test_stacked_models_answer_as_they_do_alone(width):
    nets = [model(width, seed=seed) for seed in range(3)]
    tokens = prompts(3, 7, 6)
    stacked = stack_module_state(nets)
    together = functional_call(copy.deepcopy(nets[0]), stacked, (tokens,))
    for found, net, own in zip(together, nets, tokens, strict=True):
        laws.close(found, net(own), 1e-12)
    stack = copy.deepcopy(nets[0])
    for name, tensor in stacked[0].items():
        stack._parameters[name] = torch.nn.Parameter(tensor.detach())
    for name, tensor in stacked[1].items():
        stack._buffers[name] = tensor
    attention, cut = stack.attention(tokens), stack.knocked_out(tokens, "attention", tokens)
    for b, net in enumerate(nets):
        laws.close(attention[b], net.attention(tokens[b]), 1e-12)
        laws.close(cut[b], net.knocked_out(tokens[b], "attention", tokens[b]), 1e-12)


@given(seed=st.integers(0, 100), order=st.permutations(range(5)))
@hypothesis.settings(max_examples=20)
def test_places_do_not_matter(seed, order):  # P11
    net, tokens = model(seed=seed), prompts(4, 6, seed=seed)
    laws.close(net(tokens[:, [*order, 5]]), net(tokens), 1e-12)


def test_an_occurrence_more_does_matter():
    """Control for the test above: attention counts tokens, it does not collect a set."""
    net = model()
    once, twice = torch.tensor([[0, 1, 2, 10]]), torch.tensor([[0, 1, 1, 10]])
    assert (net(once) - net(twice)).abs().max() > 1e-3


def steep(beta: float) -> FactualTransformer:
    """Heads that each look for one of the tokens 0 to 2 and else at EOS."""
    net = FactualTransformer(VOCABULARY, ANSWERS, VOCABULARY, HEADS, HEAD_DIM, dtype=DOUBLE)
    net.initialize(0)
    dual = torch.linalg.inv(net.embedding).T  # rows: dual[z] . phi(z') = 1 where z = z'
    for head in range(HEADS):
        wanted = dual[head] + dual[-1] / 2
        net.query.data[head] = 0
        net.query.data[head, 0] = dual[-1]
        net.key.data[head] = 0
        net.key.data[head, 0] = beta * HEAD_DIM**0.5 * wanted
    return net


@pytest.mark.parametrize("beta", [4.0, 12.0, 30.0])
def test_the_leak_falls_exponentially(beta):  # P11, P12
    net = steep(beta)
    few = prompts(40, 6) % 7 + 3  # noise only, next to EOS
    few[:, -1] = VOCABULARY - 1
    few[:20, 0] = 1
    attention = net.attention(few)
    allowed = 5 * torch.tensor(-beta / 2).exp()
    looked = torch.zeros(40, 6, HEADS, dtype=DOUBLE)
    looked[:, -1] = 1
    looked[:20, -1, 1], looked[:20, 0, 1] = 0, 1
    leaked = (attention * (1 - looked)).sum(dim=1)
    assert (leaked <= allowed * (1 + 1e-9)).all()
    assert leaked.max() > allowed / 10  # the rate is right, not only the direction
    other = few.clone()
    other[:, 1:4] = 3 + (other[:, 1:4] - 2) % 7  # other noise
    read = (net.value @ net.embedding.T).transpose(1, 2) @ net.output  # (heads, vocabulary, d)
    largest = (read @ net.unembedding.T).abs().amax(dim=1).sum(dim=0).max()
    assert (net(other) - net(few)).abs().max() <= 2 * 2 * allowed * largest


@given(st.sampled_from([0, 1, 8]), st.booleans(), st.integers(1, 4), st.integers(1, 5))
def test_counts_are_the_stated_ones(width, bias, heads, head_dim):  # P13
    net = FactualTransformer(7, 3, 6, heads, head_dim, width, bias=bias)
    assert net.stated_parameters == net.counted_parameters
    assert net.counted_parameters == net.attention_parameters + net.mlp_parameters
    assert net.bias_parameters == width * bias
    total = sum(parameter.numel() for parameter in net.parameters())
    assert total == net.counted_parameters + net.bias_parameters
    trained = FactualTransformer(7, 3, 6, heads, head_dim, width, train_embeddings=True)
    assert trained.counted_parameters == net.counted_parameters


def test_initial_weights_have_the_published_variances():
    net = FactualTransformer(9, 4, 64, 16, 8, 128).initialize(3)
    for name, variance in (
        ("query", 1 / 8), ("key", 1 / 8), ("value", 1 / 8), ("output", 1 / 64),
        ("hidden", 1 / 64), ("mlp_output", 1 / 128),
    ):  # fmt: skip
        assert getattr(net, name).square().mean().item() == pytest.approx(variance, rel=0.05)
    assert (net.hidden_bias == 0).all()
    again = FactualTransformer(9, 4, 64, 16, 8, 128).initialize(3)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), again.parameters(), strict=True))
    before = net.embedding.clone()
    assert not torch.equal(net.initialize(4).query, again.query)
    assert torch.equal(net.embedding, before)
    gram = net.query.flatten() @ net.value.flatten() / net.query.norm() / net.value.norm()
    assert gram.abs() < 0.05  # not the same draw
    sphere = FactualTransformer(9, 4, 64, 16, 8, embedding="sphere", dtype=DOUBLE)
    laws.close(sphere.embedding.norm(dim=1), torch.ones(9, dtype=DOUBLE))


def test_a_path_is_replaced_by_its_mean():
    net, tokens, reference = model(), prompts(7, 6), prompts(9, 6, seed=1)
    attended, usual = net.attended(tokens), net.attended(reference)
    direct = usual.mean(dim=0) + net.mlp(attended)
    laws.close(net.knocked_out(tokens, "attention", reference), direct @ net.unembedding.T)
    through = attended + net.mlp(usual).mean(dim=0)
    laws.close(net.knocked_out(tokens, "mlp", reference), through @ net.unembedding.T)
    alone = model(0).knocked_out(tokens, "attention", reference)
    laws.close(alone, alone[:1].expand_as(alone))
    assert alone.shape == (7, ANSWERS)


def test_recall_is_strict():
    task = draw_task(S=2, R=2, D=2, length=4)
    asked = task.every_fact(torch.Generator().manual_seed(0))

    def scores(tokens: Tensor) -> Tensor:
        at = [int((asked.tokens == row).all(dim=1).nonzero()[0]) for row in tokens]
        return torch.nn.functional.one_hot(asked.answer[at], 4).double()

    def tied(tokens: Tensor) -> Tensor:
        return torch.zeros(len(tokens), 4)

    assert accuracy(scores, asked) == 1
    assert accuracy(scores, asked) == float(recalled(scores, asked, entries=1).double().mean())
    assert accuracy(tied, asked) == 0
    assert accuracy(lambda tokens: scores(tokens) * torch.nan, asked) == 0


def test_scores_far_apart_neither_overflow_nor_vanish():
    for dtype in (torch.float32, DOUBLE):
        net = FactualTransformer(*SIZES, dtype=dtype).initialize(0)
        net.query.data *= 1e4
        tokens = prompts(50, 6)
        logits = net(tokens)
        assert torch.isfinite(logits).all()
        for gradient in torch.autograd.grad(logits.square().sum(), list(net.parameters())):
            assert torch.isfinite(gradient).all()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"vocabulary": 0}, "vocabulary must be a whole number"),
        ({"answers": 1}, "answers must be at least 2"),
        ({"heads": 0}, "heads must be a whole number"),
        ({"width": -1}, "width must be a finite number >= 0"),
        ({"activation": "gelu"}, "activation must be one of 'relu', 'quadratic'"),
        ({"embedding": "onehot"}, "embedding must be one of 'gaussian', 'sphere'"),
    ],
)
def test_bad_sizes_are_named(arguments, named):
    sizes = dict(vocabulary=7, answers=3, d=4, heads=2, head_dim=2)
    with as_users_call(), pytest.raises(ValueError, match=named):
        FactualTransformer(**(sizes | arguments))


def test_what_is_not_there_cannot_be_read():
    net = model(0)
    with pytest.raises(ValueError, match="width must be above 0"):
        net.hidden_features(torch.zeros(1, D, dtype=DOUBLE))
    with pytest.raises(ValueError, match="width must be above 0"):
        net.knocked_out(prompts(2, 6), "mlp", prompts(2, 6))
    message = "path must be one of 'attention', 'mlp', got 'heads'"
    with as_users_call(), pytest.raises(ValueError, match=message):
        net.knocked_out(prompts(2, 6), "heads", prompts(2, 6))


def test_prompts_are_what_recall_is_asked_of():
    task = draw_task(S=3, R=2, D=2, length=5)
    asked = task.every_fact(torch.Generator().manual_seed(0))
    assert isinstance(asked, Prompts)
    net = FactualTransformer(task.vocabulary, task.A, 8, 2, 4, seed=1).initialize(0)
    assert recalled(net, asked).shape == (6,)
