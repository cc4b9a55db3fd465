"""Where a version comes from: code, commit, packages, data, seed, metrics and layers, stored in the version."""
