"""The way to MLflow and back: versions as MLflow models, and MLflow models as versions."""
