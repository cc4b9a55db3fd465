"""What two versions of a model differ in: signatures, layers, weights, code, metrics, latency, outputs."""
