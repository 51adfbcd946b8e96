"""Errors, units, configuration, atomic files, the run log: what every room stands on."""
