"""The statistics of experiments: intervals that hold at all times, for latency, rates, ratios and quality."""
