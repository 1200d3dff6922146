"""Attributions of a model: every layer, component and position patched alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import pandas as pd

from experiments.interventions.corruptions import Pair
from experiments.interventions.interchange import interchange
from experiments.interventions.layers import COMPONENTS, layers
from experiments.interventions.patches import has_site, patch
from experiments.interventions.runs import ROWS
from experiments.models.backbone import SequenceModel
from experiments.models.sites import SiteError

POSITIONS = ("key", "value", "divider", "query", "answer")
"""Where Arora et al. (2025) patch; nothing can happen at the answer, a control."""


def attribution_grid(
    model: SequenceModel,
    pair: Pair,
    components: Sequence[str] = COMPONENTS,
    positions: Sequence[str] = POSITIONS,
    *,
    direction: str = "denoise",
    resamples: int = 1000,
    seed: int = 0,
    rows: int = ROWS,
) -> pd.DataFrame:
    """One row for each layer, component and position, with its `Summary`.

    Layers and components are those of `layers`. Layers without a component have no row for it;
    SiteError for a site of mixers that no layer has.
    """
    cells = [
        (number, component, position, site)
        for number, layer in enumerate(layers(model.config.layers))
        for component in components
        if (site := layer.site(component)) is not None and has_site(model, site)
        for position in positions
    ]
    for component in set(components) - {component for _, component, *_ in cells}:
        if component not in COMPONENTS:
            raise SiteError(f"no layer of this model has {component!r}")
    patches = [patch(site, at=[position]) for *_, position, site in cells]
    effects = interchange(model, pair, patches, direction=direction, rows=rows)
    return pd.DataFrame(
        {"layer": layer, "component": component, "position": position}
        | asdict(effect.summary(resamples=resamples, seed=seed))
        for (layer, component, position, _), effect in zip(cells, effects, strict=True)
    )
