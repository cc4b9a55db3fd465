"""Replays captured requests onto a version and compares outputs and latencies."""
