"""Decoding graphs, beam search in worker processes, lattices, hypotheses."""
