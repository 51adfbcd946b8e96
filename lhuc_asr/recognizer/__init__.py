"""A trained recognizer and a new speaker, on any machine: a model's folder, recordings, a speaker's file."""
