"""Stages in order, resumable; the two-pass loop. Nothing else strings rooms together."""
