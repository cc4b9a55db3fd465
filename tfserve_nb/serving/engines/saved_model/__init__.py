"""A SavedModel in a session of TensorFlow."""
