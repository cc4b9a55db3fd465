"""Runs experiments: observes requests, computes results, checks limits, moves traffic."""
