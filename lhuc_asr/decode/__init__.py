"""Decoding graphs, beam search in worker processes, hypotheses."""
