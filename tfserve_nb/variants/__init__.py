"""Variants of a model: what each costs and whether it predicts the same, as a table and a figure."""
