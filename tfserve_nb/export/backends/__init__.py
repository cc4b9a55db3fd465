"""Keras on other backends than TensorFlow."""
