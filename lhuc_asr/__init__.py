"""lhuc_asr: speaker adaptation of DNN acoustic models with Learning Hidden Unit Contributions."""

__version__ = "0.1.0"
