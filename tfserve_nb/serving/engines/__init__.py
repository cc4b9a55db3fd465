"""What runs a version: TensorFlow's session, and engines that run the same graph faster."""
