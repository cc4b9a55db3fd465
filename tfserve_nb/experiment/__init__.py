"""Comparisons of versions under real traffic: what is observed, what can be concluded, and what follows from it."""
