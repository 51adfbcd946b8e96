"""Frame-level acoustic models, feed-forward and with time delays, and their training. It knows nothing of LHUC."""
