"""Replicas on Ray Serve: what they are told, how they are started and administered, what each one runs."""
