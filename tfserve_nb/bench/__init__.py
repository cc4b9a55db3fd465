"""Benchmarks: arrivals, a generator in a process of its own, statistics, reports."""
