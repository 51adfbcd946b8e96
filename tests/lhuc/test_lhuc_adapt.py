"""The loop: one speaker at a time, weights, what stays as it was, and what is refused."""

from dataclasses import replace

import pytest
import torch
from ctc_toy import World, attached, trained
from torch import nn
from torch.nn import functional

from lhuc_asr.base.errors import ConfigError, LhucError, SiteError, SpeakerError
from lhuc_asr.lhuc import Batch, Consistency, Ctc, Entropy, GreedyCtc, LabelCrossEntropy, Labels, adapt, attach, frozen
from lhuc_asr.lhuc.descending import Descent, Rows, materials_of


@pytest.fixture(scope="module")
def toy():
    """A trained toy in float64, and the speech of two quiet speakers."""
    world = World(seed=13)
    model = trained(world, speakers=8, epochs=60).double()
    speech = [world.speech(world.speaker(0.45), 8) for _ in range(2)]
    return model, [replace(each, features=each.features.double()) for each in speech]


def copied(bank) -> list[torch.Tensor]:
    return [table.detach().clone() for table in bank.tables]


def as_it_is(output):
    return output


def descend(model, bank, batches, objective, steps, optimizer="adam", lr=0.05) -> Rows:
    """The rows beside a bank after some steps."""
    rows = Rows(bank, list(dict.fromkeys(name for batch in batches for name in batch.speakers)))
    with frozen(model):
        materials = materials_of(model, rows, batches, objective, as_it_is)
        descent = Descent(rows, model, objective, materials, as_it_is, optimizer, {"lr": lr}, seed=3)
        for step in range(steps):
            descent.step(step)
    return rows


def own_rows(rows: Rows, speaker: str) -> list[torch.Tensor]:
    """A speaker's three rows at each site: of all recordings, and of the two halves."""
    count = len(rows.speakers)
    first = 1 + rows.speakers.index(speaker)
    return rows.values(torch.tensor([first, first + count, first + 2 * count]))


@pytest.mark.parametrize("objective", [Entropy(), Ctc(), Consistency()], ids=lambda each: type(each).__name__)
def test_speakers_in_one_batch_learn_as_one_at_a_time(toy, objective):
    model, (ann, ben) = toy
    features, lengths = torch.cat([ann.features, ben.features]), torch.cat([ann.lengths, ben.lengths])
    # Interleaved, in batches of which each has other shares of the two.
    order = torch.tensor([0, 8, 1, 2, 9, 3, 10, 11, 4, 12, 5, 13, 6, 14, 7, 15])
    batches = [
        Batch(
            features[part], ["ann" if number < 8 else "ben" for number in part.tolist()], lengths[part], lengths[part]
        )
        for part in order.split(6)
    ]
    bank = attached(model, "absent", "ben", "ann")
    before = copied(bank)
    together = descend(model, bank, batches, objective, steps=4)
    for name, speech in (("ann", ann), ("ben", ben)):
        alone = descend(model, bank, [speech.batch(name)], objective, steps=4)
        for mixed, own, table in zip(own_rows(together, name), own_rows(alone, name), bank.tables, strict=True):
            assert (own - table[0]).abs().max() > 0.05
            assert not torch.equal(own[1], own[2])
            assert torch.allclose(mixed, own, rtol=0, atol=1e-9)
    bank.detach()
    assert all(map(torch.equal, before, bank.tables))


def decoded(output, lengths):
    return GreedyCtc(blank=None)(output, lengths)


@pytest.fixture
def labelled(sequences, randn):
    """Two recordings of alice and two of bob in one batch, with labels and confidences of their frames."""
    bank = attach(sequences, "lstm", ["alice", "bob"])
    confidences = torch.tensor([[0.2, 0.9, 0.0], [0.5, 0.1, 0.7], [0.0, 0.0, 0.3], [1.0, 0.4, 0.6]])
    labels = torch.tensor([[0, 2, 1], [1, -1, 0], [2, 2, 1], [0, 1, 1]])
    targets = Labels(torch.ones(4, dtype=torch.float64), torch.full((4,), 3), labels, confidences.double())
    return bank, Batch(randn(4, 3, 5), ["alice", "alice", "bob", "bob"], targets=targets)


def test_a_step_descends_the_mean_with_confidences_as_weights_of_mean_one(sequences, labelled):
    bank, batch = labelled
    x, targets = batch.inputs, batch.targets
    expected = []
    with frozen(sequences), bank.rows(batch.speakers):
        losses = functional.cross_entropy(sequences(x).transpose(1, 2), targets.labels.clamp(min=0), reduction="none")
    for own in (slice(0, 2), slice(2, 4)):
        believed = torch.where(targets.labels[own] >= 0, targets.confidences[own], 0.0)
        weights = believed / believed[believed > 0].mean()
        expected.append((weights * losses[own]).sum() / (believed > 0).sum())
    gradient = torch.autograd.grad(sum(expected), list(bank.tables))[0].to_dense()
    for scale in (1.0, 0.25):
        scaled = replace(batch, targets=replace(targets, confidences=scale * targets.confidences))
        rows = descend(sequences, bank, [scaled], LabelCrossEntropy(), 1, "sgd", lr=0.7)
        for row, name in enumerate(("alice", "bob"), start=1):
            assert torch.allclose(own_rows(rows, name)[0][0], -0.7 * gradient[row], rtol=0, atol=1e-12)


def test_confidences_that_are_all_zero_are_refused(sequences, labelled):
    bank, batch = labelled
    nothing = batch.targets.confidences.clone()
    nothing[2:] = 0.0
    batch = replace(batch, targets=replace(batch.targets, confidences=nothing))
    with pytest.raises(ConfigError, match=r"all weights or confidences of 'bob' are 0, .* leave the speaker out"):
        adapt(sequences, bank, [batch], LabelCrossEntropy(), decode=decoded)


class Breaking:
    """An objective that raises an error in its tenth call."""

    def __init__(self, error: BaseException) -> None:
        self.calls, self.error = 0, error

    def __call__(self, output, targets):
        self.calls += 1
        if self.calls == 10:
            raise self.error
        return LabelCrossEntropy()(output, targets)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("out of memory")])
def test_an_interruption_leaves_bank_and_model_as_they_were(sequences, labelled, scatter, error):
    bank, batch = labelled
    scatter(bank)
    sequences.train()
    before, weights = copied(bank), [p.detach().clone() for p in sequences.parameters()]
    with pytest.raises(type(error)):
        adapt(sequences, bank, [batch], Breaking(error), decode=decoded, perturb=lambda x, _: x)
    assert all(map(torch.equal, before, bank.tables))
    assert all(table.grad is None for table in bank.tables)
    assert all(map(torch.equal, weights, sequences.parameters()))
    assert all(p.requires_grad for p in sequences.parameters())
    assert sequences.training


def test_a_loss_that_is_not_finite_names_speaker_and_batch(sequences, labelled):
    bank, batch = labelled
    broken = batch.inputs.clone()
    broken[3, 1] = float("nan")
    before = copied(bank)
    with pytest.raises(SpeakerError, match=r"batch 1: the loss of 'bob' is not finite; .* The bank is as it was"):
        adapt(
            sequences,
            bank,
            [batch, replace(batch, inputs=broken)],
            LabelCrossEntropy(),
            decode=decoded,
            perturb=lambda x, _: x,
        )
    assert all(map(torch.equal, before, bank.tables))


def test_a_row_that_diverges_names_its_speaker(sequences, labelled):
    bank, batch = labelled
    before = copied(bank)
    with pytest.raises(SpeakerError, match=r"the row of 'alice' is not finite after step 1; take a smaller lr"):
        adapt(sequences, bank, [batch], LabelCrossEntropy(), lr=1e30, decode=decoded, perturb=lambda x, _: x)
    assert all(map(torch.equal, before, bank.tables))


class Ideal:
    """Words that depend on the step alone: wrong in perturbed copies until a number of steps, and after it again."""

    def __init__(self, bank, good: int) -> None:
        self.bank, self.good, self.looks = bank, good, -1

    def __call__(self, inputs):
        # The first call is for the words before adaptation. Then each look makes three: two halves, a perturbed copy.
        number = self.looks
        self.looks += 1
        look, kind = divmod(number, 3)
        perturbed = number >= 0 and kind == 2
        return [[1, 2] if perturbed and look != self.good else [1] for _ in range(4)]


def test_the_chosen_row_is_that_of_the_chosen_step(sequences, labelled):
    bank, batch = labelled
    expected = descend(sequences, bank, [batch], LabelCrossEntropy(), 3, lr=0.03)
    result = adapt(
        sequences, bank, [batch], LabelCrossEntropy(), 6, transcribe=Ideal(bank, 3), perturb=lambda x, _: x, copies=1
    )
    assert [choice.step for choice in result.choices.values()] == [3, 3]
    for row, name in enumerate(("alice", "bob"), start=1):
        assert torch.equal(bank.tables[0][row], own_rows(expected, name)[0][0])
    assert torch.equal(bank.tables[0][0], torch.zeros_like(bank.tables[0][0]))


def test_other_rows_stay_and_a_row_goes_on_from_where_it_was(sequences, labelled, scatter):
    bank, batch = labelled
    bank.add(["carol"])
    scatter(bank)
    before = copied(bank)
    expected = descend(sequences, bank, [batch], LabelCrossEntropy(), 1, lr=0.03)
    adapt(sequences, bank, [batch], LabelCrossEntropy(), 2, transcribe=Ideal(bank, 1), perturb=lambda x, _: x, copies=1)
    for table, old in zip(bank.tables, before, strict=True):
        assert torch.equal(table[[0, 3]], old[[0, 3]])
        assert (table[1:3] - old[1:3]).abs().max() < 0.04
    assert torch.equal(bank.tables[0][1], own_rows(expected, "alice")[0][0])


def test_an_only_recording_is_learned_from_and_looked_at(sequences, randn):
    bank = attach(sequences, "lstm", ["alice"])
    rows = descend(sequences, bank, [Batch(randn(1, 3, 5), ["alice"])], Entropy(blank=None), 2)
    (own,) = own_rows(rows, "alice")
    assert own[0].abs().max() > 0.01
    assert not own[1:].any()


REFUSED = [
    ({"steps": 0}, ConfigError, "steps = 0: expected 1 or more"),
    ({"decode": None}, ConfigError, "how scores become words is not known for this objective; pass decode="),
    ({"transcribe": len}, ConfigError, "decode= and transcribe= are two ways to the words"),
    ({"decode": lambda output, lengths: []}, ConfigError, "batch 0: 0 transcripts of 4 recordings"),
    ({"scores": lambda output: {"logits": output}}, ConfigError, r"expected scores of shape \(4, T, K\), found dict"),
    ({"scores": torch.detach}, SiteError, "batch 0: the loss does not depend on the rows"),
    ({"optimizer": "lbfgs"}, ConfigError, "no row-wise optimizer is called 'lbfgs'"),
    ({"perturb": lambda recording, generator: recording[:1]}, ConfigError, "it must keep the shape"),
]


@pytest.mark.parametrize(("options", "error", "message"), REFUSED)
def test_what_does_not_fit_is_refused(sequences, labelled, options, error, message):
    bank, batch = labelled
    options = {"decode": decoded, "perturb": lambda x, _: x, "steps": 1, **options}
    with pytest.raises(error, match=message):
        adapt(sequences, bank, [batch], LabelCrossEntropy(), **options)


def test_speakers_and_batches_that_do_not_fit_are_refused(sequences, labelled):
    bank, batch = labelled
    x = batch.inputs
    frames = torch.full((len(batch),), x.shape[1] + 1)
    with pytest.raises(ConfigError, match=f"lengths= says {x.shape[1] + 1} frames, but the output has {x.shape[1]}"):
        adapt(sequences, bank, [replace(batch, lengths=frames, targets=None)], Entropy(), 1)
    with pytest.raises(ConfigError, match=f"input_lengths= says {x.shape[1] + 1}, but the recordings have"):
        replace(batch, input_lengths=frames)
    with pytest.raises(ConfigError, match=r"targets= is a list; pass Labels\.padded"):
        replace(batch, targets=[[3]] * len(batch))
    for batches, message in (
        ([], "no batches"),
        ([Batch(x, ["alice", "alice", "bob", "eve"])], "speaker 'eve' is not in the bank"),
        ([Batch(x, ["alice", "alice", "bob", ""])], "row 0 is nobody's"),
        ([Batch(x, batch.speakers)], "batch 0 has no targets, and LabelCrossEntropy cannot make them"),
    ):
        with pytest.raises(LhucError, match=message):
            adapt(sequences, bank, batches, LabelCrossEntropy(), decode=decoded)
    bank.detach()
    with pytest.raises(SiteError, match="the bank is detached"):
        adapt(sequences, bank, [batch], LabelCrossEntropy(), decode=decoded)


class Attention(nn.Module):
    """Features (B, T, 5) and words before (B, U) -> logits of words (B, U, 4), in a mapping."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.activation = nn.Linear(5, 6), nn.Tanh()
        self.words, self.decoder, self.output = nn.Embedding(4, 6), nn.GRU(6, 6, batch_first=True), nn.Linear(6, 4)

    def forward(self, features, before):
        heard = self.activation(self.encoder(features)).mean(1)
        return {"logits": self.output(self.decoder(self.words(before), heard[None])[0])}


def test_a_decoder_learns_by_teacher_forcing(randn):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Attention().double()
    bank = attach(model, "activation", ["alice"])
    said = [[1, 2, 3], [3, 1]]
    before = torch.tensor([[0, 1, 2], [0, 3, 0]])
    batch = Batch(
        {"before": before, "features": randn(2, 6, 5)}, ["alice"] * 2, targets=Labels.padded(said, torch.tensor([6, 6]))
    )
    seen = []

    def transcribe(inputs):
        seen.append(bank.attached and inputs["features"].shape)
        return [[0], [0]]

    result = adapt(
        model, bank, [batch], LabelCrossEntropy(), 2, scores=lambda output: output["logits"], transcribe=transcribe
    )
    assert not result.choices["alice"].helps
    assert set(seen) == {(2, 6, 5)}


def test_an_optimizer_of_rows_that_were_kept_remains_valid(sequences, labelled):
    bank, batch = labelled
    optimizer = bank.optimizer("adam", lr=0.01)

    def step() -> None:
        optimizer.zero_grad()
        with bank.rows(batch.speakers):
            sequences(batch.inputs).square().sum().backward()
        optimizer.step()

    step()
    options = {"perturb": lambda x, _: x, "copies": 1}
    adapt(sequences, bank, [batch], LabelCrossEntropy(), 1, transcribe=lambda inputs: [[1]] * 4, **options)
    step()
    adapt(sequences, bank, [batch], LabelCrossEntropy(), 2, transcribe=Ideal(bank, 1), **options)
    with pytest.raises(SpeakerError, match="its momentum belongs to other rows"):
        step()
