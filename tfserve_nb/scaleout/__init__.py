"""The way from a notebook to other servers: Ray Serve, bundles of files, MLflow, and whether two servers answer the same."""
