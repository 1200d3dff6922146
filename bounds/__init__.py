"""Generalization bounds for selective state-space models, as numbers that can be audited."""
