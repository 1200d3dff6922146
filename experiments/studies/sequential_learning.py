"""Does linear attention learn relations before subjects, and what does it answer in between?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas

from bounds import checks
from bounds.result import Source
from experiments import device, sequential
from experiments.claims import Claim
from experiments.study import Preset, Study, Trial
from memory.dynamics import flow
from memory.factual_recall import draw_task
from memory.sampled_dynamics import stochastic_descent

_PAPER = Source("nichani2024facts", "section 5, Figure 5")
_OURS = Source("seqtheory", "sequential learning")
_EACH = ("method", "S", "R", "D", "answers", "noise", "T", "seed")
"""Every run is a point: what is claimed is claimed for every table of facts."""
_POINTS = 96
_UNIFORM: dict[str, Any] = {"prompts": "uniform", "method": "flow"}
_RESTS = _UNIFORM | {"scored": True}


@dataclass(frozen=True)
class SequentialLearning(Study):
    """Linear attention learning facts, by exact gradient flow and by SGD on fresh prompts."""

    method: tuple[str, ...] = ("flow", "sgd")
    """SGD, and either power law, only for the first of the sizes, and not together."""
    size: tuple[tuple[int, int, int], ...] = (
        (16, 4, 8), (32, 4, 8), (16, 8, 4), (8, 8, 8), (4, 32, 4),
    )  # fmt: skip
    """Numbers S of subjects, R of relations, and D of answers of a relation; D divides S."""
    answers: tuple[str, ...] = ("structured", "random")
    """Whether the subject alone tells which of its D answers a relation has."""
    subject_exponent: tuple[float, ...] = (0.0, 1.0)
    relation_exponent: tuple[float, ...] = (0.0, 1.0)
    """Subject s is asked for with a probability like (s + 1)^-exponent, relations likewise."""
    noise: tuple[float, ...] = (1.0,)
    """Noise tokens, relative to S + R."""
    T: tuple[int, ...] = (8,)
    """Lengths of prompts."""
    step_size: tuple[float, ...] = (0.4,)
    seed: tuple[int, ...] = (0, 1)
    """Random facts, and the prompts of SGD."""

    name = "sequential-learning"
    title = "Sequential learning of facts"
    version = 1
    presets = {
        "quick": Preset("30 s"),
        "small": Preset(
            "5 min",
            {"size": ((16, 4, 8), (32, 4, 8), (16, 8, 4), (8, 8, 8), (8, 16, 8), (4, 32, 4),
                      (64, 4, 8), (32, 8, 8), (16, 16, 4), (4, 40, 4)),
             "T": (32,), "step_size": (0.1,), "seed": (0, 1, 2)},
        ),
        "medium": Preset(
            "1 h on 2 cores",
            {"size": ((16, 4, 8), *((S, R, D) for S in (8, 16, 32, 64) for R in (4, 8, 16, 32)
                                    for D in (4, 8) if (S, R, D) != (16, 4, 8)), (4, 32, 4)),
             "noise": (0.5, 1.0, 4.0), "T": (32,), "step_size": (0.1,), "seed": tuple(range(5))},
        ),
        "paper": Preset(
            "30 min on 2 cores",
            {"size": ((16, 4, 8),), "T": (32,), "step_size": (0.1,), "seed": tuple(range(20))},
        ),
    }  # fmt: skip
    claims = (
        Claim(
            name="relations-before-subjects",
            statement="where S sqrt(R-1) > R sqrt(D-1), the loss of relations halves before that "
            "of subjects",
            source=_PAPER,
            relation=">=",
            measured="lead",
            predicted=0.0,
            where=_UNIFORM | {"first": "relations"},
            over=_EACH,
            tolerance=0.0,
        ),
        Claim(
            name="subjects-before-relations",
            statement="where it is the other way round by a factor of 2, subjects come first",
            source=_OURS,
            relation="<=",
            measured="lead",
            predicted=0.0,
            where=_UNIFORM | {"first": "subjects", "apart": True},
            over=_EACH,
            tolerance=0.0,
        ),
        Claim(
            name="plateau-where-rates-differ",
            statement="the loss rests in between where the growth rates differ by a factor of 2",
            source=_PAPER,
            relation=">=",
            measured="rests",
            predicted=1.0,
            where=_RESTS,
            over=_EACH,
            tolerance=0.0,
        ),
        Claim(
            name="no-plateau-where-rates-are-close",
            statement="structured facts: there is no plateau where they differ by less than 1.5",
            source=_OURS,
            relation="<=",
            measured="rests",
            predicted=0.0,
            where=_UNIFORM | {"answers": "structured", "close": True},
            over=_EACH,
            tolerance=0.0,
        ),
        *(
            Claim(
                name=f"plateau-at-{end}-conditional-entropy",
                statement="the height of the plateau is the entropy of the answer given what is "
                "known by then, within 2 %",
                source=_OURS,
                relation=relation,
                measured="relative_height",
                predicted=1.0,
                where=_RESTS | {"rests": 1.0},
                over=_EACH,
                tolerance=0.02,
            )
            for end, relation in (("most", "<="), ("least", ">="))
        ),
        Claim(
            name="plateau-at-log-of-answers",
            statement="the plateau is at ln D also for random facts",
            source=Source("nichani2024facts", "Figure 5, guide line ln D"),
            relation=">=",
            measured="height",
            predicted="log_answers",
            where=_RESTS | {"rests": 1.0, "answers": "random"},
            over=_EACH,
            tolerance=0.02,
            expected="refuted",
            corrected_by="plateau-at-most-conditional-entropy",
        ),
        *(
            Claim(
                name=f"half-loss-not-{end}",
                statement=f"structured facts: both losses have halved {when} the time of the "
                f"theorem, which is its {side} bound",
                source=_OURS,
                relation=relation,
                measured=f"{side}_share",
                predicted=1.0,
                where=_UNIFORM | {"answers": "structured"},
                over=_EACH,
                tolerance=1e-3,
            )
            for end, when, side, relation in (
                ("late", "by", "latest", "<="),
                ("early", "not before", "earliest", ">="),
            )
        ),
        *(
            Claim(
                name=f"{token}-time-scales-as-predicted",
                statement=f"the time until the loss of {token}s has halved scales as the exact "
                "time of balanced facts"
                + (
                    ", with the rate times sqrt(D sum P(answer | relation)^2)"
                    if token == "relation"
                    else ""
                ),
                source=_OURS,
                relation="~",
                measured=f"half_{token}",
                predicted=f"predicted_{token}",
                where=_UNIFORM | {"answers": answers},
                over=("S", "R", "D"),
                tolerance=0.1,
            )
            for token, answers in (("relation", "random"), ("subject", "structured"))
        ),
        Claim(
            name="sgd-follows-flow",
            statement="SGD on fresh prompts halves both losses within 5 % of the time of the flow",
            source=_PAPER,
            relation="<=",
            measured="lag",
            predicted=0.05,
            where={"method": "sgd"},
            over=("S", "R", "D", "answers"),
            tolerance=0.0,
        ),
        Claim(
            name="answers-in-the-right-relation",
            statement="on the plateau, at least 97 % of answers are of the right relation",
            source=_PAPER,
            relation=">=",
            measured="plateau_in_relation",
            predicted=0.97,
            where={"prompts": "uniform", "scored": True, "rests": 1.0, "first": "relations"},
            over=_EACH,
            tolerance=0.0,
        ),
        *(
            Claim(
                name=f"correct-at-{end}-by-chance",
                statement="... and of answers drawn from the model, as many are true as of those "
                "drawn from P(answer | relation), within 10 %",
                source=_OURS,
                relation=relation,
                measured="relative_correct",
                predicted=1.0,
                where={"prompts": "uniform", "scored": True, "rests": 1.0, "first": "relations"},
                over=_EACH,
                tolerance=0.1,
            )
            for end, relation in (("most", "<="), ("least", ">="))
        ),
        Claim(
            name="best-answer-is-a-guess",
            statement="on the plateau of the flow, the answer of largest logit is no better than "
            "the most frequent one of the relation",
            source=_PAPER,
            relation="<=",
            measured="plateau_accuracy",
            predicted="best_guess",
            where=_RESTS | {"rests": 1.0, "first": "relations"},
            over=_EACH,
            tolerance=0.05,
            expected="refuted",
            corrected_by="best-answer-of-sgd-is-a-guess",
        ),
        Claim(
            name="best-answer-of-sgd-is-a-guess",
            statement="... but so it is in SGD, whose noise hides the subject's small logits",
            source=_OURS,
            relation="<=",
            measured="plateau_accuracy",
            predicted="best_guess",
            where={"method": "sgd", "rests": 1.0},
            over=_EACH,
            tolerance=0.1,
        ),
        Claim(
            name="background-idle-for-balanced-facts",
            statement="structured facts: noise tokens and EOS stay at their start",
            source=Source("nichani2024facts", "section 5 (balanced facts)"),
            relation="<=",
            measured="background",
            predicted=1.0,
            where=_UNIFORM | {"answers": "structured"},
            over=_EACH,
            tolerance=1e-6,
        ),
        Claim(
            name="background-idle-for-random-facts",
            statement="... and so they do for random facts",
            source=Source("nichani2024facts", "section 5, taken for any facts"),
            relation="<=",
            measured="background",
            predicted=1.0,
            where=_UNIFORM | {"answers": "random"},
            over=_EACH,
            tolerance=1.0,
            expected="refuted",
            corrected_by="frequencies-before-relations",
        ),
        Claim(
            name="frequencies-before-relations",
            statement="random facts: where noise tokens or EOS grow faster than relations, they "
            "learn how frequent answers are before relations are learned",
            source=_OURS,
            relation=">=",
            measured="lead_of_frequencies",
            predicted=0.0,
            where=_UNIFORM | {"answers": "random", "background_first": True},
            over=_EACH,
            tolerance=0.0,
        ),
        *(
            Claim(
                name=f"frequent-subjects-first-{end}",
                statement="16 subjects, power law, random facts: the time until the loss of a "
                "subject has halved is like one over its probability, exponent 1 within 0.2",
                source=_OURS,
                relation=relation,
                measured="exponent_of_rarity",
                predicted=1.0,
                where={"prompts": "subjects", "answers": "random"},
                over=_EACH,
                tolerance=0.2,
            )
            for end, relation in (("at-most", "<="), ("at-least", ">="))
        ),
        Claim(
            name="power-law-keeps-the-plateau",
            statement="16 subjects: the loss rests at the entropy given the relation (within "
            "5 %) as long with a power law of subjects as without one",
            source=Source("nichani2024facts", "Figure 5, taken for any prompts"),
            relation=">=",
            measured="dwell",
            predicted="uniform_dwell",
            where={"prompts": "subjects"},
            over=_EACH,
            tolerance=0.1,
            expected="refuted",
            corrected_by="power-law-smears-the-plateau",
        ),
        Claim(
            name="power-law-smears-the-plateau",
            statement="it rests less than half as long, in ln t",
            source=_OURS,
            relation="<=",
            measured="dwell",
            predicted="half_uniform_dwell",
            where={"prompts": "subjects"},
            over=_EACH,
            tolerance=0.0,
        ),
    )

    def grid(self) -> Mapping[str, Iterable[Any]]:
        return {
            "method": self.method, "size": self.size, "answers": self.answers,
            "subject_exponent": self.subject_exponent,
            "relation_exponent": self.relation_exponent, "noise": self.noise, "T": self.T,
            "step_size": self.step_size, "seed": self.seed,
        }  # fmt: skip

    def trials(self) -> tuple[Trial, ...]:
        """The grid without what a single size shows, and repeats of what is not random."""

        def kept(config: Mapping[str, Any]) -> bool:
            sgd = config["method"] == "sgd"
            skewed = (config["subject_exponent"] > 0) + (config["relation_exponent"] > 0)
            special = sgd + skewed
            if special > 1 or (special and config["size"] != self.size[0]):
                return False
            random = sgd or config["answers"] == "random"
            return random or config["seed"] == self.seed[0]

        return tuple(trial for trial in super().trials() if kept(trial.config))

    @staticmethod
    def measure(
        rng: np.random.Generator,
        *,
        method: str,
        size: tuple[int, int, int],
        answers: str,
        subject_exponent: float,
        relation_exponent: float,
        noise: float,
        T: int,
        step_size: float,
        seed: int,
    ) -> dict[str, Any]:
        checks.one_of(("flow", "sgd"), method=method)
        S, R, D = size
        if S % D:
            raise ValueError(f"size must be (S, R, D) with D a divisor of S, got {tuple(size)}")
        task = draw_task(
            S=S, R=R, D=D, noise=round(noise * (S + R)), length=T, seed=seed, answers=answers,
            subject_exponent=subject_exponent, relation_exponent=relation_exponent,
            device=device.chosen() if method == "sgd" else "cpu",
        )  # fmt: skip
        sizes: dict[str, Any] = dict(S=S, R=R, D=D, step_size=step_size)
        shares = np.linspace(0, 1, _POINTS + 1) ** 1.5  # closer together where all is faster
        steps = np.unique(np.round(sequential.horizon(task, sizes) * shares))
        if method == "flow":
            course = flow(task, steps, step_size=step_size)
        else:
            (course,) = stochastic_descent([task], steps, seeds=[seed], step_size=step_size)
        return {
            "S": S, "R": R, "D": D, **sequential.curves(course),
            **sequential.times(course, task, sizes), **sequential.between(course, task),
            **sequential.by_subject(course, task),
        }  # fmt: skip

    @staticmethod
    def table(rows: pandas.DataFrame) -> pandas.DataFrame:
        """Rows beside what the flow does on the same facts, and what it does without power law."""
        prompts = np.select(
            [rows["subject_exponent"] > 0, rows["relation_exponent"] > 0],
            ["subjects", "relations"], "uniform",
        )  # fmt: skip
        rows = sequential.beside_flow(rows.assign(prompts=prompts))
        return rows.assign(half_uniform_dwell=rows["uniform_dwell"] / 2)
