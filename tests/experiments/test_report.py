"""The report: complete, escaped, self-contained."""

from __future__ import annotations

import io
import re
from html.parser import HTMLParser
from pathlib import Path

from rich.console import Console

from experiments.claims import Verdict
from experiments.report import (
    Finding,
    beside_corrections,
    claims_page,
    verdict_table,
    write_report,
)
from tests.experiments.toy import Rare, Toy


def findings() -> list[Finding]:
    growth, printed, doubling = beside_corrections(Toy.claims)
    return [
        Finding(Toy, printed, Verdict("refuted", 1.5, 1.2, 1.8, "gap", "5 < 6 & |x|", 3)),
        Finding(Toy, doubling, Verdict("refuted", 1.5, 1.2, 1.8, "gap", "[red]far[/red]", 3)),
        Finding(Toy, growth, error="no column <b>"),
        Finding(Rare, growth),
    ]


def write(folder: Path) -> tuple[str, str]:
    png = folder / "figures" / "toy.png"
    png.parent.mkdir(parents=True)
    png.write_bytes(b"png")
    markdown, page = write_report(
        folder,
        preset="quick",
        findings=findings(),
        failures={"toy": 2},
        figures=[("A <toy> figure", png)],
        provenance={"commit": None, "versions": {"numpy": "2.0"}},
    )
    return markdown.read_text(encoding="utf-8"), page.read_text(encoding="utf-8")


def test_wrong_as_printed_stands_before_its_correction():
    names = [claim.name for claim in beside_corrections(Toy.claims)]
    assert names == ["growth", "doubling-as-printed", "doubling"]


def test_report_tells_everything(tmp_path: Path):
    for text in write(tmp_path):
        for fact in (
            "quick preset",
            "4 claims: 1 as expected, 1 against expectation, 1 not run at this preset, "
            "1 with unusable rows.",
            "2 trials failed",
            "doubling-as-printed (corrected by doubling)",
            "refuted (expected: refuted)",
            "refuted (expected: supported)",
            "1.5 [1.2, 1.8] gap",
            "toy2024, Theorem 1",
            "python -m experiments run rare --preset paper",
            "numpy 2.0",
        ):
            assert fact in text


def test_markdown_tables_have_whole_rows(tmp_path: Path):
    markdown, _ = write(tmp_path)
    rows = [line for line in markdown.splitlines() if line.startswith("|")]
    assert rows
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {7}
    assert "(figures/toy.png)" in markdown


def test_html_is_well_formed_escaped_and_self_contained(tmp_path: Path):
    _, page = write(tmp_path)

    class Reader(HTMLParser):
        open: list[str] = []

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            assert tag not in ("script", "link", "b", "toy", "study")
            for name, value in attrs:
                assert name not in ("src", "href") or (value or "").startswith("data:")
            if tag not in ("meta", "img", "br"):
                self.open.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert self.open.pop() == tag

    reader = Reader()
    reader.feed(page)
    assert not reader.open
    assert "url(" not in page
    assert "5 &lt; 6 &amp; |x|" in page


def test_terminal_table_takes_brackets_literally():
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(verdict_table(findings()))
    assert "[red]far[/red]" in console.export_text()


def test_claims_page_lists_every_claim_with_its_commands():
    page = claims_page([Toy, Rare])
    for claim in Toy.claims:
        assert claim.name in page
    assert "`python -m experiments run toy --preset small` (2 s)" in page
    assert "`python -m experiments run rare --preset paper` (a day)" in page
