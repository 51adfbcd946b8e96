"""Rows on several processes: refused where each process would go on with rows of its own, in silence.

All processes have the same rows only while their gradients are averaged. ``DistributedDataParallel`` does that for the
parameters that it holds, if their gradients are dense; a row-wise optimizer does it for sparse ones, with
``over_processes``. ``fully_shard`` (FSDP2) would do it for rows that it shards; but a step of theirs needs them whole.
So the model is sharded, and the rows are held by DistributedDataParallel. And all processes have to begin with the same
rows, of the same speakers in the same order.
"""

from __future__ import annotations

import sys
from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from lhuc_asr.base.errors import ConfigError
from lhuc_asr.lhuc.exchange import check_same_start
from lhuc_asr.lhuc.row_optim import RowTable

# Identities of the parameters that a wrapper holds; it has the same ones all its life.
_HELD: WeakKeyDictionary[DistributedDataParallel, frozenset[int]] = WeakKeyDictionary()


def check_averaged(model: nn.Module, table: nn.Parameter) -> None:
    """Refuse to train rows in a model that is wrapped for several processes, if nothing averages their gradients.

    Processes whose models are not wrapped may train rows of their own.

    Args:
        model: The model that runs now.
        table: The rows at one of its sites.

    Raises:
        ConfigError: The rows are sharded; or their gradients would not be averaged; or the processes begin with other
            rows.
    """
    if not isinstance(table, RowTable):
        raise ConfigError(
            "the bank's rows are sharded with the model; shard the model alone: fully_shard(model), then "
            "DistributedDataParallel(AdaptedModel(model, bank), init_sync=False)"
        )
    if not (torch.is_grad_enabled() and table.requires_grad and torch.distributed.is_available()):
        return
    if not torch.distributed.is_initialized() or table.over_processes:
        return
    wrapper = DistributedDataParallel._active_ddp_module
    if wrapper is None and not is_sharded(model):
        return
    if wrapper is not None and wrapper not in _HELD:
        _HELD[wrapper] = frozenset(map(id, wrapper.module.parameters()))
        _check_same_start(wrapper)
    if wrapper is None or id(table) not in _HELD[wrapper]:
        sharded = ", init_sync=False" if is_sharded(model) else ""
        whole = "attach to the whole model that fully_shard was given, and " if sharded and not _shards(model) else ""
        both = f"DistributedDataParallel(AdaptedModel(model, bank){sharded})"
        raise ConfigError(
            "the model runs on several processes, but nothing averages the gradients of the bank's rows, as "
            "bank.optimizer(..., over_processes=True) does, so that each process would train others; "
            f"{whole}wrap both: {both}"
        )
    if table.sparse_gradient:
        raise ConfigError(
            "DistributedDataParallel cannot average the sparse gradients of the bank's rows; make them dense before it "
            "wraps the model: bank.sparse_gradients = False; or let the optimizer average them: "
            "bank.optimizer(..., over_processes=True), and wrap the model alone"
        )


def is_sharded(model: nn.Module) -> bool:
    """Whether weights of a module are sharded over processes by ``fully_shard``: of it, of some in it, or around it."""
    # While a sharded model runs, the modules in it keep only this mark, which torch sets for its compiler.
    return _shards(model) or any(vars(module).get("_is_fsdp_managed_module", False) for module in model.modules())


def _shards(model: nn.Module) -> bool:
    """Whether ``fully_shard`` was given a module, or some in it."""
    fsdp = sys.modules.get("torch.distributed.fsdp")  # takes time to import, also where nothing is sharded
    return fsdp is not None and any(isinstance(module, fsdp.FSDPModule) for module in model.modules())


def _check_same_start(wrapper: DistributedDataParallel) -> None:
    tables = [parameter for parameter in wrapper.module.parameters() if isinstance(parameter, RowTable)]
    if tables:
        check_same_start(tables, [table.owners for table in tables], wrapper.process_group)
