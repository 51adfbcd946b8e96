"""Floors and log-domain constants, each with its reason."""

import math

# A log-probability that stands for "impossible" but survives additions: -inf minus -inf would be NaN.
LOG_ZERO = -1e10

# Diagonal variances below this come from constant features (digital silence), not from speech.
VARIANCE_FLOOR = 1e-3

# Variances of hidden units' outputs below this are those of dead units.
UNIT_VARIANCE_FLOOR = 1e-8

# Added to variances before a hidden layer's outputs are divided by their roots: a dead unit has a variance of 0. The
# value is that of most toolkits.
NORMALISATION_FLOOR = 1e-5

# Norms of centred features below this are those of constant ones.
NORM_FLOOR = 1e-12

# The likelihood of a few frames that happen to be alike has no bound; this one, as in Kaldi's trees, keeps such frames
# from being split off for the sake of it.
TREE_VARIANCE_FLOOR = 1e-2

# A pdf never seen in the alignment still needs a prior: one pseudo-frame keeps its log finite.
PRIOR_PSEUDO_FRAMES = 1.0

# Dimensions with a smaller standard deviation are dead; dividing by less would amplify their noise.
DEVIATION_FLOOR = 1e-4

LOG_2PI = math.log(2.0 * math.pi)
