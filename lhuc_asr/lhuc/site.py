"""A site: a place whose tensor carries amplitudes, and the LHUC layer itself (equation 3).

    h = xi(r) * psi        psi: the module's output; xi(r): a number for each unit; r: that of the frame's speaker

The gradients (equations 7 to 9) are autograd's: dL/dpsi = dL/dh xi(r), and dL/dr = dL/dh xi'(r) psi, summed
over the elements of the batch that belong to the speaker.

A ``Selection`` says which speaker each element of the batch belongs to. It names N rows, and how they spread over the
B elements. Either the rows own contiguous blocks of equal size (one speaker is one block), which costs a broadcast and
whose gradient is a plain sum. Or each element has an owner, which costs a gather of (B, H).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from lhuc_asr.base.errors import SiteError
from lhuc_asr.lhuc.place import Place, changed_at, not_a_tensor


@dataclass(frozen=True)
class Site:
    """A place that carries amplitudes: the output of a non-linearity, or, in a CNN, of the pooling after it.

    Attributes:
        name: The name of the place: a module's dotted name in its model for its output (see ``place``).
        width: Number of hidden units or channels, H; each has one amplitude.
        dim: The axis of the output that counts the units (-1 features last, 1 channels).
        batch_dim: The axis of the output that counts the batch's elements.
    """

    name: str
    width: int
    dim: int = -1
    batch_dim: int = 0

    @property
    def place(self) -> Place:
        """Where in the model it is."""
        return Place(self.name)


class SiteHook:
    """What happens to what passes a site; in a deep copy nothing does.

    Attributes:
        scale: A bank's function of the site and what passes it; None in a copy.
        site: The site.
    """

    def __init__(self, scale: Callable[[Site, object], object] | None, site: Site) -> None:
        self.scale, self.site = scale, site

    def __call__(self, value: object) -> object:
        return value if self.scale is None else self.scale(self.site, value)

    def __deepcopy__(self, memo: dict[int, object]) -> SiteHook:
        return SiteHook(None, self.site)


@dataclass(frozen=True, eq=False)
class Selection:
    """The rows of a bank that a batch uses.

    Attributes:
        index: The rows, shape (N,), int64.
        owner: Position in ``index`` of each element of the batch, shape (B,), int64; None if the batch is N
            contiguous blocks of equal size.
    """

    index: Tensor
    owner: Tensor | None = None

    @classmethod
    def of_elements(cls, rows: Tensor) -> Selection:
        """The selection of a row for each element, shape (B,); each distinct row is looked up only once."""
        index, owner = torch.unique(rows, return_inverse=True)
        return cls(index, owner)


def scale_output(site: Site, output: object, amplitude: Tensor, selection: Selection) -> object:
    """Scale what passes a site: a tensor, or the first of a tuple (LSTM, GRU: the last layer's outputs).

    Args:
        site: The site.
        output: The module's output, or input; what is beside the scaled tensor stays as it is.
        amplitude: xi(r) of the selected rows, shape (N, H).
        selection: How the N rows spread over the batch.

    Raises:
        SiteError: The output is not a tensor, has another width, or another number of elements than rows.
    """

    def scaled(part: object) -> object:
        if isinstance(part, PackedSequence):
            return _scale_packed(site, part, amplitude, selection)
        if isinstance(part, Tensor):
            return _scale(site, part, amplitude, selection)
        raise not_a_tensor(site.place, part)

    return changed_at(site.place, output, scaled)


def _scale(site: Site, hidden: Tensor, amplitude: Tensor, selection: Selection) -> Tensor:
    feature, batch = _axis(site, hidden, site.dim), site.batch_dim
    if hidden.shape[feature] != site.width:
        raise SiteError(
            f"site {site.name!r}: its output has shape {tuple(hidden.shape)}, {hidden.shape[feature]} units along "
            f"axis {site.dim}, but the bank holds {site.width} amplitudes; pass dim= for the axis of the units"
        )
    # The rows of very many speakers may be in main memory, the output on a GPU.
    amplitude = amplitude.to(hidden.device)
    count = selection.index.shape[0]
    # An amplitude in float32 must not turn a bfloat16 network into a float32 one.
    if selection.owner is None and count == 1:
        return hidden * amplitude.to(hidden.dtype).reshape(_shape(hidden.dim(), {feature: site.width}))

    batch = _axis(site, hidden, batch)
    if batch == feature:
        raise SiteError(
            f"site {site.name!r}: its output has shape {tuple(hidden.shape)}, with no axis for a batch; "
            "select one speaker with bank.speaker(name), or feed a batch"
        )
    elements = hidden.shape[batch]
    if selection.owner is None:
        if elements % count:
            raise SiteError(f"site {site.name!r}: {elements} elements are not {count} blocks of equal size")
        blocks = hidden.reshape(*hidden.shape[:batch], count, elements // count, *hidden.shape[batch + 1 :])
        feature += feature > batch
        spread = amplitude if batch < feature else amplitude.T
        spread = spread.to(hidden.dtype).reshape(_shape(blocks.dim(), {batch: count, feature: site.width}))
        return (blocks * spread).flatten(batch, batch + 1)

    # Not len(): torch.export would fix the size of the batch.
    if elements != selection.owner.shape[0]:
        raise SiteError(
            f"site {site.name!r}: {len(selection.owner)} rows were given for a batch of {elements} elements "
            f"(output shape {tuple(hidden.shape)}, batch axis {batch}); give one row an element"
        )
    # The gradient is then summed over a row's elements in float32; in bfloat16 that is far slower on a CPU too.
    spread = amplitude.index_select(0, selection.owner.to(hidden.device)).to(hidden.dtype)
    spread = spread if batch < feature else spread.T
    return hidden * spread.reshape(_shape(hidden.dim(), {batch: elements, feature: site.width}))


def _scale_packed(site: Site, packed: PackedSequence, amplitude: Tensor, selection: Selection) -> PackedSequence:
    # Packed data lists, time after time, the sequences still running, longest first: (frames of all, H).
    count = len(selection.index)
    if count > 1 or selection.owner is not None:
        sequences = int(packed.batch_sizes[0])
        owner = selection.owner
        if owner is None and sequences % count == 0:
            owner = torch.arange(count).repeat_interleave(sequences // count)
        if owner is None or len(owner) != sequences:
            given = f"{count} blocks" if owner is None else f"{len(owner)} rows"
            raise SiteError(f"site {site.name!r}: {given} were given for {sequences} packed sequences")
        if packed.sorted_indices is not None:
            owner = owner[packed.sorted_indices.to(owner.device)]
        owner = torch.cat([owner[:running] for running in packed.batch_sizes.tolist()])
        selection = Selection(selection.index, owner)
    return packed._replace(data=_scale(Site(site.name, site.width), packed.data, amplitude, selection))


def _axis(site: Site, hidden: Tensor, dim: int) -> int:
    if not -hidden.dim() <= dim < hidden.dim():
        raise SiteError(
            f"site {site.name!r}: its output has shape {tuple(hidden.shape)}, no axis {dim}; pass dim= or batch_dim="
        )
    return dim % hidden.dim()


def _shape(dims: int, sizes: dict[int, int]) -> list[int]:
    return [sizes.get(axis, 1) for axis in range(dims)]
