"""Ranking models whose hidden layers are scaled for each user: PPNet and PEPNet, on the gate of ``lhuc``."""

from lhuc_asr.ppnet.layer import LHUCLayer
from lhuc_asr.ppnet.model import PEPNet, PPNet, RankingConfig, build
from lhuc_asr.ppnet.simple import SimplePPNet

__all__ = ["LHUCLayer", "PEPNet", "PPNet", "RankingConfig", "SimplePPNet", "build"]
