"""Worker processes: HTTP, security and codecs without TensorFlow, in front of the core of another process."""
