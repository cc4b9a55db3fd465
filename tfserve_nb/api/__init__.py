"""What scripts and notebooks hold: deploy, the handle of a model, connections to servers, comparisons, benchmarks."""
