"""Models: which versions they have, which of them answers, and what is stored of that."""
