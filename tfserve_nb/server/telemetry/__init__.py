"""What a server reports: Prometheus metrics, the request log, its own log."""
