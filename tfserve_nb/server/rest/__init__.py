"""TensorFlow Serving's REST API and the Open Inference Protocol."""
