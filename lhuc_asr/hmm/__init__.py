"""Hidden Markov models: topology, Gaussian mixtures, Viterbi alignment, monophone training."""
