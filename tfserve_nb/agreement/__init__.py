"""The one rule for "do two versions answer the same rows alike": replay, A/B tests and diffs all use it."""
