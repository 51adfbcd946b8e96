"""Hidden Markov models: topologies, Gaussian mixtures, alignment, training, linear transforms of features."""
