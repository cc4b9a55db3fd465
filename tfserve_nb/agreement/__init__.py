"""The rule for whether two versions agree on the same rows; replays, A/B tests and diffs use it."""
