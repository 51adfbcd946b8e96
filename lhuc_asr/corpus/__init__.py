"""Recordings and transcripts: LibriSpeech, AN4, Kaldi data directories, synthetic voices."""
