"""TensorFlow's messages and files of them, read and written without TensorFlow."""
