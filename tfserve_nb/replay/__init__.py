"""Replays captured requests onto a version and compares answers and latencies."""
