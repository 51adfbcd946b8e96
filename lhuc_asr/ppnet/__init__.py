"""Ranking models whose hidden layers are gated by who the user is: PPNet and PEPNet, on the gate of ``lhuc``."""
