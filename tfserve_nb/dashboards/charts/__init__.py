"""Charts as SVG text: pure functions of numbers."""
