"""Failures of the host and of libraries in one line with the way round; mistakes of the program stay tracebacks."""

from __future__ import annotations

import errno
import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from lhuc_asr.base.errors import CorpusError
from lhuc_asr.cli import main as command_line
from lhuc_asr.cli.failures import explained
from lhuc_asr.corpus.download import ARCHIVES


def system_error(number: int, *names: object) -> OSError:
    return OSError(number, os.strerror(number), *names)


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (system_error(errno.EROFS), "a temporary file"),
        (system_error(errno.ENOSPC), "set TMPDIR to a folder that has space"),
        (system_error(errno.EDQUOT), "Disk quota exceeded; set TMPDIR"),
        (FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/t']"), "set TMPDIR to a folder"),
        (system_error(errno.EMFILE), "Too many open files; close other programs, or raise the limit with: ulimit -n"),
        (system_error(errno.ENFILE, "x"), "x: Too many open files in system; close other programs"),
        (system_error(errno.EAGAIN), "Resource temporarily unavailable; end other programs"),
        (system_error(errno.ENOMEM), "use workers=1"),
        (system_error(errno.EACCES, "x"), "x: Permission denied; choose a place that may be written to"),
        (system_error(errno.ENAMETOOLONG, "x" * 5000), "use a shorter name"),
        (system_error(errno.EXDEV, "a", None, "b"), "a -> b: Invalid cross-device link; what was"),
        (system_error(errno.EBADF), "Bad file descriptor; --debug before the verb shows where"),
        (OSError("no number"), "no number; --debug before the verb shows where"),
        (OSError(), "--debug before the verb shows where"),
        (MemoryError(), "the memory is full"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), "the memory is full"),
        (RuntimeError("CUDA out of memory. Tried to allocate"), "the memory is full"),
        (RuntimeError("can't start new thread"), "a thread cannot be started; end other programs"),
        (ImportError("libx.so: failed to map segment\n  from shared object"), "failed to map segment from shared"),
        (ModuleNotFoundError("No module named 'numpy'", name="numpy"), "install lhuc_asr again"),
        (UnicodeEncodeError("ascii", "caf\xe9", 3, 4, "no"), "encoding ascii lacks 'é'; write to a file"),
        (UnicodeEncodeError("utf-8", "a\udcff", 1, 2, "no"), "is not text in UTF-8"),
    ],
    ids=lambda value: None if isinstance(value, str) else repr(value)[:40],
)  # fmt: skip
def test_the_hosts_failures_are_one_line_with_the_way_round(error: Exception, sentence: str) -> None:
    text = explained(error)
    assert text is not None
    assert sentence in text
    assert "\n" not in text
    assert len(text) < 600


@pytest.mark.parametrize(
    "error",
    [
        ValueError("x"), KeyError("x"), RuntimeError("shapes"), RecursionError("x"), AttributeError("x"),
        ImportError("cannot import name 'x'", name="lhuc_asr.base.units"),
    ],
    ids=repr,
)  # fmt: skip
def test_mistakes_of_the_program_keep_their_traceback(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def app() -> None:
        raise error

    monkeypatch.setattr(command_line, "app", app)
    with pytest.raises(type(error)):
        command_line.main()


def test_errors_of_the_package_say_their_own_sentence() -> None:
    assert explained(CorpusError("wav.scp:3: expected")) == "wav.scp:3: expected"


def test_an_interruption_outside_a_verb_is_not_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def app() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command_line, "app", app)
    with pytest.raises(SystemExit) as caught:
        command_line.main()
    assert caught.value.code == 130


def test_standard_output_on_a_full_disk_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with open("/dev/full", "wb", buffering=4096) as full:
        text = io.TextIOWrapper(full, encoding="utf-8")
        monkeypatch.setattr(sys, "stdout", text)
        with pytest.raises(OSError, match="No space") as caught:
            typer.echo("a line")
        assert explained(caught.value) == (
            "standard output: No space left on device; write to a file on another disk; "
            "what was finished before is intact"
        )
        text.close()


# Hosts, in fresh processes that load nothing heavy.

MAIN = f"{sys.executable} -c 'from lhuc_asr.cli.main import main; main()'"


def shell(line: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    root = str(Path(command_line.__file__).parents[2])
    variables = {"PATH": os.environ["PATH"], "PYTHONPATH": root, **environment}
    return subprocess.run(
        ["bash", "-c", line], cwd=folder, env=variables, capture_output=True, text=True, timeout=60, check=False
    )


ENTRY = MAIN.replace("cli.main", "cli.entry")
UNKNOWN = "download librispeech foo there"


def test_an_interruption_while_the_verbs_are_loaded_is_not_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGINT); os.write(2, b'late')")
    done = shell(f"PYTHONPATH={tmp_path}:$PYTHONPATH; exec {ENTRY} --help", tmp_path)
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "")


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_an_interruption_while_python_ends_is_not_a_traceback(name: str, tmp_path: Path) -> None:
    (tmp_path / "late.py").write_text(
        "import atexit, os, signal\n"
        f"atexit.register(lambda: os.kill(os.getpid(), signal.{name}))\n"
        "from lhuc_asr.cli.entry import main; main()\n"
    )
    done = shell(f"exec {sys.executable} late.py --version", tmp_path)
    assert (done.returncode, done.stderr) == (-getattr(signal, name), "")


@pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_an_interruption_that_a_library_turns_into_its_own_error_is_not_a_traceback(
    name: str, status: int, tmp_path: Path
) -> None:
    (tmp_path / "interrupted.py").write_text(
        "import os, signal\n"
        "from lhuc_asr.cli import main\n"
        "def app():\n"
        f"    try: os.kill(os.getpid(), signal.{name})\n"
        "    except BaseException: raise RecursionError('as numpy says while it is loaded')\n"
        "main.app = app\n"
        "main.main()\n"
    )
    done = shell(f"{sys.executable} interrupted.py", tmp_path)
    assert (done.returncode, done.stderr) == (status, "lhuc-asr: interrupted\n")


def test_a_current_folder_that_was_deleted_is_named(tmp_path: Path) -> None:
    done = shell(f"mkdir gone; cd gone; rmdir ../gone; {MAIN} {UNKNOWN}", tmp_path)
    assert done.returncode == 1
    assert "the current folder is not there any more (No such file or directory); cd to another" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("closed", ["<&-", ">&-", "<&- >&-"])
def test_closed_streams_leave_the_message(closed: str, tmp_path: Path) -> None:
    done = shell(f"{MAIN} {UNKNOWN} {closed}", tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("lhuc-asr: error: LibriSpeech has no subset")
    assert len(done.stderr.splitlines()) == 1


def test_a_closed_stderr_does_not_end_a_command(tmp_path: Path) -> None:
    folder = tmp_path / "there" / "LibriSpeech" / "dev-clean-2"
    folder.mkdir(parents=True)
    for number in range(ARCHIVES["dev-clean-2"].recordings):
        (folder / f"{number}.flac").touch()
    done = shell(f"{MAIN} download librispeech dev-clean-2 there 2>&- <&-", tmp_path)
    assert (done.returncode, done.stdout) == (0, "librispeech dev-clean-2: there/LibriSpeech/dev-clean-2\n")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_file_does_not_take_the_place_of_a_closed_stream(closed: str, tmp_path: Path) -> None:
    code = (
        "import os, sys; from lhuc_asr.cli.process import prepare_process; prepare_process()\n"
        "with open('file', 'w') as file:\n"
        "    print(file.fileno(), os.system('true >&2; true <&0'), file=file)"
    )
    shell(f'{sys.executable} -c "{code}" {closed}', tmp_path)
    number, status = (tmp_path / "file").read_text(encoding="utf-8").split()
    assert int(number) > 2
    assert status == "0"


@pytest.mark.parametrize(
    "environment",
    [
        {"HOME": "/nonexistent", "TMPDIR": "/nonexistent"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"COLUMNS": "1", "LINES": "1"},
        {"PATH": "/bin:/usr/bin", "TERM": "nonsense"},
    ],
    ids=lambda value: "+".join(value),
)
def test_help_and_messages_need_nothing_of_the_host(environment: dict[str, str], tmp_path: Path) -> None:
    assert shell(f"{MAIN} --help", tmp_path, **environment).returncode == 0
    done = shell(f"{MAIN} {UNKNOWN}", tmp_path, **environment)
    assert done.stderr.startswith("lhuc-asr: error: LibriSpeech has no subset")


@pytest.mark.parametrize("limit", ["ulimit -n 24", "ulimit -u 64", "nice -n 19 true"])
def test_small_limits_are_enough_for_a_message(limit: str, tmp_path: Path) -> None:
    assert "LibriSpeech has no subset" in shell(f"{limit}; {MAIN} {UNKNOWN}", tmp_path).stderr


def test_names_that_cannot_be_are_one_line(package_log, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("n" * 300, "n/" * 3000):
        monkeypatch.setattr(sys, "argv", ["lhuc-asr", "download", "librispeech", "dev-clean", str(tmp_path / name)])
        with pytest.raises(SystemExit) as caught:
            command_line.main()
        assert str(caught.value.code).startswith("lhuc-asr: error: ")
        assert "\n" not in str(caught.value.code)
