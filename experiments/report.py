"""Verdicts for readers: a table in the terminal, a report in Markdown and HTML, the claims page."""

from __future__ import annotations

import base64
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.claims import Claim, Verdict, asserted
from experiments.study import Study

if TYPE_CHECKING:
    import rich.table

_HEADINGS = ("claim", "relation", "verdict", "estimate", "evidence", "source")

_STYLE = """
:root { color-scheme: light dark }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 0 auto; padding: 1rem }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; vertical-align: top; padding: .4rem .6rem; border-top: 1px solid #8886 }
td.verdict { font-weight: 600 }
tr.contradicts td.verdict, tr.unusable td.verdict, .alarm { color: #c40000 }
code { font-size: .9em; overflow-wrap: anywhere } small { opacity: .8 }
img { max-width: 100%; background: #fff } figure { margin: 1.5rem 0; break-inside: avoid }
dt { font-weight: 600 } dd { overflow-wrap: anywhere }
@media (max-width: 45rem) {
  thead { display: none } tr { display: block; padding: .6rem 0; border-top: 2px solid #8888 }
  td { display: block; border: 0; padding: .1rem 0 }
  td[data-heading]::before { content: attr(data-heading) ": "; font-weight: 600 }
}
@media print { body { max-width: none; font-size: 10pt } tr { break-inside: avoid } }
"""


@dataclass(frozen=True)
class Finding:
    """What came of one claim of a study: a verdict, or an error where its rows are unusable.

    With neither, the study has no such preset.
    """

    study: type[Study]
    claim: Claim
    verdict: Verdict | None = None
    error: str | None = None

    @property
    def standing(self) -> str:
        """ "as expected", "contradicts", "undecided", "not run" or "unusable"."""
        if self.verdict is not None:
            return asserted(self.verdict, self.claim)
        return "not run" if self.error is None else "unusable"

    @property
    def outcome(self) -> str:
        """The verdict in words, with what was expected where it was not support."""
        if self.verdict is None:
            return self.standing
        if self.claim.expected == "supported" and self.standing != "contradicts":
            return self.verdict.outcome
        return f"{self.verdict.outcome} (expected: {self.claim.expected})"

    @property
    def estimate(self) -> str:
        """Estimate and interval, and what they are of."""
        if self.verdict is None or math.isnan(self.verdict.estimate):
            return "–"
        found = self.verdict
        return f"{found.estimate:.4g} [{found.low:.4g}, {found.high:.4g}] {found.quantity}"

    @property
    def evidence(self) -> str:
        """The numbers behind the verdict, or what to do about its absence."""
        if self.verdict is not None:
            return self.verdict.evidence
        if self.error is not None:
            return self.error
        smallest = next(iter(self.study.presets))
        return f"not run at this preset; `{command(self.study, smallest)}` runs it"


def relation(claim: Claim) -> str:
    """The compared quantities and how they are claimed to relate, in one line."""
    delta = claim.failure_probability
    text = f"{claim.measured} {claim.relation} {claim.predicted}"
    if delta:
        text += f" with probability {1 - delta:g}"
    elif delta == 0:
        text += " always"
    return text


def beside_corrections(claims: Iterable[Claim]) -> list[Claim]:
    """The claims in their order, those wrong as printed directly before their correction."""
    listed = list(claims)
    position = {claim.name: index for index, claim in enumerate(listed)}

    def place(claim: Claim) -> tuple[int, bool]:
        return position[claim.corrected_by or claim.name], claim.corrected_by is None

    return sorted(listed, key=place)


def command(study: type[Study], preset: str) -> str:
    """The shell command that runs a study at a preset."""
    return f"python -m experiments run {study.name} --preset {preset}"


def verdict_table(findings: Sequence[Finding]) -> rich.table.Table:
    """The findings as a table for the terminal, one section per study.

    The evidence is spelled out where a verdict is not the expected one; the report has it all.
    """
    from rich.table import Table
    from rich.text import Text

    colours = {
        "as expected": "green",
        "contradicts": "bold red",
        "unusable": "bold red",
        "undecided": "yellow",
    }
    table = Table("claim", "verdict", "estimate [interval]")
    for study, group in _by_study(findings):
        table.add_section()
        table.add_row(Text(study.name, "bold"))
        for finding in group:
            # Text, not markup: the brackets of intervals are meant literally.
            outcome = Text(finding.outcome, colours.get(finding.standing, "dim"))
            shown = finding.estimate
            if finding.standing != "as expected":
                shown = f"{shown}\n{finding.evidence}"
            table.add_row(Text(finding.claim.name), outcome, Text(shown))
    return table


def write_report(
    folder: Path,
    *,
    preset: str,
    findings: Sequence[Finding],
    failures: Mapping[str, int],
    figures: Sequence[tuple[str, Path]],
    provenance: Mapping[str, Any],
) -> tuple[Path, Path]:
    """Write report.md and a self-contained report.html to `folder`; returns their paths.

    `failures` counts the failed trials by study name, `figures` are captions with PNG files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    markdown, page = folder / "report.md", folder / "report.html"
    title = f"Verdicts at the {preset} preset"
    facts = {name: _fact(value) for name, value in provenance.items()}
    linked = [(caption, os.path.relpath(png, folder)) for caption, png in figures]
    markdown.write_text(_markdown(title, findings, failures, linked, facts), encoding="utf-8")
    embedded = [(caption, _data_address(png)) for caption, png in figures]
    page.write_text(_html(title, findings, failures, embedded, facts), encoding="utf-8")
    return markdown, page


def claims_page(studies: Iterable[type[Study]]) -> str:
    """docs/claims.md: every claim, where it is from, what is expected and what checks it."""
    lines = ["# Claims", "", "Generated by `python -m experiments claims`.", ""]
    for study in studies:
        lines += [f"## {_literal(study.title)}", ""]
        lines += [
            f"- `{command(study, name)}` ({preset.expected_time})"
            for name, preset in study.presets.items()
        ]
        rows = [
            (_named(claim), claim.statement, relation(claim), str(claim.source), claim.expected)
            for claim in beside_corrections(study.claims)
        ]
        headings = ("claim", "statement", "relation", "source", "expected")
        lines += ["", *_markdown_table(headings, rows), ""]
    return "\n".join(lines)


def _markdown(
    title: str,
    findings: Sequence[Finding],
    failures: Mapping[str, int],
    figures: Sequence[tuple[str, str]],
    facts: Mapping[str, str],
) -> str:
    lines = [f"# {_literal(title)}", "", _summary(findings), ""]
    for study, group in _by_study(findings):
        lines += [f"## {_literal(study.title)}", ""]
        if failures.get(study.name):
            lines += [f"**{_failed(failures[study.name])}**", ""]
        lines += [*_markdown_table(_HEADINGS, map(_cells, group)), ""]
        lines += [
            f"- **{claim.name}**: {_literal(claim.statement)}" for claim in (f.claim for f in group)
        ]
        lines += [""]
    if figures:
        lines += ["## Figures", ""]
        lines += [f"![{_literal(caption)}]({png})\n" for caption, png in figures]
    lines += ["## Provenance", ""]
    lines += [f"- {name}: {value}" for name, value in facts.items()]
    return "\n".join(lines) + "\n"


def _markdown_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    cells = [[_literal(" ".join(cell.split())) for cell in row] for row in rows]
    lines = [list(headings), ["---"] * len(headings), *cells]
    return [f"| {' | '.join(line)} |" for line in lines]


def _literal(text: str) -> str:
    """Text whose bars, stars and tags Markdown leaves alone."""
    return re.sub(r"[|*]|<(?=[\w/!])", r"\\\g<0>", text)


def _html(
    title: str,
    findings: Sequence[Finding],
    failures: Mapping[str, int],
    figures: Sequence[tuple[str, str]],
    facts: Mapping[str, str],
) -> str:
    body = [f"<h1>{escape(title)}</h1>", f"<p>{escape(_summary(findings))}</p>"]
    for study, group in _by_study(findings):
        body.append(f"<h2>{escape(study.title)}</h2>")
        if failures.get(study.name):
            body.append(f'<p class="alarm">{escape(_failed(failures[study.name]))}</p>')
        headings = "".join(f"<th>{heading}</th>" for heading in _HEADINGS)
        body.append(f"<table><thead><tr>{headings}</tr></thead><tbody>")
        body += map(_html_row, group)
        body.append("</tbody></table>")
    if figures:
        body.append("<h2>Figures</h2>")
    for caption, image in figures:
        body.append(
            f'<figure><img src="{image}" alt="{escape(caption)}">'
            f"<figcaption>{escape(caption)}</figcaption></figure>"
        )
    body.append("<h2>Provenance</h2><dl>")
    body += [f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts.items()]
    body.append("</dl>")
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def _html_row(finding: Finding) -> str:
    cells = [escape(cell) for cell in _cells(finding)]
    cells[0] = f"{cells[0]}<br><small>{escape(finding.claim.statement)}</small>"
    columns = "".join(
        f'<td class="{heading}" data-heading="{heading}">{cell}</td>'
        for heading, cell in zip(_HEADINGS, cells, strict=True)
    )
    return f'<tr class="{finding.standing.replace(" ", "-")}">{columns}</tr>'


def _cells(finding: Finding) -> tuple[str, ...]:
    """The columns of `_HEADINGS`."""
    claim = finding.claim
    outcome, evidence = finding.outcome, finding.evidence
    return (_named(claim), relation(claim), outcome, finding.estimate, evidence, str(claim.source))


def _named(claim: Claim) -> str:
    if claim.corrected_by is None:
        return claim.name
    return f"{claim.name} (corrected by {claim.corrected_by})"


def _by_study(findings: Sequence[Finding]) -> list[tuple[type[Study], list[Finding]]]:
    return [
        (study, list(group)) for study, group in groupby(findings, lambda finding: finding.study)
    ]


def _summary(findings: Sequence[Finding]) -> str:
    standings = [finding.standing for finding in findings]
    counts = [
        f"{standings.count(standing)} {words}"
        for standing, words in (
            ("as expected", "as expected"),
            ("contradicts", "against expectation"),
            ("undecided", "inconclusive"),
            ("not run", "not run at this preset"),
            ("unusable", "with unusable rows"),
        )
        if standing in standings
    ]
    return f"{len(findings)} claims: {', '.join(counts)}." if counts else "No claims."


def _failed(count: int) -> str:
    trials = "trial" if count == 1 else "trials"
    return f"{count} {trials} failed; the verdicts below rest on the others."


def _fact(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {entry}" for name, entry in value.items())
    return str(value)


def _data_address(png: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(png.read_bytes()).decode()
