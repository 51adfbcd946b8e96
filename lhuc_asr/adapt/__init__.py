"""Adaptation of an acoustic model to one speaker's data: methods behind one protocol, and the two-pass loop."""
