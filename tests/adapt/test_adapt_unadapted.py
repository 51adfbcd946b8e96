"""No adaptation as a method: the network to the bit."""

import torch
from scaled_speakers import frames_of

from lhuc_asr.adapt.methods import load_speakers
from lhuc_asr.adapt.unadapted import UnadaptedConfig
from lhuc_asr.features.context import splice


def test_no_adaptation_is_the_network_to_the_bit(small, tmp_path):
    frames = frames_of(small, 20, 30)
    x = splice(torch.from_numpy(frames.features), small.config.context)
    before = small(x)
    unadapted = UnadaptedConfig().make(None).estimate(small, {"ann": frames}, seed=1)
    unadapted.save(tmp_path / "speakers")
    for speakers in (unadapted, load_speakers(small, tmp_path / "speakers")):
        with speakers.applied("ann"):
            assert torch.equal(small(x), before)
