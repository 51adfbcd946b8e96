"""Rows between processes: that all begin with the same, and the mean of sparse gradients over all of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor, distributed

from lhuc_asr.base.errors import ConfigError


def mean_over_processes(table: Tensor) -> Tensor:
    """The mean over all processes of a table's sparse gradient, shape (S, H); a process without one counts as zero.

    Only the rows that took part in some process are exchanged. All processes call this together.
    """
    if table.grad is None:
        rows, values = table.new_zeros(0, dtype=torch.int64), table.new_zeros((0, *table.shape[1:]))
    else:
        gradient = table.grad.coalesce()
        rows, values = gradient.indices()[0], gradient.values()
    counts = [torch.zeros((), dtype=torch.int64, device=table.device) for _ in range(distributed.get_world_size())]
    distributed.all_gather(counts, torch.tensor(len(rows), device=table.device))
    sizes = [int(count) for count in counts]
    all_rows, means = _gathered(rows, sizes)[None], _gathered(values, sizes) / len(sizes)
    with torch.sparse.check_sparse_tensor_invariants():  # of rows that came from elsewhere
        return torch.sparse_coo_tensor(all_rows, means, table.shape).coalesce()


def check_same_start(
    tables: Sequence[Tensor], owners: Sequence[int], group: distributed.ProcessGroup | None = None
) -> None:
    """Compare the rows of all processes, which call this together.

    Args:
        tables: The rows at each site.
        owners: A hash of the names of their speakers, for each site.
        group: The processes; None for all.

    Raises:
        ConfigError: They differ, or are other speakers'.
    """
    digest = hashlib.sha256()
    for table, owner in zip(tables, owners, strict=True):
        digest.update(f"{owner} {list(table.shape)}".encode())
        digest.update(table.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    mine = torch.tensor([int.from_bytes(digest.digest()[:7])], device=tables[0].device)
    everyones = [torch.empty_like(mine) for _ in range(distributed.get_world_size(group))]
    distributed.all_gather(everyones, mine, group=group)
    if not all(torch.equal(mine, its) for its in everyones):
        raise ConfigError(
            "the processes begin with other rows, or with other speakers in them; add the same speakers in the same "
            "order, and load the same rows, in all processes"
        )


def _gathered(own: Tensor, sizes: Sequence[int]) -> Tensor:
    """The rows of all processes, one after the other; ``sizes`` is how many each has."""
    padded = own.new_zeros((max(sizes), *own.shape[1:]))
    padded[: len(own)] = own
    everyones = [torch.empty_like(padded) for _ in sizes]
    distributed.all_gather(everyones, padded)
    return torch.cat([each[:size] for each, size in zip(everyones, sizes, strict=True)])
