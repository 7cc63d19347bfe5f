"""One training step of every objective, protocol and fusion on a GPU that computes nothing."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from datasets.schema import Batch, FeatureBatch
from models.classifier import Classifier, ClassifierConfig, build_classifier
from models.encoders import EHR_ENCODERS, EncoderConfig, build_encoders, lstm
from models.fusion import FUSIONS, FusionConfig
from models.fusion import base as fusion_base
from models.heads import build_heads
from models.linear_probe import LinearProbe
from models.objectives import OBJECTIVES, align
from tests.gpu.fake_cuda import CUDA, FAKE, fake_batch, fake_cuda
from training.early_stopping import StoppingConfig
from training.loop import fit
from training.optim import OptimConfig
from training.pretrain import published_optim
from utils import checkpoint
from utils.distributed import Process
from utils.run import Run
from utils.run_config import RunConfig

HOURS = [5, 1, 17, 9, 30, 2]
ENCODERS = EncoderConfig(vision_backbone="resnet18", ehr_dim=32)
OPTIM = OptimConfig(epochs=1)
IMAGES = (0, 1, 4, 6)  # of six stays: none has one, one has, some have, all have


class Fixed:
    """The same batches in every epoch."""

    def __init__(self, *batches: Batch | FeatureBatch) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def epoch(self, epoch: int, start: int = 0) -> Generator[Batch | FeatureBatch, None, None]:
        """Yield them."""
        yield from self.batches[start:]


def train(
    module: nn.Module,
    batches: Sequence[Batch | FeatureBatch],
    folder: Path,
    optim: OptimConfig = OPTIM,
    precision: str = "auto",
) -> None:
    """An epoch of training and validation as on a GPU; in the steps, the host must not wait for it."""
    run = Run(RunConfig(precision=precision), "x", folder, Process(device=CUDA))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "log", lambda run, row: None)
        patch.setattr(checkpoint.Writer, "save", lambda writer, path, content: None)
        with fake_cuda():
            stopping = StoppingConfig(monitor="train_loss")
            fit(module, Fixed(*batches), Fixed(*batches), optim, stopping, run, save=dict)


def objective(name: str, encoders: EncoderConfig = ENCODERS) -> nn.Module:
    built = build_encoders(encoders)
    settings = OBJECTIVES[name]()
    return settings.build(built, build_heads(built, settings.width))


def classifier(
    fusion: str, kind: str = "multilabel", encoders: EncoderConfig = ENCODERS, **settings: object
) -> nn.Module:
    fusion_settings = FusionConfig(**settings)
    return build_classifier(
        ClassifierConfig(fusion, kind, 4, encoders, fusion_settings=fusion_settings), download=False
    )


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_takes_a_step(name: str, tmp_path: Path) -> None:
    optim = replace(published_optim(name), epochs=1, warmup_epochs=0)
    train(objective(name), [fake_batch(HOURS, images) for images in IMAGES], tmp_path, optim)


SETTINGS = [
    ("mmtm", {"layer_after": -1}),
    ("daft", {"layer_after": -1}),
    ("medfuse_tokens", {"missing_token": "learned"}),
]


@pytest.mark.parametrize(("fusion", "settings"), [*((name, {}) for name in FUSIONS), *SETTINGS], ids=str)
def test_every_fusion_takes_a_step(fusion: str, settings: dict[str, object], tmp_path: Path) -> None:
    batches = [fake_batch(HOURS, images, labels=4) for images in (0, 4)]
    train(classifier(fusion, **settings), batches, tmp_path)


def test_the_rehearsal_is_in_bf16(tmp_path: Path) -> None:
    module = objective("simclr")
    types = []
    module.encoders["cxr"].stages.register_forward_hook(lambda *call: types.append(call[2].dtype))
    train(module, [fake_batch(HOURS, 6)], tmp_path)
    assert set(types) == {torch.bfloat16}


@pytest.mark.parametrize(
    "settings", [{"optimizer": "sgd", "clip": 1.0}, {"optimizer": "adam"}, {"optimizer": "lars"}], ids=str
)
def test_every_optimizer_takes_a_step(settings: dict[str, object], tmp_path: Path) -> None:
    train(classifier("ehr"), [fake_batch(HOURS, 0, labels=4)], tmp_path, replace(OPTIM, **settings))


@pytest.mark.parametrize(("kind", "labels"), [("binary", 4), ("ordinal", 1)])
def test_every_kind_of_task_takes_a_step(kind: str, labels: int, tmp_path: Path) -> None:
    train(classifier("late", kind), [fake_batch(HOURS, 4, labels)], tmp_path)


def test_an_lstm_of_three_layers_with_dropout_takes_a_step(tmp_path: Path) -> None:
    encoders = replace(ENCODERS, ehr_layers=3, ehr_dropout=0.5)
    train(objective("clip", encoders), [fake_batch(HOURS, 4)], tmp_path)


@pytest.mark.parametrize("encoder", EHR_ENCODERS)
def test_every_record_encoder_takes_a_step(encoder: str, tmp_path: Path) -> None:
    encoders = EncoderConfig(encoder, vision_backbone="resnet18")
    train(classifier("ehr", encoders=encoders), [fake_batch([5, 1, 9, 2], 0, labels=4)], tmp_path)


def test_a_linear_probe_takes_a_step(tmp_path: Path) -> None:
    with FAKE:
        features, labels = (torch.empty(6, width, device=CUDA) for width in (8, 4))
    batch = FeatureBatch(features, labels, torch.arange(6))
    train(Classifier(LinearProbe(nn.Linear(8, 4)), "multilabel"), [batch], tmp_path)


def test_training_in_float32_takes_a_step(tmp_path: Path) -> None:
    train(objective("simclr"), [fake_batch(HOURS, 4)], tmp_path, precision="float32")


ALL = fake_batch(HOURS, 6, labels=4)
SOME = fake_batch(HOURS, 4, labels=4)


def mask_on_the_cpu(patch: pytest.MonkeyPatch) -> tuple[nn.Module, Batch]:
    return classifier("medfuse"), ALL._replace(has_cxr=torch.ones(6, dtype=torch.bool))


def labels_on_the_cpu(patch: pytest.MonkeyPatch) -> tuple[nn.Module, Batch]:
    return classifier("concatenation"), ALL._replace(labels=torch.ones(6, 4))


def hours_in_half_precision(patch: pytest.MonkeyPatch) -> tuple[nn.Module, Batch]:
    def run(lstm: nn.LSTM, inputs: PackedSequence) -> tuple[PackedSequence, Tensor]:
        states, (last, _) = lstm(inputs.to(torch.bfloat16))
        return states, last[-1]

    patch.setattr(lstm, "run_lstm", run)
    return objective("simclr"), ALL


def batch_sizes_on_the_gpu(patch: pytest.MonkeyPatch) -> tuple[nn.Module, Batch]:
    with FAKE:
        sizes = torch.empty(30, dtype=torch.int64, device=CUDA)
    return objective("simclr"), ALL._replace(ehr=ALL.ehr._replace(batch_sizes=sizes))


def lstm_in_eval_mode(patch: pytest.MonkeyPatch) -> tuple[nn.Module, Batch]:
    module = objective("simclr")
    patch.setattr(module.encoders["ehr"], "train", lambda mode=True: None)
    module.encoders["ehr"].lstm.training = False
    return module, ALL


def other_type_taken(patch: pytest.MonkeyPatch) -> tuple[nn.Module, Batch]:
    def take(features: Tensor, index: Tensor) -> Tensor:
        zeros = features.new_zeros(len(index), features.shape[1])
        return zeros.masked_scatter((index >= 0)[:, None].expand_as(zeros), features.half())

    patch.setattr(fusion_base, "take_rows", take)
    return classifier("concatenation"), SOME


def weight_on_the_cpu(patch: pytest.MonkeyPatch) -> tuple[nn.Module, Batch]:
    module = objective("simclr")
    layer = module.heads["cxr"][0]
    weight = layer.weight.detach()
    del layer.weight
    layer.weight = weight  # no parameter, so that .to(device) leaves it
    return module, ALL


def rows_by_mask(patch: pytest.MonkeyPatch) -> tuple[nn.Module, Batch]:
    module = objective("simclr")
    embed = module.embed
    patch.setattr(module, "embed", lambda batch: [rows[batch.has_cxr] for rows in embed(batch)])
    return module, ALL


def mask_in_the_gradient(patch: pytest.MonkeyPatch) -> tuple[nn.Module, Batch]:
    def take(features: Tensor, index: Tensor) -> Tensor:
        zeros = features.new_zeros(len(index), features.shape[1])
        return zeros.masked_scatter((index >= 0)[:, None].expand_as(zeros), features)

    patch.setattr(fusion_base, "take_rows", take)
    return classifier("concatenation"), SOME


def order_copied_and_awaited(patch: pytest.MonkeyPatch) -> tuple[nn.Module, Batch]:
    patch.setattr(align, "to_device", lambda tensor, device: tensor.to(device))
    return objective("align"), ALL


FAULTS = {
    mask_on_the_cpu: "two different devices|same device",
    labels_on_the_cpu: "two different devices|same device",
    hours_in_half_precision: "LSTM: input torch.bfloat16",
    batch_sizes_on_the_gpu: "waits for the GPU in aten::_local_scalar_dense",
    lstm_in_eval_mode: "only be called in training mode",
    other_type_taken: "dtype",
    weight_on_the_cpu: "two different devices|same device",
    rows_by_mask: "waits for the GPU in aten::index.Tensor",
    mask_in_the_gradient: "waits for the GPU in aten::masked_s",
    order_copied_and_awaited: "waits for the GPU in aten::_to_copy",
}


@pytest.mark.parametrize("plant", FAULTS, ids=lambda plant: plant.__name__)
def test_the_rehearsal_sees_a_planted_fault(
    plant: Callable[[pytest.MonkeyPatch], tuple[nn.Module, Batch]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module, batch = plant(monkeypatch)
    with pytest.raises((RuntimeError, AssertionError, ValueError), match=FAULTS[plant]):
        train(module, [batch], tmp_path)
