"""Rows in the hands of trainers: torch's GradScaler under autocast, accelerate, Hugging Face's Trainer."""

import copy

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import DataLoader

from lhuc_asr.lhuc import AdaptedModel, attach

SITES, SPEAKERS = "hidden.*.activation", ["alice", "bob", "carol"]


@pytest.fixture
def adapted(mlp, scatter):
    """Rows with dense gradients, of a frozen model."""
    bank = attach(mlp.float().requires_grad_(False), SITES, SPEAKERS)
    scatter(bank)
    bank.sparse_gradients = False
    return AdaptedModel(mlp, bank)


def tables(adapted: AdaptedModel) -> list[torch.Tensor]:
    return [table.detach().clone() for table in adapted.bank.tables]


@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_grad_scaler_changes_no_step_and_leaves_out_those_that_overflow(adapted, randn, dtype, sparse):
    """Scaling by a power of two is exact."""
    adapted.bank.sparse_gradients = sparse
    twin, start = copy.deepcopy(adapted), tables(adapted)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**6)
    optimizer, plain = (each.bank.optimizer("adam", lr=0.1) for each in (adapted, twin))

    def loss(model: AdaptedModel, x: torch.Tensor, names: list[str]) -> torch.Tensor:
        model.bank.zero_grad()
        with torch.autocast("cpu", dtype):
            hidden = model(x, speakers=names)
            assert hidden.dtype == dtype
            return hidden.float().square().mean()

    for names in (["alice", "bob", ""], ["bob", "bob", "bob"]):
        x = randn(3, 5).float()
        loss(twin, x, names).backward()
        plain.step()
        scaler.scale(loss(adapted, x, names)).backward()
        scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()
    for mine, expected, before in zip(tables(adapted), tables(twin), start, strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-3, atol=1e-4)
        assert torch.equal(mine[3], before[3])
        assert not torch.equal(mine[1:3], before[1:3])
    learned = tables(adapted)
    scaler.scale(loss(adapted, x * torch.inf, names)).backward()
    scaler.step(optimizer)
    scaler.update()
    assert all(torch.equal(*pair) for pair in zip(tables(adapted), learned, strict=True))
    assert scaler.get_scale() == 2.0**5


def batches(randn) -> list[tuple[torch.Tensor, list[str]]]:
    """Carol is in none."""
    names = (["alice", "bob"], ["bob", "bob"], ["", "alice"], ["bob", "alice"])
    return [(randn(2, 5).float(), each) for each in names]


def loss_of(model: nn.Module, x: torch.Tensor, names: list[str]) -> torch.Tensor:
    return model(x, speakers=names).square().mean()


def test_accelerate_does_what_a_plain_loop_does(adapted, randn, tmp_path):
    """Gradients of two batches added up and clipped; a training that is taken up again goes on to the bit."""
    accelerate = pytest.importorskip("accelerate")
    data, start = batches(randn), tables(adapted)
    plain, later = copy.deepcopy(adapted), copy.deepcopy(adapted)
    optimizer = plain.bank.optimizer("adam", lr=0.1)
    for pair in (data[:2], data[2:]):
        optimizer.zero_grad()
        for x, names in pair:
            (loss_of(plain, x, names) / 2).backward()
        nn.utils.clip_grad_norm_(plain.parameters(), 0.05)
        optimizer.step()

    def run(adapted: AdaptedModel, first: int, last: int, folder: str) -> None:
        accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=2)
        loader = DataLoader(data[first:last], batch_size=None)
        model, optimizer, loader = accelerator.prepare(adapted, adapted.bank.optimizer("adam", lr=0.1), loader)
        if first:
            accelerator.load_state(folder)
        for x, names in loader:
            with accelerator.accumulate(model):
                accelerator.backward(loss_of(model, x, names))
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(model.parameters(), 0.05)
                optimizer.step()
                optimizer.zero_grad()
        accelerator.save_state(folder)

    run(adapted, 0, 2, str(tmp_path))
    later.bank.drop(SPEAKERS)
    later.bank.add(["zoe"])
    run(later, 2, 4, str(tmp_path))
    assert later.bank.speakers == tuple(SPEAKERS)
    for mine, expected, before in zip(tables(later), tables(plain), start, strict=True):
        assert torch.equal(mine, expected)
        assert [bool((mine[row] != before[row]).any()) for row in range(4)] == [True, True, True, False]


@pytest.fixture
def recognizer():
    """Makes a wav2vec 2.0 with random weights, always the same, for alice, bob and carol."""
    transformers = pytest.importorskip("transformers")

    def make() -> AdaptedModel:
        nothing = dict.fromkeys(("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout",
                                 "final_dropout", "layerdrop", "mask_time_prob"), 0.0)  # fmt: skip
        config = transformers.Wav2Vec2Config(
            vocab_size=12, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=20,
            conv_dim=(8, 8), conv_stride=(5, 2), conv_kernel=(10, 3), num_feat_extract_layers=2,
            num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2, ctc_loss_reduction="mean", pad_token_id=0,
            **nothing,
        )  # fmt: skip
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = transformers.Wav2Vec2ForCTC(config).requires_grad_(False)
        bank = attach(model, inputs_of="**.output_dense", speakers=SPEAKERS)
        bank.sparse_gradients = False
        return AdaptedModel(model, bank)

    return make


def collate(items: list[dict]) -> dict:
    batch = {key: torch.stack([item[key] for item in items]) for key in ("input_values", "labels")}
    return {**batch, "speakers": [item["speaker"] for item in items]}


@pytest.fixture
def trainer(randn, generator, tmp_path):
    """Makes a Trainer of four steps, whose utterances are alice's, then bob's."""
    transformers = pytest.importorskip("transformers")
    utterances = [
        {
            "input_values": randn(400).float(),
            "labels": torch.randint(1, 12, (4,), generator=generator),
            "speaker": SPEAKERS[number % 2],
        }
        for number in range(8)
    ]

    def make(adapted: AdaptedModel, **options) -> "transformers.Trainer":
        arguments = transformers.TrainingArguments(
            output_dir=str(tmp_path),
            use_cpu=True,
            per_device_train_batch_size=2,
            max_steps=4,
            save_steps=2,
            report_to=[],
            disable_tqdm=True,
            remove_unused_columns=False,  # the speakers are one
            label_names=["labels"],
            **options,
        )
        optimizer = adapted.bank.optimizer("adam", lr=0.05)
        return transformers.Trainer(
            adapted, arguments, collate, train_dataset=utterances, eval_dataset=utterances, optimizers=(optimizer, None)
        )

    return make


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing:FutureWarning")
def test_hugging_face_trains_the_speakers_of_the_batch(recognizer, trainer, tmp_path):
    plain, adapted, later = recognizer(), recognizer(), recognizer()
    before = copy.deepcopy(adapted.model.state_dict())
    trainer(plain).train()
    checkpointed = trainer(adapted, gradient_checkpointing=True)
    checkpointed.train()
    assert all(
        module.gradient_checkpointing for module in adapted.modules() if hasattr(module, "gradient_checkpointing")
    )
    for mine, expected in zip(tables(adapted), tables(plain), strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-5, atol=1e-6)
        assert [bool(row.any()) for row in mine] == [False, True, True, False]
    assert all(torch.equal(value, before[name]) for name, value in adapted.model.state_dict().items())
    assert checkpointed.evaluate()["eval_loss"] > 0

    again = trainer(later, gradient_checkpointing=True)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert all(torch.equal(*pair) for pair in zip(tables(later), tables(adapted), strict=True))
    again.save_model(str(tmp_path / "whole"))
    read = recognizer()
    read.bank.drop(["alice"])
    read.load_state_dict(load_file(tmp_path / "whole" / "model.safetensors"))
    assert all(torch.equal(*pair) for pair in zip(tables(read), tables(adapted), strict=True))


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing:FutureWarning")
def test_hugging_face_is_asked_for_checkpoints_that_know_the_speakers(recognizer, trainer):
    options = {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": True}}
    with pytest.raises(ValueError, match="only supported when use_reentrant=False"):
        trainer(recognizer(), **options).train()


def test_the_loss_is_scaled_as_the_model_says(mlp, bank):
    class Declares(type(mlp)):
        accepts_loss_kwargs = False

        def forward(self, x, **kwargs):
            return super().forward(x)

    assert AdaptedModel(mlp, bank).accepts_loss_kwargs is False
    declares = Declares()
    assert AdaptedModel(declares, attach(declares, SITES)).accepts_loss_kwargs is False
    del Declares.accepts_loss_kwargs
    assert AdaptedModel(declares, attach(declares, "hidden.*.dropout")).accepts_loss_kwargs is True
