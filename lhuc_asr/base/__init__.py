"""The base of all other rooms: errors, units, configuration, files, stages, the run log, processes, locks."""
