"""The load of a benchmark: when requests are due, what they carry, and the process that sends them."""
