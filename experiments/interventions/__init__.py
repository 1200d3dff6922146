"""Causal interventions: what a model uses, from activations of one run put into another."""
