"""What graphs do when they run: the live model's own, and those of SavedModels."""
