"""HTTP around the core: REST as TensorFlow Serving speaks it, security, limits, and the loop thread."""
