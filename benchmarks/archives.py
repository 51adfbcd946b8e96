"""A hundred thousand speakers in an archive: written, looked up, and how large they are.

    python benchmarks/archives.py [SPEAKERS]

Synthetic rows of a network of five layers of 512 units, with the statistics of 40 features, as `adapt` writes them.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from timing import show

from lhuc_asr.lhuc.archive import SpeakerArchive, write_archive
from lhuc_asr.lhuc.site import Site
from lhuc_asr.lhuc.speaker import SpeakerState

SITES = tuple(Site(f"hidden.{layer}.activation", 512) for layer in range(5))
LOOKED_UP = 20_000


def main(speakers: int) -> None:
    """Write an archive, open it, and read speakers in random order."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "archive"
        begun, before = time.perf_counter(), _most_memory()
        write_archive(path, _people(speakers))
        written, grown = time.perf_counter() - begun, _most_memory() - before
        begun = time.perf_counter()
        archive = SpeakerArchive(path)
        archive.state("s0")
        opened = time.perf_counter() - begun
        chosen = np.random.default_rng(1).integers(speakers, size=LOOKED_UP)
        begun = time.perf_counter()
        for number in chosen:
            archive.state(f"s{number}")
        read = time.perf_counter() - begun
        size = path.stat().st_size / speakers
    rows = [
        ["written, speakers/s", f"{speakers / written:.0f}"],
        ["memory more than before, MB", f"{grown / 1e6:.0f}"],
        ["bytes a speaker", f"{size:.0f}"],
        ["opened, and the first one read, ms", f"{1000 * opened:.1f}"],
        [f"looked up and read in random order, speakers/s (of {LOOKED_UP})", f"{LOOKED_UP / read:.0f}"],
    ]
    show(f"{speakers} speakers of {sum(site.width for site in SITES)} amplitudes", ["", ""], rows)


def _people(speakers: int) -> Iterator[SpeakerState]:
    generator = torch.Generator().manual_seed(1)
    for number in range(speakers):
        r = {site.name: 0.1 * torch.randn(site.width, generator=generator) for site in SITES}
        extras = {
            "cmvn.mean": torch.randn(40, generator=generator, dtype=torch.float64),
            "cmvn.deviation": torch.rand(40, generator=generator, dtype=torch.float64) + 1.0,
        }
        yield SpeakerState(f"s{number}", "exp", "a network", SITES, r, extras)


def _most_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
