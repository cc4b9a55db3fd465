"""Whether two servers answer the same: what they serve, what they predict, what they refuse, and how long they take."""
