"""Words while one speaks: how long after its end a word is seen, and what share of real time the work takes.

    python benchmarks/live.py MODEL SPEAKER AUDIO...    # the recordings of one person, with the file that adapt wrote

Each recording is heard in blocks of a tenth of a second, as fast as they can be, and a second of silence after it: the
last words wait for what comes after them too. A word that stands was first seen with the first block after which the
words shown always began with all words up to it. Its delay is the time of that block's last sample minus the word's
end: what one waits for on a machine that keeps up, the block included, the work on it not.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import soundfile
from timing import Spread, show

from lhuc_asr.audio.resampling import resample
from lhuc_asr.recognizer.recognizer import load
from lhuc_asr.recognizer.recordings import recordings
from lhuc_asr.recognizer.transcript import Word

BLOCK_SECONDS = 0.1


def main(model: Path, speaker: Path, audio: list[str]) -> None:
    """Listen to each recording, and compare with the words that stand at its end."""
    recognizer = load(model)
    person = recognizer.load_speaker(speaker)
    delays: list[float] = []
    seconds = work = longest = 0.0
    with recordings(audio) as named:
        for recording in named:
            live = recognizer.listen(person)
            samples, rate = soundfile.read(recording.path, dtype="float32", always_2d=True)
            samples = resample(samples.mean(axis=1), rate, live.sample_rate)
            seconds += len(samples) / live.sample_rate
            samples = np.concatenate([samples, np.zeros(live.sample_rate, np.float32)])
            size = round(BLOCK_SECONDS * live.sample_rate)
            blocks = [samples[first : first + size] for first in range(0, len(samples), size)]
            standing: list[Word] = []
            seen: list[tuple[float, list[str]]] = []  # the end of each block, and the words shown after it
            for number, block in enumerate([*blocks, None], start=1):
                start = time.perf_counter()
                heard = live.end() if block is None else live.hear(block)
                spent = time.perf_counter() - start
                work, longest = work + spent, max(longest, spent)
                standing += heard.finished
                words = [*(word.word for word in standing), *heard.unfinished]
                seen.append((min(number * BLOCK_SECONDS, len(samples) / live.sample_rate), words))
            for place, word in enumerate(standing):
                upto = [each.word for each in standing[: place + 1]]
                last_without = max((k for k, (_, words) in enumerate(seen) if words[: place + 1] != upto), default=-1)
                delays.append(seen[last_without + 1][0] - word.end)
    if not delays:
        sys.exit("nothing is said in the recordings; name others")
    show(
        f"{model}: {len(delays)} words in {seconds:.0f} s, blocks of {BLOCK_SECONDS:g} s",
        ["", "median [quartiles]", "90 %"],
        [
            ["delay of a word, s", str(Spread.of(delays)), f"{np.quantile(delays, 0.9):.2f}"],
            ["work, share of real time", f"{work / seconds:.3f}", ""],
            ["longest work on a block, s", f"{longest:.2f}", ""],
        ],
    )


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
