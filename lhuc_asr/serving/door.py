"""The door of a transcription service: recordings come in over HTTP, and go out as words.

    POST /transcribe?speaker=NAME     the body is an audio file; without a speaker, an unknown person's

The answer is an object of ``lhuc-asr transcribe --format json``, or ``{"error": ...}`` with a status that says whose
fault it is. Requests that come while others are in work wait, and are then transcribed together, whoever speaks in
them (``recognizer/crowd.py``). When more wait than were allowed, further ones are refused at once: one that is not
refused gets an answer. Ray Serve keeps the processes, and starts them again when they end.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lhuc_asr.base.cluster import Cluster, ClusterError
from lhuc_asr.base.device import checked_device
from lhuc_asr.base.errors import AudioError, ConfigError, LhucError, SpeakerError
from lhuc_asr.base.extras import extra
from lhuc_asr.base.foreign import foreign_errors
from lhuc_asr.recognizer.crowd import Crowd, Request
from lhuc_asr.recognizer.recognizer import load
from lhuc_asr.recognizer.transcript import Transcript
from lhuc_asr.recognizer.transcript_formats import tree_of

with extra("serve"):
    import ray
    from ray import serve
    from starlette.requests import Request as HttpRequest
    from starlette.responses import Response

logger = logging.getLogger(__name__)

ROUTE = "/transcribe"
# Recordings that go through the network together, at most.
BATCH = 32
# Seconds that the first request of a batch waits for others. Where the network is on a processor, searches take far
# longer than the network, and waiting would gain nothing.
WAIT_SECONDS = 0.005
# Seconds after which a refused client may try again.
RETRY_SECONDS = 1
# Seconds in which the process that listens has to be ready. Ray Serve ends one that is not after 5, which on a busy
# machine is what it takes to start.
READY_SECONDS = 60
# Ray Serve's own limit is never reached: the door refuses before it.
SPARE = 1000
BAD_AUDIO, UNKNOWN_SPEAKER, OTHER_METHOD, TOO_LATE, TOO_LARGE, BUSY, BROKEN = 400, 404, 405, 504, 413, 503, 500


@dataclass(frozen=True)
class Limits:
    """What a process of the service takes on.

    Attributes:
        waiting: Requests in work and in wait; further ones are refused.
        megabytes: Size of a request's body.
        seconds: Length of a recording.
        timeout: Seconds after which an answer comes too late.
    """

    waiting: int = 64
    megabytes: float = 20.0
    seconds: float = 60.0
    timeout: float = 60.0


class TooLargeError(LhucError):
    """The body of a request is larger than is allowed."""


class Door:
    """A process of the service.

    Args:
        model: Folder of the model.
        archive: The archive of its speakers, or a folder of archives; None for unknown persons alone.
        held: Maximum number of speakers in memory.
        limits: What it takes on, as plain values.
        device: Device of the network: cpu, or cuda for the GPU that Ray gives this process.
    """

    def __init__(self, model: str, archive: str | None, held: int, limits: dict[str, Any], device: str) -> None:
        self._crowd: Crowd = load(model, device).crowd(archive, held)
        self._limits = Limits(**limits)
        self._in_hand = 0

    async def __call__(self, request: HttpRequest) -> Response:
        """The answer to a request."""
        limits = self._limits
        if request.method != "POST":
            return _refused(OTHER_METHOD, f"POST an audio file to {ROUTE}?speaker=NAME", Allow="POST")
        if self._in_hand >= limits.waiting:
            message = f"{self._in_hand} requests are in work or wait, which is the limit; try again in a second"
            return _refused(BUSY, message, **{"Retry-After": str(RETRY_SECONDS)})
        self._in_hand += 1
        try:
            audio = await _body(request, limits.megabytes)
            speaker = request.query_params.get("speaker") or None
            work = self._transcribed(Request(request.query_params.get("name") or "audio", speaker, audio))
            return _answered(await asyncio.wait_for(work, limits.timeout))
        except TooLargeError as error:
            return _refused(TOO_LARGE, str(error))
        except TimeoutError:
            return _refused(TOO_LATE, f"no answer within {limits.timeout:g} s; send shorter recordings, or fewer")
        finally:
            self._in_hand -= 1

    @serve.batch(max_batch_size=BATCH, batch_wait_timeout_s=WAIT_SECONDS)
    async def _transcribed(self, requests: list[Request]) -> list[Transcript | LhucError]:
        # Beside the loop, which takes and refuses requests meanwhile.
        return await asyncio.to_thread(self._crowd.transcripts, requests, self._limits.seconds)


async def _body(request: HttpRequest, megabytes: float) -> bytes:
    """The body of a request.

    Raises:
        TooLargeError: It is larger than is allowed; no more of it than that is read.
    """
    most, body = megabytes * 1e6, bytearray()
    async for part in request.stream():
        body += part
        if len(body) > most:
            raise TooLargeError(f"more than {megabytes:g} MB; cut the recording, or send FLAC")
    return bytes(body)


def _answered(answer: Transcript | LhucError) -> Response:
    if isinstance(answer, Transcript):
        return Response(json.dumps(tree_of(answer), ensure_ascii=False), media_type="application/json")
    if isinstance(answer, AudioError):
        return _refused(BAD_AUDIO, str(answer))
    if isinstance(answer, SpeakerError):
        return _refused(UNKNOWN_SPEAKER, str(answer))
    logger.error("%s", answer)  # it may name files of this machine
    return _refused(BROKEN, "the service has a fault, which its log describes")


def _refused(status: int, message: str, **headers: str) -> Response:
    return Response(json.dumps({"error": message}), status, headers, "application/json")


@contextmanager
def opened_door(
    model: Path,
    archive: Path | None,
    *,
    held: int,
    limits: Limits = Limits(),
    processes: int = 1,
    device: str = "cpu",
    host: str = "127.0.0.1",
    port: int = 8000,
    address: str | None = None,
) -> Iterator[str]:
    """A context with the service running; gives its URL.

    Args:
        model: Folder of the model.
        archive: The archive of its speakers, or a folder of archives; None for unknown persons alone.
        held: Maximum number of speakers in the memory of a process.
        limits: What each process takes on.
        processes: Number of processes, each with the model loaded.
        device: Device of their networks: cpu; or cuda for GPUs of this machine or the cluster, which processes share.
        host: Address that the service listens on.
        port: Its port.
        address: ``auto`` for the Ray cluster of this machine, or ``HOST:PORT`` of its head; None to start one here.

    Raises:
        ClusterError: The cluster cannot be reached, or the service cannot be started.
        ConfigError: The device is not there.
        LhucError: The model or the archive cannot be used.
    """
    load(model).crowd(archive, held)  # what is wrong with them is an error here, and not in a log of Ray's
    _check_device(device, here=address is None)
    with ExitStack() as stack:
        stack.enter_context(_ray(address, processes))
        resources = {"num_cpus": 1, "num_gpus": 0 if device == "cpu" else _gpu_share(processes)}
        arguments = str(model.absolute()), None if archive is None else str(archive.absolute()), held, asdict(limits)
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        quiet = {"log_level": "ERROR", "enable_access_log": False}
        with foreign_errors(ClusterError, "the service cannot be started", f"is port {port} free?"):
            stack.callback(serve.shutdown)
            serve.start(
                http_options={"host": host, "port": port},
                logging_config=quiet,
                controller_options={
                    "runtime_env": {"env_vars": {"RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": str(READY_SECONDS)}}
                },
            )
            door = serve.deployment(name="door")(Door).options(
                num_replicas=processes,
                ray_actor_options=resources,
                max_ongoing_requests=limits.waiting + SPARE,
                logging_config=quiet,
            )
            serve.run(door.bind(*arguments, device), name="lhuc_asr", route_prefix=ROUTE)
        yield f"http://{host}:{port}{ROUTE}"


@contextmanager
def _ray(address: str | None, processes: int) -> Iterator[None]:
    """A context in which this process is connected to Ray.

    Args:
        address: As of ``opened_door``.
        processes: Number of processors that Ray counts with, where it is started here.

    Raises:
        ClusterError: It cannot be started, or the cluster cannot be reached or has other versions than this machine.
    """
    if address is not None:
        with Cluster(address):
            yield
        return
    with foreign_errors(ClusterError, "Ray cannot be started", "its log is below /tmp/ray/session_latest/logs"):
        ray.init(
            address="local",  # not a cluster that happens to run here
            num_cpus=processes,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            configure_logging=False,
        )
    try:
        yield
    finally:
        ray.shutdown()


def _check_device(device: str, here: bool) -> None:
    """Refuse a device that the processes cannot have.

    Args:
        device: Its name.
        here: Whether they are to run on this machine.

    Raises:
        ConfigError: They cannot.
    """
    if device not in ("cpu", "cuda"):
        raise ConfigError(f"--device {device}: Ray chooses the GPU of each process; give --device cpu or --device cuda")
    if here:
        checked_device(device, "--device ")


def _gpu_share(processes: int) -> float:
    """The part of a GPU that each of some processes gets: as large as it can be with room for all.

    Raises:
        ConfigError: The cluster does not have a GPU.
    """
    gpus = int(ray.cluster_resources().get("GPU", 0))  # type: ignore[no-untyped-call]
    if gpus == 0:
        raise ConfigError("--device cuda: the machines of the cluster have no GPU that Ray knows; give --device cpu")
    return 1 / math.ceil(processes / gpus)
