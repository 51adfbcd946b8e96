"""Recordings: the utterances that name them, reading and resampling, levels."""
