"""Mamba's selective state-space mixer."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import silu, softplus

from bounds import checks
from experiments.models.scan import selective_scan
from experiments.models.short_convolution import ShortConvolution
from experiments.models.sites import Site, watched


class Mamba(nn.Module):
    r"""The selective SSM of Gu and Dao (2023), section 3.

    With E = expand d_model channels, N = d_state states and R = dt_rank, and its sites beside it:

        (a, g)    = W_in x                           conv_input, skip: E
        s         = silu(conv(a))                    conv1d.tap.{k}, conv, ssm_input: E
        (r, B, C) = W_x s                            dt_low: R, B, C: N
        Delta     = softplus(W_dt r + b_dt)          delta_raw, delta: E
        h_t       = e^(Delta_t A) h_(t-1) + Delta_t s_t B_t^T
                                                     A_bar.{t}, B_bar.{t}, write.{t}, h.{t}: E, N
        y_t       = h_t C_t,  A = -e^(A_log)         h_read.{t}, y: E
        out       = W_out ((y + D s) silu(g))        ssm_out, gated: E

    Editing `ssm_input` changes Delta, B, C, the input of the state and the D skip together. Edits
    of the state come in three kinds: `write.{t}` is what time t adds to it, an edit of `h.{t}` is
    carried on by the recurrence, and one of `h_read.{t}` changes y_t alone. Watching any of the
    sites of single times runs the recurrence step by step.

    A_log starts at log(1..N), softplus(b_dt) log-uniform in [dt_min, dt_max], W_dt uniform in
    ±R^(-1/2), the rest as torch does. `d_conv=0` leaves out the convolution and keeps its silu.
    """

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 16,
        d_conv: int = 4,
        expand: int = 2,
        dt_rank: int | None = None,
        dt_min: float = 1e-3,
        dt_max: float = 0.1,
    ) -> None:
        super().__init__()
        E, N = expand * d_model, d_state
        R = math.ceil(d_model / 16) if dt_rank is None else dt_rank
        checks.count(d_model=d_model, d_state=N, expand=expand, dt_rank=R)
        self.in_proj = nn.Linear(d_model, 2 * E, bias=False)
        self.conv1d = ShortConvolution(E, d_conv) if d_conv else nn.Identity()
        self.x_proj = nn.Linear(E, R + 2 * N, bias=False)
        self.dt_proj = nn.Linear(R, E)
        nn.init.uniform_(self.dt_proj.weight, -(R**-0.5), R**-0.5)
        self.dt_proj.bias = nn.Parameter(step_logits(E, dt_min, dt_max))
        self.A_log = nn.Parameter(torch.arange(1.0, N + 1).log().repeat(E, 1))
        self.D = nn.Parameter(torch.ones(E))
        for parameter in (self.A_log, self.D):
            parameter._no_weight_decay = True  # as the authors train it
        self.out_proj = nn.Linear(E, d_model, bias=False)

        def site(size: int) -> Site:
            return Site("batch", "length", size)

        def state() -> Site:
            return Site("batch", E, N, index="t")

        self.conv_input, self.skip, self.conv, self.ssm_input = (site(E) for _ in range(4))
        self.dt_low, self.B, self.C = site(R), site(N), site(N)
        self.delta_raw, self.delta, self.y, self.ssm_out, self.gated = (site(E) for _ in range(5))
        self.A_bar, self.B_bar = state(), state()
        self.write, self.h, self.h_read = state(), state(), state()

    def forward(
        self, x: Float[Tensor, "batch length d_model"]
    ) -> Float[Tensor, "batch length d_model"]:
        """Mix a sequence; the output has the shape of the input."""
        a, g = self.in_proj(x).chunk(2, dim=-1)
        a, g = self.conv_input(a), self.skip(g)
        s = self.ssm_input(silu(self.conv(self.conv1d(a))))
        N = self.A_log.shape[1]
        r, B, C = self.x_proj(s).split([self.dt_proj.in_features, N, N], dim=-1)
        r, B, C = self.dt_low(r), self.B(B), self.C(C)
        delta_raw, A = self.delta_raw(self.dt_proj(r)), -torch.exp(self.A_log)
        states = self.A_bar, self.B_bar, self.write, self.h, self.h_read
        if watched(self.delta, self.y, self.ssm_out, *states):
            delta = self.delta(softplus(delta_raw))
            if watched(*states):
                y = self._step_by_step(s, delta, A, B, C)
            else:
                y = selective_scan(s.mT, delta.mT, A, B.mT, C.mT).mT
            y = self.ssm_out(self.y(y) + self.D * s) * silu(g)
        else:
            s, delta_raw, B, C, g = (x.mT for x in (s, delta_raw, B, C, g))
            y = selective_scan(s, delta_raw, A, B, C, self.D, z=g, delta_softplus=True).mT
        return self.out_proj(self.gated(y))

    def _step_by_step(self, s: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
        h, y = s.new_zeros(len(s), *A.shape), []
        for t in range(s.shape[1]):
            step = delta[:, t, :, None]
            A_bar = self.A_bar(torch.exp(step * A), t)
            B_bar = self.B_bar(step * B[:, t, None], t)
            h = self.h(A_bar * h + self.write(B_bar * s[:, t, :, None], t), t)
            y.append((self.h_read(h, t) @ C[:, t, :, None]).squeeze(-1))
        return torch.stack(y, dim=1)


def step_logits(count: int, smallest: float, largest: float) -> Float[Tensor, " count"]:
    """Numbers whose softplus is log-uniform in [smallest, largest]."""
    checks.positive(dt_min=smallest, dt_max=largest)
    if smallest > largest:
        raise ValueError(f"dt_min is at most dt_max, got {smallest} and {largest}")
    steps = torch.empty(count).uniform_(math.log(smallest), math.log(largest)).exp()
    return steps + torch.log(-torch.expm1(-steps))
