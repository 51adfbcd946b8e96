"""One step of every model of the zoo in two processes, under DDP: one pair of processes for all of them."""

from __future__ import annotations

import functools
import multiprocessing
import tempfile
import warnings

import pytest
import torch
import torch.distributed
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from zoo_attached import NAMES, Attached
from zoo_entries import ZOO, Entry

from lhuc_asr.base.errors import LhucError
from lhuc_asr.lhuc import AdaptedModel

RANKS = 2
# The rows of each site; or the error by which the model was refused, here or, with the mark, by torch.
Tables = list[Tensor] | str
BY_TORCH = "torch: "


# What the models are from: imported once, in a process that the others are forked from.
LIBRARIES = ("torchaudio.models", "transformers.models.auto.modeling_auto", "whisper.model")


@functools.cache
def ranks() -> list[dict[str, Tables]]:
    """For each process the rows of every model after the step; models whose library is not there are left out."""
    multiprocessing.get_context("forkserver").set_forkserver_preload(["zoo_processes", *LIBRARIES])
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.start_processes(_train, (folder,), nprocs=RANKS, start_method="forkserver")
        return [torch.load(f"{folder}/{rank}.pt") for rank in range(RANKS)]


def _train(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    store = f"file://{folder}/store"
    torch.distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=RANKS)
    after = {}
    for entry in ZOO:
        try:
            after[entry.name] = _step(entry, rank)
        except LhucError as error:
            after[entry.name] = str(error)
        except RuntimeError as error:
            after[entry.name] = f"{BY_TORCH}{error}"
        except pytest.skip.Exception:  # its library is not installed: its test, which builds it too, is skipped
            continue
    torch.save(after, f"{folder}/{rank}.pt")
    torch.distributed.barrier()  # nobody leaves while another still speaks
    torch.distributed.destroy_process_group()


def _step(entry: Entry, rank: int) -> Tables:
    case = Attached.of(entry)
    case.bank.sparse_gradients = False
    model = DistributedDataParallel(AdaptedModel(case.model.requires_grad_(False), case.bank))
    mine = range(rank, len(NAMES), RANKS)
    scores = entry.run(model, entry.elements(case.batch, mine), speakers=[NAMES[number] for number in mine])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "quantized::linear_dynamic: an autograd kernel was not registered")
        scores.square().mean().backward()
    case.bank.optimizer("sgd", lr=1.0).step()
    return [table.detach() for table in case.bank.tables]
