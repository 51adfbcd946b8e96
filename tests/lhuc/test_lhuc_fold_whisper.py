"""A folded Whisper runs where Whisper runs: in openai-whisper's own package, and in transformers'."""

import numpy as np
import pytest
import torch

from lhuc_asr.base.errors import FoldError
from lhuc_asr.lhuc import attach, fold

TOLERANCE = {"rtol": 1e-4, "atol": 1e-4}


def scattered(bank):
    """Values of its own for every speaker."""
    generator = torch.Generator().manual_seed(1)
    bank.fill({site.name: torch.randn(site.width, generator=generator) for site in bank.sites})
    return bank


def spread_weights(model):
    """Weights so large that what the model says depends on its input."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


@pytest.fixture(scope="module")
def openai():
    """Whisper of openai-whisper, tiny, with its own tokens, and an example."""
    whisper = pytest.importorskip("whisper.model")
    sizes = whisper.ModelDimensions(80, 1500, 16, 2, 2, 51865, 448, 16, 2, 2)
    generator = torch.Generator().manual_seed(2)
    example = torch.randn(2, 80, 3000, generator=generator), torch.randint(0, 50000, (2, 5), generator=generator)
    return spread_weights(whisper.Whisper(sizes)), example


@pytest.fixture
def adapted(openai):
    model, example = openai
    bank = scattered(attach(model, inputs_of="**.mlp.2", speakers=["alice"], example=example))
    yield model, bank, example
    bank.detach()


# The package's own: its tokenizer's file stays open, and its beam search sorts a tensor with numpy.
@pytest.mark.filterwarnings("ignore:unclosed file .*tiktoken:ResourceWarning")
@pytest.mark.filterwarnings("ignore:Exception ignored in.*tiktoken")
@pytest.mark.filterwarnings("ignore:__array_wrap__ must accept context:DeprecationWarning")
def test_openai_whisper_decodes_and_transcribes_folded(adapted):
    import whisper

    model, bank, (mel, tokens) = adapted
    folded = fold(bank, "alice", (mel, tokens))
    fresh = type(model)(model.dims).eval()
    fresh.load_state_dict(folded.state_dict())
    audio = 0.1 * np.random.default_rng(0).standard_normal(16000, dtype=np.float32)
    options = whisper.DecodingOptions(language="en", fp16=False, sample_len=6)
    beams = whisper.DecodingOptions(language="en", fp16=False, sample_len=6, beam_size=3)
    calls = {
        "logits": lambda model: model(mel, tokens).detach(),
        "decode": lambda model: [result.tokens for result in whisper.decode(model, mel, options)],
        "beam search": lambda model: model.decode(mel[0], beams).tokens,
        "language": lambda model: model.detect_language(mel)[1],
        "transcribe": lambda model: model.transcribe(
            audio, language="en", fp16=False, temperature=0.0, sample_len=6, no_speech_threshold=None
        )["text"],
    }
    with torch.no_grad():
        plain = {name: call(model) for name, call in calls.items()}
        with bank.speaker("alice"):
            expected = {name: call(model) for name, call in calls.items()}
        for copied in (folded, fresh):
            given = {name: call(copied) for name, call in calls.items()}
            torch.testing.assert_close(given.pop("logits"), expected["logits"], **TOLERANCE)
            for mine, its in zip(given.pop("language"), expected["language"], strict=True):
                assert mine == pytest.approx(its, abs=1e-4)
            for name, words in given.items():
                assert words == expected[name]
                assert words != plain[name]


def test_what_of_openai_whisper_is_refused(openai):
    model, example = openai
    for places, message in (
        ({"inputs_of": "**.mlp_ln"}, r"'encoder\.blocks\.0\.mlp_ln' \(LayerNorm\) is not a linear layer"),
        ({"sites": "**.mlp_ln"}, r"Whisper cannot be traced .*'encoder\.blocks\.0\.mlp_ln'.*\(inputs_of=\)"),
        ({"sites": "encoder.conv1"}, r"Whisper cannot be traced .*'encoder\.conv1'.*\(inputs_of=\)"),
    ):
        bank = attach(model, example=example, **places)
        with pytest.raises(FoldError, match=message):
            fold(bank, "", example)
        bank.detach()
    bank = attach(model, inputs_of="**.mlp.2", example=example)
    with pytest.raises(FoldError, match=r"Whisper cannot be traced .*example=x"):
        fold(bank, "")
    bank.detach()


def test_its_convolutions_and_attention_are_folded(openai):
    model, example = openai
    bank = scattered(attach(model, inputs_of=["encoder.conv2", "**.attn.out"], speakers=["alice"], example=example))
    with torch.no_grad():
        with bank.speaker("alice"):
            expected = model(*example)
        torch.testing.assert_close(fold(bank, "alice", example)(*example), expected, **TOLERANCE)
        assert not torch.allclose(model(*example), expected, **TOLERANCE)
    bank.detach()


@pytest.fixture
def hugging_face():
    """Whisper of transformers, tiny, and an example."""
    transformers = pytest.importorskip("transformers")
    config = transformers.WhisperConfig(
        vocab_size=60,
        num_mel_bins=8,
        encoder_layers=2,
        decoder_layers=2,
        d_model=16,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        max_source_positions=20,
        max_target_positions=20,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
    )
    generator = torch.Generator().manual_seed(2)
    example = {
        "input_features": torch.randn(2, 8, 40, generator=generator),
        "decoder_input_ids": torch.randint(3, 60, (2, 5), generator=generator),
    }
    return spread_weights(transformers.WhisperForConditionalGeneration(config)), example


def test_transformers_whisper_generates_folded(hugging_face):
    model, example = hugging_face
    bank = scattered(attach(model, inputs_of="**.fc2", speakers=["alice"], example=example))
    folded = fold(bank, "alice", example)
    fresh = type(model)(model.config).eval()
    fresh.load_state_dict(folded.state_dict())
    features = example["input_features"]
    with torch.no_grad():
        plain = model.generate(features, max_length=12)
        with bank.speaker("alice"):
            expected, words = model(**example).logits, model.generate(features, max_length=12)
        for copied in (folded, fresh):
            torch.testing.assert_close(copied(**example).logits, expected, **TOLERANCE)
            assert torch.equal(copied.generate(features, max_length=12), words)
        assert not torch.equal(plain, words)
    program = torch.export.export(folded, (), {**example, "use_cache": False}).module()
    torch.testing.assert_close(program(**example, use_cache=False).logits.detach(), expected, **TOLERANCE)
