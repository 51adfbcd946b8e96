"""Pages for people: the report of an experiment."""
