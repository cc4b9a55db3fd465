"""Where tensors go in a graph and its functions, and what becomes of them."""
