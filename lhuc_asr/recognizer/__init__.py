"""A trained recognizer and a new speaker, on any machine: one folder, recordings, one speaker's file."""
