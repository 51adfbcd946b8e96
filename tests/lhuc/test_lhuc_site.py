"""The LHUC layer: who owns which element of a batch, for every layout of axes."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.utils.rnn import pack_sequence, pad_packed_sequence

from lhuc_asr.base.errors import SiteError
from lhuc_asr.lhuc.site import Selection, Site, scale_output

# Axes of the output, and where its batch and its units are.
LAYOUTS = {
    "frames": ("bh", -1, 0),
    "sequences": ("bth", -1, 0),
    "time first": ("tbh", -1, 1),
    "channels": ("bhxy", 1, 0),
    "units first": ("htb", 0, 2),
}


@given(
    layout=st.sampled_from(sorted(LAYOUTS)), seed=st.integers(0, 1000), each=st.integers(1, 3), count=st.integers(1, 4)
)
def test_elements_and_blocks_agree_with_einsum(layout, seed, each, count):
    axes, dim, batch_dim = LAYOUTS[layout]
    generator = torch.Generator().manual_seed(seed)
    sizes = {"b": count * each, "t": 3, "h": 5, "x": 2, "y": 2}
    hidden = torch.randn([sizes[axis] for axis in axes], generator=generator)
    site = Site("here", 5, dim, batch_dim)
    table = torch.rand(6, 5, generator=generator)

    index = torch.randint(6, (count,), generator=generator)
    rows = index.repeat_interleave(each)
    expected = torch.einsum(f"{axes},bh->{axes}", hidden, table[rows])
    blocks = Selection(index)
    assert torch.equal(scale_output(site, hidden, table[index], blocks), expected)

    mixed = torch.randint(6, (count * each,), generator=generator)
    elements = Selection.of_elements(mixed)
    expected = torch.einsum(f"{axes},bh->{axes}", hidden, table[mixed])
    assert torch.equal(scale_output(site, hidden, table[elements.index], elements), expected)


def test_gradients_of_a_bfloat16_network_are_summed_in_float32():
    """A row of 2,000 elements each giving 1 + 1/128: summed in bfloat16 the fractions would go under."""
    hidden = torch.full((2001, 1), 1 + 1 / 128, dtype=torch.bfloat16)
    amplitude = torch.ones(2, 1, requires_grad=True)
    owner = torch.zeros(2001, dtype=torch.int64)
    owner[1000] = 1
    scaled = scale_output(Site("here", 1), hidden, amplitude, Selection(torch.tensor([0, 1]), owner))
    assert scaled.dtype == torch.bfloat16
    scaled.sum().backward()
    assert amplitude.grad.flatten().tolist() == [2000 + 2000 / 128, 1 + 1 / 128]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_amplitudes_stay_in_float32_where_the_network_is_not(randn, dtype):
    """1.003 is 1 in bfloat16: rounded before the product, a small amplitude would do nothing."""
    hidden, table = randn(4, 300).to(dtype), torch.full((2, 300), 1.003)
    rows = torch.tensor([0, 1, 1, 0])
    exact = hidden.float() * 1.003
    for selection in (Selection(torch.tensor([0])), Selection(torch.tensor([0, 1])), Selection.of_elements(rows)):
        scaled = scale_output(Site("here", 300), hidden, table[selection.index], selection)
        assert torch.equal(scaled, exact.to(dtype))
    assert not torch.equal(scaled, hidden)


def test_packed_sequences(randn):
    lengths = [2, 5, 3, 1]
    packed = pack_sequence([randn(length, 4) for length in lengths], enforce_sorted=False)
    table, rows = randn(3, 4).exp(), torch.tensor([2, 0, 1, 2])
    padded, _ = pad_packed_sequence(packed, batch_first=True)
    expected = padded * table[rows][:, None]
    site = Site("lstm", 4, -1, 1)
    scaled = scale_output(site, packed, table, Selection(torch.arange(3), rows))
    assert torch.equal(pad_packed_sequence(scaled, batch_first=True)[0], expected)

    blocks = Selection(torch.tensor([2, 1]))
    scaled = scale_output(site, packed, table[blocks.index], blocks)
    expected = padded * table[torch.tensor([2, 2, 1, 1])][:, None]
    assert torch.equal(pad_packed_sequence(scaled, batch_first=True)[0], expected)
    with pytest.raises(SiteError, match="3 blocks were given for 4 packed sequences"):
        scale_output(site, packed, table, Selection(torch.arange(3)))


def test_one_speaker_needs_no_batch_axis():
    one = Selection(torch.tensor([1]))
    assert scale_output(Site("x", 3), torch.ones(3), torch.full((1, 3), 2.0), one).tolist() == [2, 2, 2]


def test_half_precision_stays(randn):
    one = Selection(torch.tensor([0]))
    scaled = scale_output(Site("x", 4), randn(2, 4).bfloat16(), torch.ones(1, 4), one)
    assert scaled.dtype == torch.bfloat16


def test_errors():
    one, two = Selection(torch.tensor([0])), Selection(torch.tensor([0, 1]))
    pair = Selection(torch.tensor([0, 1]), torch.tensor([0, 1]))
    site, ones = Site("x", 3), torch.ones(2, 3)
    with pytest.raises(SiteError, match=r"'x': its module returns dict, expected a tensor"):
        scale_output(site, {}, ones[:1], one)
    with pytest.raises(SiteError, match=r"shape \(4, 5\), 5 units along axis -1, but the bank holds 3"):
        scale_output(site, torch.ones(4, 5), ones[:1], one)
    with pytest.raises(SiteError, match="5 elements are not 2 blocks of equal size"):
        scale_output(site, torch.ones(5, 3), ones, two)
    with pytest.raises(SiteError, match="2 rows were given for a batch of 5 elements"):
        scale_output(site, torch.ones(5, 3), ones, pair)
    with pytest.raises(SiteError, match="no axis for a batch"):
        scale_output(site, torch.ones(3), ones, two)
    with pytest.raises(SiteError, match="no axis 2; pass dim= or batch_dim="):
        scale_output(Site("x", 3, 2), torch.ones(4, 3), ones[:1], one)
