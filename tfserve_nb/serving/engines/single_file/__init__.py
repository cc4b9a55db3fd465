"""Versions that are one file of another runtime than TensorFlow: ONNX and TensorFlow Lite models."""
