"""The zoo's models, as people build them, but small and with random weights; libraries are imported on use."""

import warnings

import torch
from torch import Tensor, nn
from torch.nn import functional


class Lstm(nn.Module):
    """(B, T, 8) -> (B, T, 5)."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, 6, num_layers=2, bidirectional=True, dropout=0.2, batch_first=True)
        self.scores = nn.Linear(12, 5)

    def forward(self, features: Tensor) -> Tensor:
        return self.scores(self.lstm(features)[0])


class Gru(nn.Module):
    """(B, T, 8) -> (B, T, 5): two GRUs, normalised, one on the other."""

    def __init__(self) -> None:
        super().__init__()
        self.lower, self.upper = nn.GRU(8, 6, batch_first=True), nn.GRU(6, 6, batch_first=True)
        self.norm, self.dropout, self.scores = nn.LayerNorm(6), nn.Dropout(0.2), nn.Linear(6, 5)

    def forward(self, features: Tensor) -> Tensor:
        hidden, _ = self.lower(features)
        hidden, _ = self.upper(self.dropout(self.norm(hidden)))
        return self.scores(hidden)


def tdnn() -> nn.Module:
    """(B, 8, T) -> (B, 5, T - 10): affine, ReLU, normalisation, as in x-vectors."""

    def layer(inputs: int, kernel: int, dilation: int) -> list[nn.Module]:
        return [nn.Conv1d(inputs, 10, kernel, dilation=dilation), nn.ReLU(), nn.BatchNorm1d(10)]

    return nn.Sequential(*layer(8, 3, 1), *layer(10, 3, 2), *layer(10, 3, 2), nn.Conv1d(10, 5, 1))


def cnn_1d() -> nn.Module:
    """(B, 8, 24) -> (B, 5)."""
    return nn.Sequential(
        *(nn.Conv1d(8, 10, 3, padding=1), nn.BatchNorm1d(10), nn.ReLU(), nn.MaxPool1d(2), nn.Dropout(0.2)),
        *(nn.Conv1d(10, 6, 3, padding=1, groups=2), nn.BatchNorm1d(6), nn.ReLU(), nn.MaxPool1d(2)),
        *(nn.Flatten(), nn.Linear(36, 5)),
    )


class Cnn2d(nn.Module):
    """(B, 1, 12, 8) -> (B, 5)."""

    def __init__(self) -> None:
        super().__init__()
        self.lower = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2))
        self.upper = nn.Sequential(nn.Conv2d(4, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2))
        self.scores = nn.Linear(36, 5)

    def forward(self, pictures: Tensor) -> Tensor:
        return self.scores(self.upper(self.lower(pictures)).flatten(1))


class Padded(nn.Module):
    """(B, T, 8), lengths (B,) -> (B, T, 5): nn.TransformerEncoder with a mask of padding."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.2, activation="gelu", batch_first=True)
        self.encoder, self.scores = nn.TransformerEncoder(layer, 2), nn.Linear(8, 5)

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        padding = torch.arange(features.shape[1]) >= lengths[:, None]
        hidden = self.encoder(features, src_key_padding_mask=padding)
        return self.scores(hidden).masked_fill(padding[..., None], 0.0)


class TimeFirst(nn.Module):
    """(T, B, 8) -> (T, B, 5)."""

    def __init__(self) -> None:
        super().__init__()
        self.front, self.activation, self.lstm = nn.Linear(8, 10), nn.GELU(), nn.LSTM(10, 6)
        self.inner, self.scores = nn.Linear(6, 7), nn.Linear(7, 5)

    def forward(self, features: Tensor) -> Tensor:
        hidden, _ = self.lstm(self.activation(self.front(features)))
        return self.scores(functional.relu(self.inner(hidden)))


class Encoder(nn.Module):
    """(B, T, 8) -> a dict of hidden units (B, T, 10) and their energy (B, T)."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(8, 10), nn.LayerNorm(10)

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        hidden = torch.tanh(self.norm(self.linear(features)))
        return {"hidden": hidden, "energy": features.square().mean(-1)}


class Dict(nn.Module):
    """(B, T, 8) -> a dict with scores (B, T, 5)."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.lstm, self.scores = Encoder(), nn.LSTM(10, 6, batch_first=True), nn.Linear(6, 5)

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        encoded = self.encoder(features)
        return {"scores": self.scores(self.lstm(encoded["hidden"])[0]), "energy": encoded["energy"]}


def int8() -> nn.Module:
    """The LSTM with its linear layer in 8 bits, as torch.ao quantizes it for a CPU."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "(torch.ao.quantization|TypedStorage) is deprecated")
        return torch.ao.quantization.quantize_dynamic(Lstm().eval(), {nn.Linear}, dtype=torch.qint8)


def torchaudio_wav2vec2(large: bool) -> nn.Module:
    """Samples (B, 400), lengths (B,) -> features (B, T, 8) and lengths; the base form, or the large one of HuBERT."""
    from torchaudio.models import wav2vec2_model

    return wav2vec2_model(
        extractor_mode="layer_norm" if large else "group_norm",
        extractor_conv_layer_config=[(8, 10, 5), (8, 3, 2)],
        extractor_conv_bias=large,
        encoder_embed_dim=16,
        encoder_projection_dropout=0.1,
        encoder_pos_conv_kernel=8,
        encoder_pos_conv_groups=2,
        encoder_num_layers=1,
        encoder_num_heads=2,
        encoder_attention_dropout=0.1,
        encoder_ff_interm_features=20,
        encoder_ff_interm_dropout=0.1,
        encoder_dropout=0.1,
        encoder_layer_norm_first=large,
        encoder_layer_drop=0.0,
        aux_num_out=None if large else 8,
    )


def torchaudio_conformer() -> nn.Module:
    """Features (B, T, 8), lengths (B,) -> (B, T, 8) and lengths."""
    from torchaudio.models import Conformer

    return Conformer(8, num_heads=2, ffn_dim=12, num_layers=1, depthwise_conv_kernel_size=3, dropout=0.1)


# What the configurations of the transformers of wav2vec 2.0's kind have in common.
_SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 20,
    "conv_dim": (8, 8),
    "conv_kernel": (10, 3),
    "conv_stride": (5, 2),
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
    "vocab_size": 6,
    "layerdrop": 0.0,
    "mask_time_prob": 0.0,
}


def transformers_wav2vec2() -> nn.Module:
    """Samples (B, 400) and a mask -> scores of characters; the large form, which masks its padding."""
    from transformers import Wav2Vec2Config, Wav2Vec2ForCTC

    return Wav2Vec2ForCTC(Wav2Vec2Config(**_SMALL, feat_extract_norm="layer", do_stable_layer_norm=True))


def transformers_hubert() -> nn.Module:
    """Samples (B, 400) -> hidden units."""
    from transformers import HubertConfig, HubertModel

    return HubertModel(HubertConfig(**_SMALL))


def transformers_conformer() -> nn.Module:
    """Samples (B, 400) -> scores of characters."""
    from transformers import Wav2Vec2ConformerConfig, Wav2Vec2ConformerForCTC

    return Wav2Vec2ConformerForCTC(Wav2Vec2ConformerConfig(**_SMALL, conv_depthwise_kernel_size=3, hidden_act="swish"))


def openai_whisper() -> nn.Module:
    """Spectrograms (B, 80, 40) and tokens (B, 5) -> scores of tokens (B, 5, 50)."""
    from whisper.model import ModelDimensions, Whisper

    model = Whisper(ModelDimensions(80, 20, 16, 2, 1, 50, 12, 16, 2, 1))
    nn.init.normal_(model.decoder.positional_embedding)  # as it is made, it is whatever is in memory
    return model


def transformers_whisper() -> nn.Module:
    """Spectrograms (B, 80, 40) and tokens (B, 5) -> scores of tokens (B, 5, 50)."""
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    config = WhisperConfig(
        vocab_size=50,
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=20,
        decoder_ffn_dim=20,
        max_source_positions=20,
        max_target_positions=12,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
        use_cache=False,
    )
    return WhisperForConditionalGeneration(config)
