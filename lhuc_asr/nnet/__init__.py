"""The frame-level DNN acoustic model and its training. It knows nothing of LHUC."""
