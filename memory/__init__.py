"""Associative memories: constructions, their predicted and their measured capacity, and limits."""
