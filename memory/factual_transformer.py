"""The one-layer transformer that recalls facts, with constructed or trained weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from bounds import checks
from bounds.audit import MULTIPRECISION
from bounds.formula import evaluate
from memory.factual_recall import Prompts, token_counts
from memory.randomness import Role, gaussian, lecun_normal, sphere
from memory.readout import BLOCK_ENTRIES

Activation = Literal["relu", "quadratic"]
TokenEmbedding = Literal["gaussian", "sphere"]
Path = Literal["attention", "mlp"]

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "quadratic": torch.square,
}

_LARGEST_RANGE = {torch.float32: 80.0, torch.float64: 600.0}
"""Scores count as at most so far below the largest of the vocabulary, so that no exponential of
them, nor its inverse, overflows or is lost."""


class FactualTransformer(nn.Module):
    r"""One layer of attention and, with `width` > 0, an MLP; the last token asks.

    For a prompt with token embeddings $X \in R^{T \times d}$, last row $x_T$:

    $\alpha_h = \mathrm{softmax}(X K_h^T Q_h x_T / \sqrt{d_h})$, $o_h = V_h X^T \alpha_h$,
    $x_{attn} = \sum_h O_h^T o_h$, $out = x_{attn} + V_2^T \sigma(W_1 x_{attn} + b_1)$,
    logits $U\,out$: no residual of $x_T$, no layer norm, no positions. Every prompt must end with
    the last token of the vocabulary, EOS. Source: nichani2024facts, section 4.

    `query`, `key`, `value`, `output` are heads x head_dim x d; `hidden` $W_1$ and `mlp_output`
    $V_2$ are width x d. Embeddings of the tokens and of the answers are drawn from `seed`, Gaussian
    with variance 1/d per entry or uniform on the unit sphere, and are buffers unless they are
    trained. Weights are zero until they are constructed or drawn by `initialize`.

    Every tensor may have a leading dimension: stacked models, asked tokens (models, prompts, T).
    """

    formula = "4*heads*head_dim*d + 2*width*d"
    """Parameters as nichani2024facts counts them, without the biases (`width`) and embeddings."""
    embedding: Tensor
    unembedding: Tensor

    def __init__(
        self,
        vocabulary: int,
        answers: int,
        d: int,
        heads: int,
        head_dim: int,
        width: int = 0,
        *,
        activation: Activation = "relu",
        bias: bool = True,
        embedding: TokenEmbedding = "gaussian",
        train_embeddings: bool = False,
        seed: int = 0,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__()
        checks.count(vocabulary=vocabulary, answers=answers, d=d, heads=heads, head_dim=head_dim)
        checks.nonnegative(width=width, seed=seed)
        checks.one_of(get_args(Activation), activation=activation)
        checks.one_of(get_args(TokenEmbedding), embedding=embedding)
        if answers < 2:
            raise ValueError(f"answers must be at least 2 to choose from, got {answers}")
        self.sizes = {"d": d, "heads": heads, "head_dim": head_dim, "width": width}
        """The sizes in `formula`, by name."""
        self.activation, self.seed = activation, seed

        def zeros(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.zeros(shape, dtype=dtype, device=device))

        self.query, self.key = zeros(heads, head_dim, d), zeros(heads, head_dim, d)
        self.value, self.output = zeros(heads, head_dim, d), zeros(heads, head_dim, d)
        self.hidden = zeros(width, d) if width else None
        self.hidden_bias = zeros(width) if width and bias else None
        self.mlp_output = zeros(width, d) if width else None
        for name, role, rows in (
            ("embedding", Role.EMBEDDING, vocabulary),
            ("unembedding", Role.UNEMBEDDING, answers),
        ):
            if embedding == "sphere":
                drawn = sphere(seed, role, rows, d)
            else:
                drawn = gaussian(seed, role, rows, d) / d**0.5
            drawn = drawn.to(device, dtype)
            if train_embeddings:
                self.register_parameter(name, nn.Parameter(drawn))
            else:
                self.register_buffer(name, drawn)

    @torch.no_grad()
    def initialize(self, seed: int) -> FactualTransformer:
        """Random weights to train from, as in nichani2024facts; the embeddings stay."""
        heads, head_dim, d = self.value.shape
        for weight, role, variance in (
            (self.query, Role.QUERY, 1 / head_dim),
            (self.key, Role.KEY, 1 / head_dim),
            (self.value, Role.VALUE, 1 / head_dim),
            (self.output, Role.ATTENTION_OUTPUT, 1 / d),
        ):
            drawn = gaussian(seed, role, heads * head_dim, d) * variance**0.5
            weight.copy_(drawn.view(heads, head_dim, d))
        if self.hidden is not None and self.mlp_output is not None:
            width = self.sizes["width"]
            self.hidden.copy_(lecun_normal(seed, Role.HIDDEN, width, d, fan_in=d))
            self.mlp_output.copy_(lecun_normal(seed, Role.OUTPUT, width, d, fan_in=width))
        if self.hidden_bias is not None:
            self.hidden_bias.zero_()
        return self

    def attention(self, tokens: Int[Tensor, "*models n T"]) -> Float[Tensor, "*models n T heads"]:
        """How much every head attends to each place of the prompts."""
        scores = self._scores()
        if scores.ndim == 2:
            return torch.softmax(scores[tokens], dim=-2)
        model = torch.arange(len(scores), device=tokens.device)[:, None, None]
        return torch.softmax(scores[model, tokens], dim=-2)

    def heads_output(
        self, tokens: Int[Tensor, "*models n T"]
    ) -> Float[Tensor, "*models n features"]:
        """What all heads read, $o_1$ to $o_H$ side by side: heads head_dim features."""
        # Places do not matter and EOS always asks: what token v adds to a head is a fixed vector,
        # weighted by how often v occurs. One product with the counts does, without a gather. It
        # sums the weights once for each feature: dividing by fewer numbers would be slower.
        weights = torch.exp(self._scores()).repeat_interleave(self.value.shape[-2], -1)
        values = self.embedding @ self.value.flatten(-3, -2).mT
        counts = token_counts(tokens, self.embedding.shape[-2], self.embedding.dtype)
        read, total = (counts @ torch.cat((weights * values, weights), -1)).chunk(2, -1)
        return read / total

    def attended(self, tokens: Int[Tensor, "*models n T"]) -> Float[Tensor, "*models n d"]:
        r"""The sum over heads $x_{attn}$, which the MLP sees."""
        return self.heads_output(tokens) @ self.output.flatten(-3, -2)

    def hidden_features(
        self, attended: Float[Tensor, "*models n d"]
    ) -> Float[Tensor, "*models n width"]:
        r"""The hidden layer $\sigma(W_1 x_{attn} + b_1)$; ValueError without an MLP."""
        if self.hidden is None:
            raise ValueError("width must be above 0 for hidden features, got 0")
        pre_activations = attended @ self.hidden.mT
        if self.hidden_bias is not None:
            pre_activations += self.hidden_bias.unsqueeze(-2)
        return _ACTIVATIONS[self.activation](pre_activations)

    def mlp(self, attended: Float[Tensor, "*models n d"]) -> Float[Tensor, "*models n d"]:
        """What the MLP adds; ValueError without one."""
        hidden = self.hidden_features(attended)
        assert self.mlp_output is not None
        return hidden @ self.mlp_output

    def forward(self, tokens: Int[Tensor, "*models n T"]) -> Float[Tensor, "*models n answers"]:
        attended = self.attended(tokens)
        out = attended if self.hidden is None else attended + self.mlp(attended)
        return out @ self.unembedding.mT

    def knocked_out(
        self,
        tokens: Int[Tensor, "*models n T"],
        path: Path,
        reference: Int[Tensor, "*models m T"],
    ) -> Float[Tensor, "*models n answers"]:
        r"""Logits with one of the two memories knocked out.

        "attention": the direct path, $x_{attn}$ to the logits; "mlp": the path through the MLP. The
        term of that path in `out` is replaced by its mean over the `reference` prompts (a mean
        ablation); everything else stays, also what attention hands to the MLP.
        """
        checks.one_of(get_args(Path), path=path)
        attended, of_reference = self.attended(tokens), self.attended(reference)
        if path == "mlp":
            out = attended + self.mlp(of_reference).mean(dim=-2, keepdim=True)
        else:
            out = of_reference.mean(dim=-2, keepdim=True).expand_as(attended)
            if self.hidden is not None:
                out = out + self.mlp(attended)
        return out @ self.unembedding.mT

    def _scores(self) -> Float[Tensor, "*models vocabulary heads"]:
        """What every head thinks of each token, at most zero: softmax has a constant to spare."""
        asked = (self.query @ self.embedding[..., None, -1, :, None]).squeeze(-1)
        directions = (self.key * asked.unsqueeze(-1)).sum(dim=-2)
        scores = self.embedding @ directions.mT / self.sizes["head_dim"] ** 0.5
        scores = scores - scores.detach().amax(dim=-2, keepdim=True)
        return scores.clamp_min(-_LARGEST_RANGE[scores.dtype])

    @property
    def stated_parameters(self) -> int:
        """Number of parameters by the formula."""
        return int(evaluate(self.formula, self.sizes, MULTIPRECISION))

    @property
    def counted_parameters(self) -> int:
        """Number of parameters in the tensors that the formula counts."""
        return self.attention_parameters + self.mlp_parameters

    @property
    def attention_parameters(self) -> int:
        """Numbers in the queries, keys, values and outputs of all heads."""
        return sum(weight.numel() for weight in (self.query, self.key, self.value, self.output))

    @property
    def mlp_parameters(self) -> int:
        """Numbers in the two matrices of the MLP."""
        return sum(0 if weight is None else weight.numel() for weight in self._mlp_matrices)

    @property
    def bias_parameters(self) -> int:
        """Numbers in the biases of the MLP, which `formula` leaves out."""
        return 0 if self.hidden_bias is None else self.hidden_bias.numel()

    @property
    def _mlp_matrices(self) -> tuple[nn.Parameter | None, nn.Parameter | None]:
        return self.hidden, self.mlp_output


def margin(
    scores: Float[Tensor, "*prompts answers"], answer: Int[Tensor, "*prompts"]
) -> Float[Tensor, "*prompts"]:
    """Score of the true answer less the largest other one: recalled where it is positive."""
    others = scores.scatter(-1, answer[..., None], -torch.inf).amax(-1)
    return scores.gather(-1, answer[..., None]).squeeze(-1) - others


def recalled(
    model: Callable[[Tensor], Tensor], prompts: Prompts, *, entries: int = BLOCK_ENTRIES
) -> Bool[Tensor, " prompts"]:
    """Whether the score of the true answer exceeds all others; a tie, or NaN, is a failure.

    `model` maps tokens to logits. About `entries` of them are held at once.
    """
    answers = int(model(prompts.tokens[:1]).shape[-1])
    rows = max(1, entries // (answers + prompts.tokens.shape[1] ** 2))
    found = []
    with torch.no_grad():
        for tokens, answer in zip(
            prompts.tokens.split(rows), prompts.answer.split(rows), strict=True
        ):
            found.append(margin(model(tokens), answer) > 0)
    return torch.cat(found)


def accuracy(model: Callable[[Tensor], Tensor], prompts: Prompts) -> float:
    """Share of the prompts that are answered rightly."""
    return recalled(model, prompts).double().mean().item()
