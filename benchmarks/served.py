"""The door under load: requests a second and their delays, of speakers mixed, of one, and of twice what it holds.

    python benchmarks/served.py MODEL PEOPLE      # a model; a folder with a folder of recordings for each speaker
    python benchmarks/served.py MODEL PEOPLE --device cuda --processes 8

Everybody is adapted to, packed into an archive, and served. Clients are threads of this process, which send the next
request when the last is answered; then requests come at twice the rate that was served, whether earlier ones are
answered or not.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import numpy as np
from timing import show

from lhuc_asr.recognizer.recognizer import load
from lhuc_asr.recognizer.speaker_files import pack
from lhuc_asr.serving.door import Limits, opened_door

# Clients at once, seconds of a measurement, and the seconds before it in which processes get warm.
CLIENTS, SECONDS, WARM = 32, 20.0, 5.0
PORT = 8765
# A recording and whose it is.
Asked = tuple[str, bytes]
# The status of an answer, and the seconds that it took.
Answer = tuple[int, float]


def main(model: Path, people: Path, device: str, processes: int) -> None:
    """Measure the three loads."""
    everybody = {folder.name: sorted(folder.iterdir()) for folder in sorted(people.iterdir()) if folder.is_dir()}
    recordings = [(name, path.read_bytes()) for name, paths in everybody.items() for path in paths]
    mixed = [recordings[place] for place in np.random.default_rng(1).permutation(len(recordings))]
    own = [(name, audio) for name, audio in recordings if name == recordings[0][0]]
    with tempfile.TemporaryDirectory() as temporary:
        archive = Path(temporary) / "people.archive"
        _pack(model, everybody, archive)
        limits = Limits(waiting=2 * CLIENTS // processes)
        with opened_door(model, archive, held=256, limits=limits, processes=processes, device=device, port=PORT) as url:
            _closed(url, mixed, WARM)
            rates, rows = [], []
            for title, asked in ((f"{len(everybody)} speakers, mixed", mixed), ("one speaker alone", own)):
                answers = _closed(url, asked, SECONDS)
                rates.append(len(answers) / SECONDS)
                rows.append(_row(f"{title}, {CLIENTS} clients", answers, SECONDS))
            answers = _open(url, mixed, 2 * rates[0])
            rows.append(_row("mixed, twice that rate", answers, SECONDS))
    if unknown := {status for status, _ in answers} - {200, 503}:
        raise SystemExit(f"answers with the status {unknown}: neither words nor a refusal")
    title = (
        f"{model}, {device}, processes: {processes}; mixed over one alone, {rates[0] / rates[1]:.2f} times the requests"
    )
    show(title, ["", "requests", "answered", "refused", "answered/s", "median s", "99 % s"], rows)


def _pack(model: Path, everybody: dict[str, list[Path]], archive: Path) -> None:
    recognizer, folder = load(model), archive.parent / "people"
    folder.mkdir()
    for name, paths in everybody.items():
        recognizer.adapt(paths, speaker=name).save(folder / f"{name}.safetensors")
    pack(archive, [folder])


def _ask(url: str, asked: Asked) -> Answer:
    began = time.perf_counter()
    request = urllib.request.Request(f"{url}?speaker={asked[0]}", asked[1])
    try:
        with urllib.request.urlopen(request, timeout=120) as reply:
            json.load(reply)
            status = reply.status
    except urllib.error.HTTPError as error:
        json.load(error)
        status = error.code
    return status, time.perf_counter() - began


def _closed(url: str, asked: Sequence[Asked], seconds: float) -> list[Answer]:
    """The answers to clients each of whom asks again when it has been answered."""
    numbers, answers, ends = count(), [], time.perf_counter() + seconds

    def client() -> None:
        while time.perf_counter() < ends:
            answer = _ask(url, asked[next(numbers) % len(asked)])
            if time.perf_counter() < ends:
                answers.append(answer)

    _all_at_once([client] * CLIENTS)
    return answers


def _open(url: str, asked: Sequence[Asked], rate: float) -> list[Answer]:
    """The answers to requests that come at a rate."""
    with ThreadPoolExecutor(1024) as pool:
        sent = []
        began = time.perf_counter()
        for number in range(int(SECONDS * rate)):
            time.sleep(max(0.0, began + number / rate - time.perf_counter()))
            sent.append(pool.submit(_ask, url, asked[number % len(asked)]))
        return [each.result() for each in sent]


def _all_at_once(clients: Sequence[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=client) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _row(title: str, answers: Sequence[Answer], seconds: float) -> list[str]:
    delays = [delay for status, delay in answers if status == 200]
    refused = sum(status == 503 for status, _ in answers)
    median, most = np.percentile(delays, [50, 99]) if delays else (float("nan"),) * 2
    answered = [str(len(answers)), str(len(delays)), str(refused), f"{len(delays) / seconds:.1f}"]
    return [title, *answered, f"{median:.3f}", f"{most:.3f}"]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("people", type=Path)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--processes", type=int, default=1)
    options = parser.parse_args()
    main(options.model, options.people, options.device, options.processes)
