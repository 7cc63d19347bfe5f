"""What only a GPU can show; `make gpu` runs it. With GPU_TESTS_ON=cpu a CPU runs the same lines."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from datasets.schema import Batch
from models.encoders import LSTMEncoder
from models.fusion import FUSIONS
from models.objectives import OBJECTIVES
from simclr_trainer import SimCLRConfig
from tests.gpu.test_rehearsal import Fixed, classifier, objective
from tests.random_batches import random_batch
from tests.random_store import write_random_store
from tests.training.toy import same
from training.classify import classify
from training.classify_config import ClassifyConfig
from training.early_stopping import StoppingConfig
from training.loop import _Trainer, fit
from training.optim import OptimConfig
from training.pretraining import pretrain
from utils import checkpoint
from utils.config import parse
from utils.distributed import Process
from utils.run import Run, set_precision
from utils.run_config import RunConfig

DEVICE = torch.device(os.environ.get("GPU_TESTS_ON", "cuda"))
IS_GPU = DEVICE.type == "cuda"
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(IS_GPU and not torch.cuda.is_available(), reason="needs a GPU"),
]
SMALL = ("--image_size", "64", "--batch_size", "8", "--device", DEVICE.type)
SHAPE = ("--ehr_dim", "8", "--vision_backbone", "resnet18")
HOURS, HAS_CXR = [5, 1, 17, 9, 30, 2], [True, False, True, True, False, True]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_store(tmp_path_factory.mktemp("data") / "store")


@pytest.fixture
def exact() -> Iterator[None]:
    """Products in float32, for as long as a test runs."""
    set_precision(RunConfig(precision="float32"), DEVICE)
    yield
    set_precision(RunConfig(), DEVICE)


def pretrained(store: Path, folder: Path, name: str, *flags: str) -> Path:
    """Run simclr_trainer.py for two epochs; return the run's folder."""
    words = (
        "--store",
        str(store),
        "--save_dir",
        str(folder),
        "--name",
        name,
        "--epochs",
        "2",
        *SMALL,
        *SHAPE,
    )
    pretrain(parse(SimCLRConfig, [*words, "--warmup_epochs", "0", "--lr", "0.1", *flags]))
    return folder / name


def on_device(batch: Batch, device: torch.device = DEVICE) -> Batch:
    """Put on a device what datasets.batches puts there."""
    ehr = batch.ehr._replace(
        data=batch.ehr.data.to(device),
        sorted_indices=batch.ehr.sorted_indices.to(device),
        unsorted_indices=batch.ehr.unsorted_indices.to(device),
    )
    moved = {
        name: getattr(batch, name).to(device) for name in Batch._fields if name not in ("ehr", "hours", "row")
    }
    return batch._replace(ehr=ehr, **moved)


@pytest.mark.parametrize(
    "flags",
    [
        "--protocol supervised --fusion late --data_pairs partial --task phenotyping",
        "--protocol supervised --fusion mmtm --task length-of-stay",
        "--protocol finetune",
        "--protocol lineareval --task decompensation",
    ],
)
def test_a_protocol_trains_and_its_evaluation_repeats(store: Path, tmp_path: Path, flags: str) -> None:
    words = [*flags.split(), *SMALL, "--epochs", "2", "--store", str(store)]
    words += ["--save_dir", str(tmp_path), "--results_dir", str(tmp_path / "results")]
    if "supervised" not in flags:
        words += ["--load_state", str(pretrained(store, tmp_path, "pre") / "best.ckpt")]
    classify(parse(ClassifyConfig, [*words, "--name", "train"]))
    if "--load_state" in words:
        words[words.index("--load_state") + 1] = str(tmp_path / "train" / "best.ckpt")
    else:
        words += ["--load_state", str(tmp_path / "train" / "best.ckpt")]
    classify(parse(ClassifyConfig, [*words, "--name", "eval", "--mode", "eval"]))
    trained, evaluated = (
        pd.read_csv(tmp_path / name / "predictions_test.csv")["probability"] for name in ("train", "eval")
    )
    assert trained.between(0, 1).all() and np.allclose(trained, evaluated, atol=1e-4)


def test_a_gpu_repeats_itself_if_asked_to(store: Path, tmp_path: Path) -> None:
    runs = [pretrained(store, tmp_path, name, "--deterministic") for name in ("one", "two")]
    assert same(*(checkpoint.load(run / "last.ckpt") for run in runs))


def test_a_run_that_was_cut_off_resumes_to_the_same_weights(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = pretrained(store, tmp_path, "whole", "--deterministic")
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="power cut"):
        run_epoch = _Trainer.run_epoch

        def cut(trainer: _Trainer) -> None:
            run_epoch(trainer)
            raise RuntimeError("power cut")

        patch.setattr(_Trainer, "run_epoch", cut)
        pretrained(store, tmp_path, "cut", "--deterministic")
    resumed = pretrained(store, tmp_path, "cut", "--deterministic", "--resume")
    assert same(*(checkpoint.load(run / "last.ckpt")["training"] for run in (whole, resumed)))


def test_a_compiled_run_learns_like_an_eager_one(store: Path, tmp_path: Path) -> None:
    losses = [
        pd.read_csv(pretrained(store, tmp_path, name, *flags) / "log.csv")["train_loss"]
        for name, flags in (("eager", ()), ("compiled", ("--compile",)))
    ]
    assert np.allclose(*losses, rtol=0.05)


def modules() -> list[tuple[str, bool]]:
    return [*((name, True) for name in OBJECTIVES), *((name, False) for name in FUSIONS)]


def build(name: str, is_objective: bool) -> nn.Module:
    torch.manual_seed(0)
    return objective(name) if is_objective else classifier(name)


@pytest.mark.parametrize(("name", "is_objective"), modules())
def test_the_host_never_waits_for_the_gpu_in_a_step(
    name: str, is_objective: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the first steps, which choose kernels and reserve memory."""
    step, taken = _Trainer._train_step, []

    def watched(trainer: _Trainer, batch: Batch) -> Tensor:
        taken.append(batch)
        if IS_GPU:
            torch.cuda.set_sync_debug_mode("error" if len(taken) > 2 else "default")
        try:
            return step(trainer, batch)
        finally:
            if IS_GPU:
                torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(_Trainer, "_train_step", watched)
    batch = on_device(random_batch(HOURS, HAS_CXR, labels=4))
    run = Run(RunConfig(), "x", tmp_path, Process(device=DEVICE))
    stopping = StoppingConfig(monitor="train_loss")
    optim = OptimConfig(epochs=1, clip=1.0)
    fit(build(name, is_objective), Fixed(*[batch] * 4), None, optim, stopping, run, save=dict)
    assert len(taken) == 4


@pytest.mark.parametrize(("name", "is_objective"), modules())
def test_a_gpu_has_the_loss_and_the_gradients_of_a_cpu(exact: None, name: str, is_objective: bool) -> None:
    batch = random_batch(HOURS, HAS_CXR, labels=4)
    found = []
    for device in (torch.device("cpu"), DEVICE):
        module = build(name, is_objective).to(device)
        torch.manual_seed(0)
        loss = module(on_device(batch, device))["loss"]
        loss.backward()
        gradients = [weight.grad.flatten() for weight in module.parameters() if weight.grad is not None]
        found.append((loss.item(), torch.cat(gradients).double().cpu()))
    (cpu_loss, cpu), (gpu_loss, gpu) = found
    assert gpu_loss == pytest.approx(cpu_loss, rel=1e-4)
    assert float((cpu - gpu).norm() / cpu.norm()) < 1e-2


def test_a_recurrence_of_many_hours_is_float32() -> None:
    """TF32 products would leave an error of 3e-4, bf16 ones of 3e-3."""
    set_precision(RunConfig(), DEVICE)
    encoder = LSTMEncoder(dim=32)
    batch = random_batch([600, 40, 7], [False] * 3)
    expected = LSTMEncoder(dim=32).double()
    expected.load_state_dict(encoder.state_dict())
    exact_states = expected(batch.ehr.to(torch.float64)).detach()
    states = encoder.to(DEVICE)(on_device(batch).ehr).detach().double().cpu()
    assert float((states - exact_states).norm() / exact_states.norm()) < 2e-5


def test_a_step_is_in_bf16_and_channels_last(tmp_path: Path) -> None:
    module, seen = objective("simclr"), []
    module.encoders["cxr"].stages.register_forward_hook(lambda *call: seen.append(call[2].detach()))
    run = Run(RunConfig(precision="bf16"), "x", tmp_path, Process(device=DEVICE))
    batch = on_device(random_batch(HOURS, HAS_CXR))
    stopping = StoppingConfig(monitor="train_loss")
    fit(module, Fixed(batch), None, OptimConfig(epochs=1), stopping, run, save=dict)
    assert seen[0].dtype == torch.bfloat16 and seen[0].is_contiguous(memory_format=torch.channels_last)
