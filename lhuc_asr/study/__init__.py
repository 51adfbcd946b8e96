"""Experiments on a finished recipe: series of passes, looks at one pass, the toy regressions."""
