"""What results have to say, as values, and the two ways to show it: text and HTML."""
