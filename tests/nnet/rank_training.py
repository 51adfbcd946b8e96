"""What ``test_nnet_epoch_place.py`` starts with torchrun: a training with dropout, which a mini-batch may end."""

from __future__ import annotations

import sys
from pathlib import Path

from corner_frames import corner_frames
from corner_training import CALM, Run
from watched_frames import watched

from lhuc_asr.base.ranks import joined, ranks
from lhuc_asr.base.tensors import save_tensors
from lhuc_asr.nnet import epoch_place, frames
from lhuc_asr.nnet.loader import MiniBatch


def main(folder: Path, kill_at: int) -> None:
    frames.BLOCK_FRAMES, epoch_place.SECONDS = 100, -1.0
    steps = [0]

    def kill(epoch: int, number: int, batch: MiniBatch) -> None:
        steps[0] += 1
        if steps[0] == kill_at:
            raise SystemExit(3)

    with joined("cpu"):
        model = Run(folder / "state", watched(corner_frames(0), kill), corner_frames(1, 300), CALM)()
        if ranks().is_first:
            save_tensors(folder / "network", model.state_dict())
            (folder / "steps").write_text(str(steps[0]), encoding="ascii")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
