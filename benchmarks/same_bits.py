"""Whether the checkout computes what an earlier commit computed, to the bit: for changes that must change no number.

    python benchmarks/same_bits.py --commit a3bc209 --an4 AN4_FOLDER [--work exp/same_bits]

Both trees run the same commands, each in a process of its own: the demo, AN4 with its official split, PPNet's synthetic
recipe, then the export of both experiments, ``adapt`` and ``transcribe`` for a speaker of each. The earlier tree is a
git worktree below ``--work``. Finished commands are not repeated: delete the folder of a side, or name another with
``--work``, to start anew. Compared are

- the bytes of texts and alignments: hypotheses, error rates, tables, tuned searches, transcripts;
- the tensors of networks, speakers and preparations by name, type, shape and bytes. The description in their files'
  headers may change.

The exit status is 1 where anything differs or is missing on one side; every difference is a line.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
ENTRY = "from lhuc_asr.cli.main import main; main()"
# Files of an experiment whose bytes count, and files whose tensors do.
COMPARED_AS_BYTES = (
    "decode/**/hypotheses.jsonl",
    "decode/**/wer.json",
    "decode/**/search.json",
    "decode/**/pdfs.ali",
    "decode/**/table.txt",
    "decode/**/speakers.csv",
    "decode/**/comparison.json",
    "hmm/**/*.ali",
    "lang/**/lm.arpa",
    "lang/**/lexicon.txt",
    "**/results.txt",
    "**/results.json",
    "offline/*.txt",
    "*.txt",
)
COMPARED_AS_TENSORS = (
    "am/**/model.safetensors",
    "hmm/**/gmm.safetensors",
    "speakers/**/*.safetensors",
    "**/ranker/*.safetensors",
    "offline/*.safetensors",
    "*.safetensors",
)
# A preparation's folder: the hash is made of the names of options, which may change where the numbers may not.
PREPARATION = re.compile(r"speakers/prepared/([^/]+)-[0-9a-f]{8}/")
# A training state lies beside its network only while that is trained.
LEFT_OUT = ("training-",)


def commands(an4: Path, out: Path, seeds: str | None) -> list[list[str]]:
    """What both sides run, in this order: arguments of ``lhuc-asr``, all files below ``out``."""
    ppnet = [] if seeds is None else [f"seeds=[{seeds}]"]
    exp = {name: str(out / "exp" / name) for name in ("demo", "an4", "ppnet")}
    runs = [
        ["run", "recipes/demo", f"exp={exp['demo']}"],
        ["run", "recipes/an4", f"corpus.dir={an4}", f"exp={exp['an4']}"],
        ["ppnet", "train", "recipes/ppnet_synthetic", f"exp={exp['ppnet']}", *ppnet],
    ]
    for name in ("demo", "an4"):
        model, speaker, person = str(out / f"{name}_model"), f"{name}_speaker", out / f"{name}_recordings"
        file = str(out / "offline" / f"{speaker}.safetensors")
        runs += [
            ["export", exp[name], model],
            ["adapt", model, "--speaker", speaker, str(person), "-o", file],
            *(
                [
                    "transcribe",
                    model,
                    *who,
                    "--format",
                    "json",
                    "-o",
                    str(out / "offline" / f"{name}_{how}.txt"),
                    str(person),
                ]
                for how, who in (("before", []), ("after", ["--speaker", file]))
            ),
        ]
    return runs


def run_side(tree: Path, an4: Path, out: Path, seeds: str | None) -> None:
    """Run every command with one tree's code; those that this side has finished are skipped."""
    (out / "offline").mkdir(parents=True, exist_ok=True)
    done_file = out / "done.json"
    done = json.loads(done_file.read_text()) if done_file.exists() else []
    for command in commands(an4, out, seeds):
        if command in done:
            continue
        if command[0] == "adapt":
            link_recordings(Path(command[1].removesuffix("_model")), out)
        sys.stdout.write(f"{tree}: lhuc-asr {' '.join(command)}\n")
        sys.stdout.flush()
        environment = {**os.environ, "PYTHONPATH": str(tree)}
        subprocess.run([sys.executable, "-c", ENTRY, *command], cwd=tree, env=environment, check=True)
        done_file.write_text(json.dumps([*done, command]))
        done.append(command)


def link_recordings(name: Path, out: Path) -> None:
    """A folder with the recordings of the first test speaker of an experiment."""
    folder = out / f"{name.name}_recordings"
    folder.mkdir(exist_ok=True)
    with (out / "exp" / name.name / "corpus" / "test.jsonl").open(encoding="utf-8") as file:
        utterances = [json.loads(line) for line in file]
    for utterance in utterances:
        if utterance["speaker"] == utterances[0]["speaker"]:
            audio = Path(utterance["audio"])
            (folder / audio.name).unlink(missing_ok=True)
            (folder / audio.name).symlink_to(audio.resolve())


def differences(before: Path, after: Path) -> tuple[list[str], int]:
    """A line for each file that differs or is on one side only, and the number of files that were compared.

    Args:
        before: A folder of experiments or files, as the earlier commit left it.
        after: The same, as this checkout left it.
    """
    lines, count = [], 0
    for patterns, digest in ((COMPARED_AS_BYTES, digest_of_bytes), (COMPARED_AS_TENSORS, digest_of_tensors)):
        ours, theirs = (matching(side, patterns) for side in (before, after))
        for name in sorted(ours.keys() | theirs.keys()):
            one, other = ours.get(name, []), theirs.get(name, [])
            count += min(len(one), len(other))
            if len(one) != len(other):
                lines.append(f"{name}: only in {before if len(one) > len(other) else after}")
            elif sorted(map(digest, one)) != sorted(map(digest, other)):
                lines.append(f"{name}: differs")
    return lines, count


def matching(folder: Path, patterns: tuple[str, ...]) -> dict[str, list[Path]]:
    """Files of the experiments in a folder that match a pattern, by the name that both sides have for them.

    The name is the path in the folder, without the hash in a preparation's: preparations of one kind share a name.
    """
    named: dict[str, list[Path]] = {}
    for root in (folder, *sorted(folder.glob("exp/*"))):
        for path in sorted({path for pattern in patterns for path in root.glob(pattern)}):
            if path.is_file() and not path.name.startswith(LEFT_OUT):
                name = PREPARATION.sub(r"speakers/prepared/\1/", path.relative_to(folder).as_posix())
                if path not in named.setdefault(name, []):
                    named[name].append(path)
    return named


def digest_of_bytes(path: Path) -> str:
    """SHA-256 of a file's bytes, without the folder in which its side ran."""
    text = path.read_bytes()
    for parent in path.parents:
        if (parent / "done.json").exists():
            text = text.replace(str(parent.resolve()).encode(), b"")
    return hashlib.sha256(text).hexdigest()


def digest_of_tensors(path: Path) -> str:
    """SHA-256 of the tensors of a safetensors file: names, types, shapes, bytes; its description does not count."""
    from safetensors import safe_open

    digest = hashlib.sha256()
    with safe_open(path, framework="np") as file:
        for name in sorted(file.keys()):
            tensor = file.get_tensor(name)
            digest.update(f"{name} {tensor.dtype} {tensor.shape}\n".encode())
            digest.update(tensor.tobytes())
    return digest.hexdigest()


def main() -> int:
    """Run both sides and compare them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--commit", required=True, help="the commit before the change")
    parser.add_argument("--an4", required=True, type=Path, help="the folder of AN4")
    parser.add_argument("--work", type=Path, default=ROOT / "exp" / "same_bits", help="where both sides run")
    parser.add_argument("--ppnet-seeds", help="seeds of PPNet's recipe, such as 1,2; the recipe's five unless given")
    parser.add_argument("--only", choices=("before", "after"), help="run this side only, and compare nothing")
    arguments = parser.parse_args()
    work, an4 = arguments.work.resolve(), arguments.an4.resolve()
    tree = work / f"tree-{arguments.commit}"
    if not tree.exists():
        subprocess.run(["git", "-C", str(ROOT), "worktree", "add", "--detach", str(tree), arguments.commit], check=True)
    sides = {"before": tree, "after": ROOT}
    for side, code in sides.items():
        if arguments.only in (None, side):
            run_side(code, an4, work / side, arguments.ppnet_seeds)
    if arguments.only is not None:
        return 0
    lines, count = differences(work / "before", work / "after")
    sys.stdout.write("\n".join([*lines, f"{count} files compared, {len(lines)} differ"]) + "\n")
    return 1 if lines or not count else 0


if __name__ == "__main__":
    sys.exit(main())
