"""Hidden Markov models: states, topologies, Gaussian mixtures, Viterbi alignment, monophone training."""
