"""Reports of results, as values, and the two ways to show them: text and HTML."""
