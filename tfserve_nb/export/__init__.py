"""Export: from the model in memory to a SavedModel version on disk, in the folders that TensorFlow Serving polls.

TensorFlow and Keras are imported inside functions only.
"""
