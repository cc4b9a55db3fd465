"""Deploying while a model trains."""
