"""What does changing one fact in closed form do to all the others?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bounds.result import Source
from experiments import prompted
from experiments.claims import Claim
from experiments.studies.factual_constructions import CONSTRUCTIONS, build
from experiments.study import Preset, Study, Trial
from memory.editing import Edit, UnreachableError, edit, edited_features, second_moment
from memory.factual_recall import FactualRecall, draw_task
from memory.factual_transformer import FactualTransformer, margin, recalled

TRAINED = {"trained-attention": dict(heads=12, width=0), "trained-mlp": dict(heads=4, width=64)}
"""Transformers of d = 16 that learn the facts of the quick preset."""
ORIGINS = (*CONSTRUCTIONS, *TRAINED)
MARGIN = 0.5
"""By which the new answer is to lead, relative to the mean lead of the right ones."""
_SINGLE = 8
"""Edits of a fresh model in a trial."""
_FILLINGS = 16
"""Prompts of a fact over which its features are averaged, and the second moment is taken: trained
heads look at the noise a little, and the edit has to work with any."""

_EDITING = Source("seqtheory", "editing")
_VARIANCE = dict(
    source=_EDITING, measured="variance_share_plain", predicted=1.0, over=("origin",),
    tolerance=0.3, where={"trained": False},
)  # fmt: skip


@dataclass(frozen=True)
class FactEditing(Study):
    """Rank-one edits of single facts, each to another answer of its relation, alone and in turn.

    Both with the second moment of the features, which spares other facts, and as a plain outer
    product. All facts are asked after every edit.
    """

    origin: tuple[str, ...] = ORIGINS
    """Where the weights are from: a construction, or training."""
    S: tuple[int, ...] = (16,)
    """Subjects."""
    R: tuple[int, ...] = (4,)
    """Relations."""
    D: tuple[int, ...] = (4,)
    """Answers of a relation."""
    size: tuple[float, ...] = (0.75, 1.0, 2.0)
    """Sizes in units of the sufficient one, as in the study of the constructions; trained
    transformers are there at 1 only, with sizes of their own."""
    seed: tuple[int, ...] = tuple(range(5))
    """Draws of facts, embeddings and random weights."""

    name = "fact-editing"
    title = "Editing single facts"
    version = 1
    presets = {
        "quick": Preset("15 s"),
        "small": Preset("8 min", {"S": (16, 32), "R": (4, 8), "seed": tuple(range(12))}),
        "medium": Preset(
            "2 h on 2 cores", {"S": (32, 64), "R": (8, 16), "D": (4, 8), "seed": tuple(range(12))}
        ),
    }
    claims = (
        Claim(
            name="edits-succeed",
            statement="after an edit of a construction with the second moment the new answer is "
            "given, whatever the noise in the prompt",
            source=_EDITING,
            relation="<=",
            measured="failed",
            predicted=0.0,
            where={"trained": False},
            failure_probability=0.0,
            violations="failed",
            instances="asked",
            tolerance=0.0,
        ),
        Claim(
            name="edits-of-trained-models-succeed",
            statement="after an edit of a trained transformer with the second moment, at least "
            "90 % of prompts with other noise are given the new answer",
            source=_EDITING,
            relation="<=",
            measured="failed",
            predicted=0.0,
            where={"trained": True},
            failure_probability=0.1,
            violations="failed",
            instances="asked",
            tolerance=0.0,
        ),
        Claim(
            name="edits-of-trained-models-spare-others",
            statement="and at most 5 % of the other facts are damaged",
            source=_EDITING,
            relation="<=",
            measured="damage",
            predicted=0.05,
            where={"trained": True},
            over=("origin",),
            tolerance=0.0,
        ),
        Claim(
            name="damage-is-the-predicted-one",
            statement="the facts that an edit damages are exactly those that its predicted "
            "cross-talk flips",
            source=_EDITING,
            relation="<=",
            measured="mistaken",
            predicted=0.0,
            failure_probability=0.0,
            violations="mistaken",
            instances="judged",
            tolerance=0.0,
        ),
        Claim(
            name="variance-at-least-predicted",
            statement="an outer product moves scores of unrelated answers with at least the "
            "variance |v* - Wk|² κ²/d of the law, -30 %",
            relation=">=",
            **_VARIANCE,
        ),
        Claim(
            name="variance-at-most-predicted",
            statement="an outer product moves scores of unrelated answers with at most the "
            "variance |v* - Wk|² κ²/d of the law, +30 %",
            relation="<=",
            **_VARIANCE,
        ),
        Claim(
            name="a-feature-for-every-fact-spares-all",
            statement="with a feature of the MLP for every fact, an edit damages no other fact",
            source=_EDITING,
            relation="<=",
            measured="damaged",
            predicted=0.0,
            where={"spare": True},
            failure_probability=0.0,
            violations="damaged",
            instances="others",
            tolerance=0.0,
        ),
        Claim(
            name="the-second-moment-spares-others",
            statement="in the MLP, more edits in turn are possible before 99 % fails than with "
            "plain outer products",
            source=_EDITING,
            relation=">=",
            measured="edits_until_loss",
            predicted="edits_until_loss_plain",
            where={"in_mlp": True},
            over=("origin",),
            tolerance=0.0,
        ),
    )

    def grid(self) -> Mapping[str, Iterable[Any]]:
        return {
            "origin": self.origin, "S": self.S, "R": self.R, "D": self.D, "size": self.size,
            "seed": self.seed,
        }  # fmt: skip

    def trials(self) -> tuple[Trial, ...]:
        """The grid, with trained transformers at size 1 only."""
        return tuple(
            trial
            for trial in super().trials()
            if trial.config["origin"] not in TRAINED or trial.config["size"] == 1
        )

    @staticmethod
    def measure(
        rng: np.random.Generator, *, origin: str, S: int, R: int, D: int, size: float, seed: int
    ) -> dict[str, Any]:
        task = draw_task(S=S, R=R, D=D, noise=8, length=16, seed=seed)
        trained = origin in TRAINED
        model = _trained(origin, task, seed) if trained else build(origin, task, size, seed)
        editing = _Editing(model, task, rng)
        single, plain = editing.alone(protect=True), editing.alone(protect=False)
        order = rng.permutation(S * R)
        in_mlp = model.hidden is not None
        return {
            "trained": trained,
            "in_mlp": in_mlp,
            "spare": in_mlp and size >= 1 and not trained,
            "recalled": (margin(editing.logits, editing.prompts.answer) > 0).double().mean().item(),
            "facts": S * R,
            "edits": _SINGLE,
            **single,
            **{f"{name}_plain": value for name, value in plain.items()},
            "edits_until_loss": editing.in_turn(order, protect=True),
            "edits_until_loss_plain": editing.in_turn(order, protect=False),
        }


def _trained(origin: str, task: FactualRecall, seed: int) -> FactualTransformer:
    """A transformer that learned the facts from prompts, in double precision."""
    sizes = TRAINED[origin]
    model = FactualTransformer(task.vocabulary, task.A, 16, head_dim=4, seed=seed, **sizes)
    member = prompted.Member(model.initialize(seed), task, prompted.Training(steps=800), seed)
    list(prompted.train([member]))
    return model.double()


class _Editing:
    """A model with everything that its edits are compared with."""

    def __init__(
        self, model: FactualTransformer, task: FactualRecall, rng: np.random.Generator
    ) -> None:
        self.model, self.task, self.rng = model, task, rng
        self.site = "attention" if model.hidden is None else "mlp"
        self.generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
        self.prompts = task.every_fact(self.generator)
        with torch.no_grad():
            self.logits = model(self.prompts.tokens)
        self.features = edited_features(model, self.prompts.tokens, self.site)
        fillings = [task.every_fact(self.generator).tokens for _ in range(_FILLINGS)]
        self.moment = second_moment(
            torch.cat([edited_features(model, tokens, self.site) for tokens in fillings])
        )
        self.margin = MARGIN * margin(self.logits, self.prompts.answer).mean().item()

    def change(self, model: FactualTransformer, fact: int, protect: bool) -> tuple[Edit, int]:
        """An edit of the fact to another answer of its relation, and that answer.

        The first that can be reached, in random order.
        """
        asked = self.ask(fact)
        old, first = int(self.prompts.answer[fact]), int(self.prompts.relation[fact]) * self.task.D
        others = [first + j for j in self.rng.permutation(self.task.D) if first + j != old]
        for new in map(int, others):
            try:
                done = edit(
                    model, asked, old=old, new=new, site=self.site,
                    margin=self.margin,
                    moment=self.moment if protect else None,
                )  # fmt: skip
            except UnreachableError:
                continue
            return done, new
        raise UnreachableError(
            f"none of the answers {others} can be reached at margin={self.margin}"
        )

    def ask(self, fact: int) -> Tensor:
        """Prompts of the fact with new noise at new places."""
        subject, relation = self.prompts.subject[fact], self.prompts.relation[fact]
        pairs = subject.repeat(_FILLINGS), relation.repeat(_FILLINGS)
        return self.task.ask(*pairs, self.generator).tokens

    def alone(self, protect: bool) -> dict[str, Any]:
        """Edits of the model as it was built, each on its own."""
        facts = len(self.prompts)
        before = margin(self.logits, self.prompts.answer) > 0
        failed = mistaken = damaged = others = 0
        shares = []
        for fact in self.rng.choice(facts, _SINGLE, replace=False):
            done, new = self.change(self.model, int(fact), protect)
            asked = self.ask(int(fact))  # with other noise than the edit saw
            with torch.no_grad():
                failed += int((done.model(asked).argmax(dim=1) != new).sum())
            rest = torch.arange(facts) != int(fact)
            moved = done.crosstalk(self.features)
            expected = margin(self.logits + moved, self.prompts.answer) > 0
            found = recalled(done.model, self.prompts)
            mistaken += int((expected != found)[rest].sum())
            damaged += int((before & ~found)[rest].sum())
            others += int(before[rest].sum())
            unrelated = torch.ones(moved.shape[1], dtype=torch.bool)
            unrelated[[int(self.prompts.answer[fact]), new]] = False
            variance = done.score_variance(self.features[rest])
            moved = moved[rest][:, unrelated].square().mean().item()
            shares.append(moved / max(variance, 1e-300))
        return {
            "failed": failed,
            "asked": _SINGLE * _FILLINGS,
            "mistaken": mistaken,
            "judged": _SINGLE * (facts - 1),
            "damaged": damaged,
            "others": others,
            "damage": damaged / max(1, others),
            "variance_share": float(np.mean(shares)),
        }

    def in_turn(self, order: np.ndarray, protect: bool) -> int:
        """Edits of one fact after the other before the first that leaves less than 99 % right.

        Edited facts are right with their new answers. At most every fact once.
        """
        model, logits, answer = self.model, self.logits, self.prompts.answer.clone()
        for count, fact in enumerate(order):
            done, answer[fact] = self.change(model, int(fact), protect)
            model, logits = done.model, logits + done.crosstalk(self.features)
            if (margin(logits, answer) > 0).double().mean() < 0.99:
                return count
        return len(order)
