"""The processes that train a network together: which of them this one is, and sums over all of them.

``torchrun`` starts them with one command line. The first, rank 0, runs the command; the others wait until it trains,
and take part. What the first one tells them is JSON in the store of torchrun, and what is summed are tensors, by gloo
or NCCL: nothing is pickled. Whoever reaches their ports can change the training: keep them in a network of your own.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, distributed, nn
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from lhuc_asr.base.errors import LhucError
from lhuc_asr.base.foreign import reason_of

# Between two looks for news of the first process.
POLL_SECONDS = 0.2
# Ranks draw other random numbers, so that not all of them drop the same units.
SEED_STEP = 1 << 40
# The others wait so long for one, as while it writes a large state.
PATIENCE = timedelta(hours=2)
# The first process has said why all end.
FAILED = "failed"


ItemsT = TypeVar("ItemsT", bound=Tensor | list[Any])


class RankError(LhucError, RuntimeError):
    """A process that trains with others was lost, or they do not fit together."""


class Ranks:
    """This process among those that train together.

    Attributes:
        rank: Its number, from 0.
        count: Number of the processes.
    """

    def __init__(self, rank: int = 0, count: int = 1, store: Store | None = None) -> None:
        self.rank, self.count = rank, count
        self._store, self._told = store, 0

    @property
    def is_first(self) -> bool:
        """Whether this process runs the command, and writes files."""
        return self.rank == 0

    def part(self, items: ItemsT) -> tuple[ItemsT, int]:
        """This process's part of the items of a mini-batch, and its weight in a mean over all processes.

        Where there are fewer items than processes, each takes all of them, with weight 1.
        """
        if len(items) < self.count:
            return items, 1
        return cast(ItemsT, items[self.rank :: self.count]), self.count

    def seed(self, seed: int) -> int:
        """A seed of this process's own."""
        return seed + SEED_STEP * self.rank

    def sum(self, *values: float) -> tuple[float, ...]:
        """The sums of numbers over all processes, in float64."""
        if self.count == 1:
            return values
        total = torch.tensor(values, dtype=torch.float64)
        distributed.all_reduce(total)
        return tuple(total.tolist())

    def gathered(self, tensor: Tensor) -> list[Tensor]:
        """A tensor of each process, in the order of their numbers; all of one shape, on the CPU."""
        if self.count == 1:
            return [tensor]
        everyone = [torch.empty_like(tensor) for _ in range(self.count)]
        distributed.all_gather(everyone, tensor)
        return everyone

    def of_first(self, value: bool) -> bool:
        """What the first process says."""
        return self.sum(float(value and self.is_first))[0] > 0

    def network(self, model: nn.Module, apart: Iterable[Tensor] = ()) -> nn.Module:
        """A network whose gradients become the mean over all processes in the backward pass.

        Args:
            model: The network.
            apart: Parameters whose gradients stay as they are.
        """
        if self.count == 1:
            return model
        left = {id(parameter) for parameter in apart}
        names = [name for name, parameter in model.named_parameters() if id(parameter) in left]
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, names)
        return DistributedDataParallel(model, broadcast_buffers=False)

    def step(self, network: nn.Module, last: bool) -> AbstractContextManager[object]:
        """A context for a forward and backward pass; gradients are exchanged in the last one before a step alone."""
        return nullcontext() if last or not isinstance(network, DistributedDataParallel) else network.no_sync()

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.count > 1:
            distributed.barrier()

    def tell(self, **news: Any) -> None:
        """Tell the other processes something, in plain values; for the first one."""
        if self._store is not None:
            self._store.set(f"news/{self._told}", json.dumps(news))
            self._told += 1

    def told(self) -> dict[str, Any]:
        """What the first process tells next; waits for it."""
        if self._store is None:
            raise RankError("there is nobody to be told by")
        key = f"news/{self._told}"
        while not self._store.check([key]):
            time.sleep(POLL_SECONDS)
        self._told += 1
        news: dict[str, Any] = json.loads(self._store.get(key))
        return news


_here = Ranks()


def ranks() -> Ranks:
    """This process among those that train together; the only one where torchrun did not start it."""
    return _here


@contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """Join the other processes that torchrun has started; alone where it was not torchrun.

    Args:
        device: Device that networks run on: ``cpu``, or ``cuda``, of which each process on a machine takes its own.

    Raises:
        RankError: The processes cannot be joined, or another one was lost.
    """
    global _here
    if not distributed.is_torchelastic_launched() or int(os.environ["WORLD_SIZE"]) == 1:
        yield _here
        return
    rank, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if ":" in device:
        raise RankError(f"device={device}: each of {count} processes takes a device of its own; give device=cuda")
    try:
        if device != "cpu":
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        store, _, _ = next(rendezvous("env://", rank, count))
        backend = "gloo" if device == "cpu" else "cpu:gloo,cuda:nccl"
        distributed.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=PATIENCE)
    except (RuntimeError, ValueError, KeyError) as error:
        raise RankError(f"process {rank} of {count}: the others cannot be joined ({reason_of(error)})") from error
    news = PrefixStore("lhuc_asr", store)
    _here = Ranks(rank, count, news)
    try:
        yield _here
    except BaseException as error:
        if _here.is_first:
            news.set(FAILED, "")
        elif news.check([FAILED]):
            raise SystemExit(1) from error  # the first one has said why
        # gloo raises what any operation may.
        if isinstance(error, distributed.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error)):
            raise RankError(
                f"process {rank} of {count}: the training together ended ({reason_of(error)}); was another process "
                "lost? Run again: it goes on from its last state"
            ) from error
        raise
    finally:
        _here = Ranks()
        distributed.destroy_process_group()


@contextmanager
def sharing_threads() -> Iterator[None]:
    """Let the processes of a machine share its processors while the block runs."""
    before = torch.get_num_threads()
    if ranks().count > 1:
        torch.set_num_threads(max(1, before // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))
    try:
        yield
    finally:
        torch.set_num_threads(before)
