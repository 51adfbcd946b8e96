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
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from lhuc_asr.base.errors import SiteError, SpeakerError
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
        beams: How often an element may stand in the batch, next to itself: in a decoder during beam search.
        widened: Names of the sites where each element has stood there so often.
    """

    index: Tensor
    owner: Tensor | None = None
    beams: int = 1
    widened: set[str] = field(default_factory=set)

    @classmethod
    def of_elements(cls, rows: Tensor, beams: int = 1) -> Selection:
        """The selection of a row for each element, shape (B,); each distinct row is looked up only once.

        Raises:
            SpeakerError: There are less than one beam.
        """
        if beams < 1:
            raise SpeakerError(f"rows: beams = {beams}; expected how often an element stands in the batch, at least 1")
        index, owner = torch.unique(rows, return_inverse=True)
        return cls(index, owner, beams)

    def on(self, device: torch.device) -> Selection:
        """The selection on a device; work that is queued there is not waited for."""
        owner = None if self.owner is None else self.owner.to(device, non_blocking=True)
        return replace(self, index=self.index.to(device, non_blocking=True), owner=owner)

    @property
    def of_one_speaker(self) -> bool:
        """Whether it is one row for a batch of any size."""
        return self.owner is None and self.index.shape[0] == 1

    def owners(self, site: Site, owner: Tensor, elements: int) -> Tensor:
        """Position in ``index`` of each element that passes a site, shape (elements,).

        Args:
            site: The site.
            owner: The same for the batch as the model was given it, shape (B,).
            elements: How many there are: B, or ``beams`` times as many.

        Raises:
            SiteError: There is another number of elements. Once there were ``beams`` times as many, B is another number
                too: B elements are then the beams of fewer, and which elements have left the batch is not known.
        """
        rows = owner.shape[0]  # not len(): torch.export would fix the size of the batch
        if self.beams > 1 and elements == self.beams * rows:
            self.widened.add(site.name)
            return owner.repeat_interleave(self.beams)
        if elements == rows and site.name not in self.widened:
            return owner
        raise _other_number(site, rows, self.beams, elements)


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
    # An amplitude in float32 must not turn a bfloat16 network into a float32 one. Nor may it be rounded to bfloat16
    # itself, where 1.003 is 1: what is rounded is the product.
    if selection.of_one_speaker:
        return (hidden * amplitude.reshape(_shape(hidden.dim(), {feature: site.width}))).to(hidden.dtype)

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
        spread = spread.reshape(_shape(blocks.dim(), {batch: count, feature: site.width}))
        return (blocks * spread).to(hidden.dtype).flatten(batch, batch + 1)

    owner = selection.owners(site, selection.owner, elements)
    # The gradient is then summed over a row's elements in float32; in bfloat16 that is far slower on a CPU too.
    spread = amplitude.index_select(0, owner.to(hidden.device))
    spread = spread if batch < feature else spread.T
    return (hidden * spread.reshape(_shape(hidden.dim(), {batch: elements, feature: site.width}))).to(hidden.dtype)


def _scale_packed(site: Site, packed: PackedSequence, amplitude: Tensor, selection: Selection) -> PackedSequence:
    # Packed data lists, time after time, the sequences still running, longest first: (frames of all, H).
    count = len(selection.index)
    if not selection.of_one_speaker:
        sequences = int(packed.batch_sizes[0])
        if selection.owner is not None:
            owner = selection.owners(site, selection.owner, sequences)
        elif sequences % count == 0:
            owner = torch.arange(count).repeat_interleave(sequences // count)
        else:
            raise SiteError(f"site {site.name!r}: {count} blocks were given for {sequences} packed sequences")
        if packed.sorted_indices is not None:
            owner = owner[packed.sorted_indices.to(owner.device)]
        owner = torch.cat([owner[:running] for running in packed.batch_sizes.tolist()])
        selection = Selection(selection.index, owner)
    return packed._replace(data=_scale(Site(site.name, site.width), packed.data, amplitude, selection))


def _other_number(site: Site, rows: int, beams: int, elements: int) -> SiteError:
    """The error for a batch that has neither one nor ``beams`` elements for each row."""
    batch = f"a batch of {elements} elements along axis {site.batch_dim}"
    if beams > 1:
        what = f"expected {rows}, or {rows * beams} with {beams} beams each"
    elif rows > 1 and elements % rows == 0:
        times = elements // rows
        what = f"give one row an element, or, where each stands {times} times next to itself, rows(..., beams={times})"
    else:
        what = "give one row an element"
    return SiteError(
        f"site {site.name!r}: {rows} rows were given for {batch}; {what}. Where elements leave the batch, as in "
        "Whisper's decoding of long recordings, decode one speaker at a time: bank.speaker(name)"
    )


def _axis(site: Site, hidden: Tensor, dim: int) -> int:
    if not -hidden.dim() <= dim < hidden.dim():
        raise SiteError(
            f"site {site.name!r}: its output has shape {tuple(hidden.shape)}, no axis {dim}; pass dim= or batch_dim="
        )
    return dim % hidden.dim()


def _shape(dims: int, sizes: dict[int, int]) -> list[int]:
    return [sizes.get(axis, 1) for axis in range(dims)]
