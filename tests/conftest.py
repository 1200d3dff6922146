"""Shapes and types of public functions are checked while the tests run."""

from __future__ import annotations

import os

# Matrices are small and the tests run in parallel: threads of their own would only wait for each
# other. Before NumPy is imported.
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

import hypothesis
from jaxtyping import install_import_hook

import tests.typecheck  # noqa: F401  (the hook below looks it up as an attribute)

# Where shapes say something. Scalar kernels broadcast over anything and are called by the thousand;
# checking them there would make the tests ten times slower.
SHAPED = (
    *(f"bounds.{name}" for name in ("matrices", "covering", "compression", "misprints", "curve")),
    *(f"memory.{name}" for name in ("associative", "attention", "facts", "hopfield", "linear")),
    *(f"memory.{name}" for name in ("measured", "mlp", "readout", "recall", "states")),
    *(f"memory.factual_{name}" for name in ("recall", "transformer", "constructions", "capacity")),
    *(f"memory.{name}" for name in ("dynamics", "editing", "plateau")),
    *(f"memory.{name}" for name in ("sampled_dynamics", "stages")),
)
_hook = install_import_hook(
    [*SHAPED, "experiments", "figures"],
    "tests.typecheck.typecheck",
)
_hook.__enter__()

hypothesis.settings.register_profile("dev", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "dev")
