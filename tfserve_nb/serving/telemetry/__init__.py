"""What is recorded of requests, batches and resources."""
