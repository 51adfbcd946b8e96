"""Word error rates, whether a difference between two of them is real, tables and figures."""
