"""Shapes and types of public functions are checked while the tests run."""

from __future__ import annotations

import os

import hypothesis
from jaxtyping import install_import_hook

import tests.typecheck  # noqa: F401  (the hook below looks it up as an attribute)

_hook = install_import_hook(["bounds", "experiments", "figures"], "tests.typecheck.typecheck")
_hook.__enter__()

hypothesis.settings.register_profile("dev", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "dev")
