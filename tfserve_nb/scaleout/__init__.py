"""The way from a notebook to other servers: Ray Serve, files for them, MLflow, and whether two servers answer alike."""
