"""Requests wait in queues and run as batches."""
