"""Work on the machines of a Ray cluster: named functions of text, answers in the order in which they come.

Ray moves tasks and results between machines as pickles, so that whoever reaches the cluster's ports can run code on its
machines (SECURITY.md). Nothing of ours depends on that: a task is the name of a function in this package and one
JSON text, its answer is another, and all data go through files.

A task may run twice: a machine that is lost takes its tasks with it, and Ray gives them to another. It must therefore
leave the same result when it is run again, and not half of one when it is ended.
"""

from __future__ import annotations

import importlib
import json
import logging
import platform
import socket
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from lhuc_asr.base.errors import LhucError
from lhuc_asr.base.extras import extra
from lhuc_asr.base.foreign import reason_of

logger = logging.getLogger(__name__)

PACKAGE = "lhuc_asr"
# The address of the cluster that this machine belongs to.
OWN = "auto"
# Time in which the head of a cluster must take a connection.
CONNECT_SECONDS = 10.0
# Tasks handed out and not yet answered, for each processor of the cluster: one in work, one in wait.
IN_FLIGHT = 2
# Machines that a task may outlive.
RETRIES = 5
# Libraries whose numbers may depend on their version.
COMPARED = ("lhuc_asr", "torch", "numpy", "kaldi-native-fbank", "kaldifst", "kaldi-decoder")
# Machines that a message names.
NAMED = 3

# The address of the connection of this process, once for each ``with`` that it is in.
_entered: list[str] = []

# A task: what it is called in messages, and the plain values that it is given.
Task = tuple[str, Mapping[str, Any]]


class ClusterError(LhucError, RuntimeError):
    """The cluster is not there, has another version of the package, or lost a task too often."""


@dataclass(frozen=True)
class Answer:
    """What became of a task.

    Attributes:
        name: Name of the task.
        value: The plain value that its function returned.
    """

    name: str
    value: Any


class Cluster:
    """A connection to a Ray cluster, as a context manager.

    A process has one connection, which ``with`` in another ``with`` shares.

    Args:
        address: ``auto`` for the cluster of this machine, or ``HOST:PORT`` of its head.

    Raises:
        MissingExtraError: Ray is not installed.
        ClusterError: The cluster cannot be reached, or one of its machines has other versions than this one.
    """

    def __init__(self, address: str) -> None:
        with extra("cluster"):
            import ray
        self._ray: Any = ray
        self._address = address

    def __enter__(self) -> Cluster:
        if self._address not in _entered:
            self._connect()
        elif not self._answers():
            self._ray.shutdown()
            self._connect()
        _entered.append(self._address)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _entered.remove(self._address)
        if not _entered:
            self._ray.shutdown()

    def run(self, function: Callable[[Mapping[str, Any]], Any], tasks: Iterable[Task]) -> Iterator[Answer]:
        """Run tasks; answers come as they are ready, and what the tasks logged comes to this log.

        Args:
            function: The function of each task, at the top of a module of this package.
            tasks: The tasks, read as they are needed.

        Raises:
            ClusterError: A task failed in a way that is not an error of this package, or machines were lost with it
                too often.
            LhucError: What the function raised.
        """
        remote = self._ray.remote(_work).options(num_cpus=1, max_retries=RETRIES, retry_exceptions=False)
        name = name_of_function(function)
        waiting: dict[Any, str] = {}
        try:
            for title, values in tasks:
                waiting[remote.remote(name, json.dumps(values))] = title
                if len(waiting) >= self._most():
                    yield self._next(waiting)
            while waiting:
                yield self._next(waiting)
        finally:
            for reference in waiting:
                with suppress(Exception):  # it is finished, or its machine is gone
                    self._ray.cancel(reference, force=True)

    def _answers(self) -> bool:
        """Whether a connection that was made before still is one: a head may have been started again since."""
        try:
            return bool(self._ray.nodes())
        except Exception:
            return False

    def _connect(self) -> None:
        try:
            self._knock()
            self._ray.init(
                address=self._address, log_to_driver=False, logging_level=logging.ERROR, configure_logging=False
            )
        except Exception as error:
            raise ClusterError(
                f"{self._address}: no Ray cluster can be reached there ({reason_of(error)}); start one "
                "with ray start --head, and name its address, or auto on the machine that it runs on"
            ) from error
        try:
            self._check_versions()
        except BaseException:
            self._ray.shutdown()
            raise
        logger.info("cluster %s: %d machines, %d processors", self._address, len(self._nodes()), self._processor_count)

    def _knock(self) -> None:
        """Look whether anybody answers: Ray itself asks a head that is not there for minutes.

        Raises:
            OSError: Nobody does.
            ValueError: The address has no port.
        """
        if self._address == OWN:
            return  # Ray looks for its processes on this machine
        host, _, port = self._address.rpartition(":")
        if not host or not port.isdecimal():
            raise ValueError("not HOST:PORT")
        socket.create_connection((host, int(port)), CONNECT_SECONDS).close()

    def _most(self) -> int:
        return IN_FLIGHT * max(1, self._processor_count)

    @property
    def _processor_count(self) -> int:
        return int(self._ray.cluster_resources().get("CPU", 0))

    def _next(self, waiting: dict[Any, str]) -> Answer:
        """The answer of the first of the waiting tasks that has one; the task waits no longer."""
        (ready, *_), _ = self._ray.wait(list(waiting), num_returns=1)
        title = waiting.pop(ready)
        try:
            answer = json.loads(self._ray.get(ready))
        except Exception as error:
            raise ClusterError(
                f"{title}: the cluster did not finish it, {RETRIES} retries included ({reason_of(error)}); is memory "
                "short on its machines? Run again: what is finished stays"
            ) from error
        for level, message in answer["log"]:
            logger.log(level, "%s: %s", title, message)
        if (failure := answer.get("failure")) is not None:
            raise _error_of(title, failure)
        return Answer(title, answer["value"])

    def _nodes(self) -> list[dict[str, Any]]:
        return [node for node in self._ray.nodes() if node["Alive"]]

    def _check_versions(self) -> None:
        """Refuse a cluster with a machine whose versions differ from those here."""
        with extra("cluster"):
            from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        compared, here = COMPARED, versions_here(COMPARED)

        def versions() -> dict[str, str]:  # nested, so that Ray sends its code: the package may not be there
            import platform
            from importlib.metadata import PackageNotFoundError, version

            there = {"python": platform.python_version()}
            for name in compared:
                try:
                    there[name] = version(name)
                except PackageNotFoundError:
                    there[name] = "none"
            return there

        asked = {
            node["NodeID"]: self._ray.remote(versions)
            .options(num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False))
            .remote()
            for node in self._nodes()
        }
        addresses = {node["NodeID"]: node["NodeManagerAddress"] for node in self._nodes()}
        others = []
        for node, reference in asked.items():
            there = self._ray.get(reference)
            others += [
                f"{addresses[node]} has {name} {there[name]}, and this one {here[name]}"
                for name in here
                if there[name] != here[name]
            ]
        if others:
            raise ClusterError(
                f"{self._address}: machines with other versions: {', '.join(others[:NAMED])}; install the "
                "same on all of them"
            )


def versions_here(names: Iterable[str]) -> dict[str, str]:
    """The versions of Python and of some libraries on this machine, by their names."""
    from importlib.metadata import version

    return {"python": platform.python_version()} | {name: version(name) for name in names}


class _Kept(logging.Handler):
    """Keeps what is logged, as plain values."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.rows: list[tuple[int, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.rows.append((record.levelno, record.getMessage()))


def _work(name: str, values: str) -> str:
    """Run a task on a machine of the cluster; returns what became of it as JSON, an error included."""
    package, kept = logging.getLogger(PACKAGE), _Kept()
    package.addHandler(kept)
    package.setLevel(logging.INFO)
    answer: dict[str, Any] = {"log": kept.rows}
    try:
        answer["value"] = function_of_name(name)(json.loads(values))
    except LhucError as error:
        answer["failure"] = {"kind": type(error).__name__, "message": str(error)}
    except Exception as error:
        answer["failure"] = {"kind": None, "message": reason_of(error), "trace": traceback.format_exc()}
    finally:
        package.removeHandler(kept)
    return json.dumps(answer)


def name_of_function(function: Callable[..., Any]) -> str:
    """The name by which ``function_of_name`` finds a function at the top of a module."""
    return f"{function.__module__}:{function.__qualname__}"


def function_of_name(name: str) -> Callable[..., Any]:
    """The function of a name.

    Raises:
        ClusterError: The function is not one of this package.
    """
    module, _, function = name.partition(":")
    if module.partition(".")[0] != PACKAGE:
        raise ClusterError(f"{name}: not a function of {PACKAGE}")
    wanted: Callable[..., Any] = getattr(importlib.import_module(module), function)
    return wanted


def _error_of(title: str, failure: Mapping[str, Any]) -> LhucError:
    """An error as it was raised on the other machine."""
    kinds = {kind.__name__: kind for kind in _kinds(LhucError)}
    kind = kinds.get(failure["kind"] or "")
    if kind is not None:
        return kind(failure["message"])
    if "trace" in failure:
        logger.error("%s: %s", title, failure["trace"])
        return ClusterError(f"{title}: {failure['message']}; the log has the whole error")
    return ClusterError(failure["message"])  # an error of a module that is not loaded here


def _kinds(kind: type[LhucError]) -> Iterator[type[LhucError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from _kinds(below)
