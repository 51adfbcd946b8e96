"""Recordings: utterances, audio files, samples at any rate, levels."""
