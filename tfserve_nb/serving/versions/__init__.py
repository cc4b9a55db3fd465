"""Versions of a model: loading, warming up, running and unloading them."""
