"""`python -m figures [NAME ...]`: draw figures from the result store."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import tyro
from tyro.conf import Positional


@dataclass(frozen=True)
class Draw:
    """Draw figures as PNG and PDF from what the studies have stored."""

    names: Positional[tuple[str, ...]] = ()
    """Figures to draw; all of them by default."""
    preset: str = "quick"
    """Size of the studies whose rows are shown."""
    results: Path = Path("results")
    """Folder of the records."""
    out: Path = Path("report/figures")
    """Folder the figures are written to."""


def main() -> int:
    options = tyro.cli(Draw, prog="python -m figures", description=Draw.__doc__)
    from experiments.store import ResultStore
    from figures.gallery import GALLERY, draw_all

    unknown = sorted(set(options.names) - GALLERY.keys())
    if unknown:
        print(f"error: no figure {unknown[0]!r}; there are: {', '.join(GALLERY)}", file=sys.stderr)
        return 2
    names = options.names or GALLERY
    drawn = draw_all(ResultStore(options.results), options.out, options.preset, names)
    for figure in drawn:
        print(figure.png)
    if len(drawn) < len(names):
        command = f"python -m experiments verify --preset {options.preset}"
        print(f"error: {len(names) - len(drawn)} not drawn; run `{command}` first", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
