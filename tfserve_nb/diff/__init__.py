"""The differences of two versions of a model: signatures, layers, weights, code, metrics, latency, outputs."""
