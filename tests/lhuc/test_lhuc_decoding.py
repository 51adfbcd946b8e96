"""Rows where decoding changes the batch: beam search, and Whisper's decoding of long recordings."""

import pytest
import torch
from torch import nn

from lhuc_asr.base.errors import SiteError, SpeakerError
from lhuc_asr.lhuc import attach

SPEAKERS = ["alice", "bob", "carol"]


@pytest.fixture
def transformers():
    return pytest.importorskip("transformers")


@pytest.fixture
def whisper(transformers):
    """A Whisper of transformers with random weights, for windows of 40 frames; no token is a time."""
    config = transformers.WhisperConfig(
        vocab_size=60, num_mel_bins=8, d_model=8, encoder_layers=1, decoder_layers=2, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=12, decoder_ffn_dim=10, max_source_positions=20,
        max_target_positions=24, pad_token_id=50, bos_token_id=51, eos_token_id=50, decoder_start_token_id=51,
        init_std=1.0,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.WhisperForConditionalGeneration(config).double().eval()
    model.generation_config = transformers.GenerationConfig(
        decoder_start_token_id=51, pad_token_id=50, eos_token_id=50, bos_token_id=51, no_timestamps_token_id=59,
        max_initial_timestamp_index=5, is_multilingual=False,
    )  # fmt: skip
    return model


@pytest.fixture
def whisper_bank(whisper, scatter):
    bank = attach(whisper, inputs_of="**.fc2", speakers=SPEAKERS)
    for _ in range(2):
        scatter(bank)
    return bank


@pytest.mark.parametrize("beams", [1, 3])
def test_each_element_may_stand_several_times_next_to_itself(bank, mlp, randn, beams):
    x, names = randn(3, 5), ["alice", "", "bob"]
    alone = []
    for name, own in zip(names, x, strict=True):
        with bank.speaker(name):
            alone.append(mlp(own[None]))
    with bank.rows(names, beams=beams):
        plain, wide = mlp(x), mlp(x.repeat_interleave(beams, 0))
    torch.testing.assert_close(plain, torch.cat(alone), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(wide, torch.cat(alone).repeat_interleave(beams, 0), rtol=1e-12, atol=1e-12)


def test_batches_that_do_not_fit_the_rows_are_refused(bank, mlp, randn):
    message = r"2 rows .* 8 elements .* stands 4 times next to itself, rows\(..., beams=4\)"
    with bank.rows(["alice", "bob"]), pytest.raises(SiteError, match=message):
        mlp(randn(8, 5))
    for size in (1, 4, 6):
        message = rf"{size} elements along axis 0; expected 2, or 8 with 4 beams each"
        with bank.rows(["alice", "bob"], beams=4), pytest.raises(SiteError, match=message):
            mlp(randn(size, 5))
    with pytest.raises(SpeakerError, match=r"beams = 0; expected .* at least 1"):
        bank.rows(["alice"], beams=0)


def test_beams_of_the_elements_that_are_left_are_not_taken_for_all_elements(bank, mlp, randn):
    """Two of four elements with two beams each are four elements again, but other ones."""
    with bank.rows(["alice", "bob", "alice", ""], beams=2):
        mlp(randn(8, 5))
        with pytest.raises(SiteError, match=r"4 elements .* decode one speaker at a time: bank.speaker"):
            mlp(randn(4, 5))


@pytest.mark.parametrize("beams", [1, 4])
def test_beam_search_keeps_the_speakers(whisper, whisper_bank, randn, beams):
    """The encoder has the batch once, the decoder each element four times."""
    features = randn(3, 8, 40)

    def decode(x: torch.Tensor) -> list[list[int]]:
        return whisper.generate(x, num_beams=beams, max_new_tokens=8).tolist()

    names = ["carol", "alice", "bob"]
    alone = {}
    for name in names:
        with whisper_bank.speaker(name):
            alone[name] = [decode(own[None])[0] for own in features]
    with whisper_bank.rows(names, beams=beams):
        mixed = decode(features)
    assert mixed == [alone[name][place] for place, name in enumerate(names)]
    assert mixed != alone["bob"]
    if beams > 1:
        with whisper_bank.rows(names), pytest.raises(SiteError, match=r"'model.decoder.* beams=4"):
            decode(features)


def test_whisper_finds_the_language_before_beam_search(whisper, whisper_bank, randn):
    """For that its decoder has the batch once."""
    whisper.generation_config.is_multilingual = True
    whisper.generation_config.lang_to_id, whisper.generation_config.task_to_id = {"<|en|>": 52}, {"transcribe": 54}
    features, sizes = randn(2, 8, 40), []
    whisper.model.decoder.register_forward_hook(lambda _, args, output: sizes.append(len(output[0])))
    with whisper_bank.rows(["alice", "bob"], beams=3):
        mixed = whisper.generate(features, num_beams=3, max_new_tokens=6)
    assert (sizes[0], *set(sizes[1:])) == (2, 6)
    for place, name in enumerate(["alice", "bob"]):
        with whisper_bank.speaker(name):
            assert torch.equal(whisper.generate(features, num_beams=3, max_new_tokens=6)[place], mixed[place])


@pytest.mark.parametrize("options", [{}, {"num_beams": 2}, {"cache_implementation": "static"}])
@pytest.mark.parametrize("sites", ["**.fc2", "**.decoder.**.fc2"])
def test_long_recordings_are_decoded_one_speaker_at_a_time(whisper, randn, scatter, sites, options):
    """The shorter one leaves the batch. With a static cache the batch keeps its size, and rows would be others'."""
    whisper.generation_config.no_timestamps_token_id = 53
    bank = attach(whisper, inputs_of=sites, speakers=SPEAKERS)
    scatter(bank)
    features, mask = randn(2, 8, 100), torch.ones(2, 100, dtype=torch.int64)
    mask[0, 45:] = 0

    def decode(x: torch.Tensor, mask: torch.Tensor) -> list[list[int]]:
        return whisper.generate(x, attention_mask=mask, return_timestamps=True, max_new_tokens=8, **options).tolist()

    for context in (bank.rows(["alice", "bob"], beams=options.get("num_beams", 1)), bank.blocks(["alice", "bob"])):
        with context, pytest.raises(SiteError, match=r"have left the batch .* one speaker at a time: bank.speaker"):
            decode(features, mask)
    for place, (name, frames) in enumerate([("alice", 45), ("bob", 100)]):
        with bank.speaker(name):
            together, alone = decode(features, mask), decode(features[[place], :, :frames], mask[[place], :frames])
        tokens = alone[0]
        assert together[place][: len(tokens)] == tokens
        assert set(together[place][len(tokens) :]) <= {50}


class Scaled(nn.Module):
    """An activation whose units have amplitudes of their own."""

    def __init__(self, activation: nn.Module, amplitude: torch.Tensor) -> None:
        super().__init__()
        self.activation, self.amplitude = activation, amplitude

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.activation(x) * self.amplitude


@pytest.mark.filterwarnings("ignore:unclosed file .*tiktoken:ResourceWarning")  # whisper's vocabulary
@pytest.mark.filterwarnings("ignore:__array_wrap__ must accept context:DeprecationWarning")  # whisper with numpy 2
@pytest.mark.parametrize("options", [{"temperature": 0.0, "beam_size": 3}, {"temperature": (0.0, 1.0), "best_of": 2}])
def test_the_original_whisper_transcribes_a_file_of_one_speaker(randn, scatter, options):
    """Two windows; beams, or a first decoding that fails and a second one of two samples."""
    whisper = pytest.importorskip("whisper")
    sizes = whisper.model.ModelDimensions(80, 1500, 8, 2, 1, 51864, 20, 8, 2, 1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = whisper.model.Whisper(sizes).eval()
        nn.init.normal_(model.decoder.positional_embedding)
    bank = attach(model, ["encoder.blocks.*.mlp.1", "decoder.blocks.*.mlp.1"], SPEAKERS)
    scatter(bank)
    audio = randn(whisper.audio.SAMPLE_RATE * 40).float().numpy()
    times = []
    model.encoder.register_forward_hook(lambda *_: times.append(1))

    def transcribe() -> list[list[int]]:
        with torch.random.fork_rng():
            torch.manual_seed(3)
            heard = whisper.transcribe(model, audio, fp16=False, language="en", **options)
        return [segment["tokens"] for segment in heard["segments"]]

    heard = {}
    for name in ("", "alice"):
        with bank.speaker(name):
            heard[name] = transcribe()
    assert len(times) >= 4
    assert heard["alice"] != heard[""]
    bank.detach()
    for site, table in zip(bank.sites, bank.tables, strict=True):
        block = model.get_submodule(site.name.removesuffix(".1"))
        block[1] = Scaled(block[1], table.detach()[1].exp())
    assert transcribe() == heard["alice"]
