"""Techniques that adapt the acoustic model to one speaker's data, each a file behind one protocol."""
