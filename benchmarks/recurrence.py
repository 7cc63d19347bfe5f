"""Time what a GPU has to decide: how to run the LSTM of a step, which kernels to take, and how to save.

The ways to run the LSTM that training does not use are here, tested, until a GPU shows that they gain.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from benchmarks.random_store import icu_hours
from benchmarks.record import RESULTS, Figure, record
from datasets.batches import packed_rows
from datasets.schema import Batch, channel_count
from models import losses
from models.encoders import CXREncoder, EncoderConfig, build_encoders, run_lstm
from models.heads import build_heads
from models.objectives import OBJECTIVES
from models.objectives.base import PairObjective
from utils import checkpoint
from utils.cli import run_cli
from utils.device import to_device
from utils.distributed import setup
from utils.run import set_precision
from utils.run_config import RunConfig

FEW = 16  # stays for which cuDNN has a persistent kernel of small hidden states, if they are padded
TEMPERATURE = 0.1
SAVED = "resnet34"  # what a checkpoint holds


class Sizes(NamedTuple):
    """What is timed, at the published size on a GPU."""

    hidden: tuple[int, ...] = (128, 256)
    stays: tuple[int, ...] = (16, 64, 256)
    backbone: str = "resnet34"
    image_size: int = 224
    batch_size: int = 256
    repeats: int = 10


@dataclass(frozen=True)
class RecurrenceBenchmark:
    """Time ways to run the LSTM, the image encoder and a save, each against its alternative.

    Stays are as long as those of the open MIMIC-IV demo. On a CPU only the save is timed.
    """

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; auto uses a GPU if there is one."""
    results: Path = RESULTS
    """File to which the measured rows are appended."""


def split_in_time(lstm: nn.LSTM, inputs: PackedSequence, few: int = FEW) -> tuple[PackedSequence, Tensor]:
    """Run an LSTM as run_lstm does, but packed at first, and padded once at most `few` stays go on.

    cuDNN takes its persistent kernels for padded inputs alone. All that is read here lies on the CPU.
    """
    sizes, device = inputs.batch_sizes.numpy(), inputs.data.device
    first_row = np.cumsum(sizes) - sizes
    cut = int((sizes > few).sum())
    head = int(first_row[cut]) if cut < len(sizes) else len(inputs.data)
    state, parts = None, []
    if cut:
        packed, state = lstm(PackedSequence(inputs.data[:head], inputs.batch_sizes[:cut]))
        parts.append(packed.data)
    if cut < len(sizes):
        stays = np.arange(sizes[cut])
        goes_on = stays < sizes[cut:, None]
        rows = np.where(goes_on, first_row[cut:, None] + stays, 0)  # a padded hour reads any row
        padded = inputs.data.index_select(0, to_device(torch.from_numpy(rows.ravel()), device))
        if state is not None:
            state = tuple(part[:, : len(stays)].contiguous() for part in state)
        states, _ = lstm(padded.view(*rows.shape, -1), state)
        real = to_device(torch.from_numpy(np.flatnonzero(goes_on)), device)
        parts.append(states.flatten(0, 1).index_select(0, real))
    data = torch.cat(parts)
    everyone = np.arange(sizes[0])
    length = (everyone < sizes[:, None]).sum(axis=0)
    last = data.index_select(0, to_device(torch.from_numpy(first_row[length - 1] + everyone), device))
    order = inputs.unsorted_indices
    return inputs._replace(data=data), last if order is None else last.index_select(0, order)


def padded_to_longest(lstm: nn.LSTM, inputs: PackedSequence) -> tuple[Tensor, Tensor]:
    """Run an LSTM on all stays padded to the longest, as a padded batch would be; the states are not used."""
    states, (last, _) = lstm(pad_packed_sequence(inputs)[0])
    return states, last[-1]


def loss_on_two_streams(objective: PairObjective, batch: Batch, side: torch.cuda.Stream | None) -> Tensor:
    """Return SimCLR's loss with the LSTM on a stream of its own, queued before the images; None on a CPU."""
    main = torch.cuda.current_stream() if side else None
    if side and main:
        side.wait_stream(main)
    with torch.cuda.stream(side):
        ehr = objective.heads["ehr"](objective.encoders["ehr"](batch.ehr))
    image = objective.heads["cxr"](objective.encoders["cxr"](batch.cxr))
    if side and main:
        main.wait_stream(side)
        ehr.record_stream(main)
    return losses.simclr(image, ehr, TEMPERATURE)


def random_stays(count: int, device: torch.device, seed: int = 0) -> tuple[PackedSequence, np.ndarray]:
    """Return random hours of stays as long as ICU stays, packed as a batch packs them, and their lengths."""
    bins = icu_hours(np.random.default_rng(seed), count).astype(np.int64)
    order = np.argsort(-bins, kind="stable")
    rows, sizes = packed_rows(np.zeros(count, np.int64), bins[order], np.full(count, -1))
    indices = (torch.from_numpy(array).to(device) for array in (order, np.argsort(order)))
    data = torch.randn(len(rows), channel_count(), device=device)
    return PackedSequence(data, torch.from_numpy(sizes), *indices), bins


def random_pairs(sizes: Sizes, device: torch.device) -> Batch:
    """Return a batch of pairs of random hours and images."""
    stays, bins = random_stays(sizes.batch_size, device)
    present = torch.ones(sizes.batch_size, dtype=torch.bool, device=device)
    zeros = torch.zeros(sizes.batch_size, device=device)
    images = torch.rand(sizes.batch_size, 1, sizes.image_size, sizes.image_size, device=device)
    row = torch.arange(sizes.batch_size)
    everyone = row.to(device)
    return Batch(
        ehr=stays,
        stay=everyone,
        last=(torch.from_numpy(bins) - 1).to(device),
        hours=torch.from_numpy(bins),
        cxr=images,
        image=everyone,
        paired=everyone,
        has_ehr=present,
        has_cxr=present,
        labels=zeros[:, None],
        row=row,
        gap_days=zeros,
    )


def seconds(work: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Return the mean seconds of some work, after three warm-ups, until the device has done all of it."""
    for _ in range(3):
        work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(repeats):
        work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / repeats


def time_lstm(hidden: int, count: int, sizes: Sizes, device: torch.device) -> list[Figure]:
    """Time the LSTM of a batch, forward and backward, packed as in training and in the other ways."""
    lstm = nn.LSTM(channel_count(), hidden).to(device)
    stays, _ = random_stays(count, device, seed=count)

    def learn(run: Callable[[nn.LSTM, PackedSequence], tuple[Any, Tensor]]) -> float:
        return seconds(lambda: run(lstm, stays)[1].sum().backward(), device, sizes.repeats)

    work = f"LSTM of {count} stays, {hidden} hidden units, forward and backward"
    ours = learn(run_lstm)
    others = {f"split in time at {FEW} stays": split_in_time, "padded to the longest": padded_to_longest}
    figures = [Figure(work, "s", ours, name, learn(run)) for name, run in others.items()]
    cudnn: Any = torch.backends.cudnn  # torch's stubs lack this setting
    cudnn.rnn.fp32_precision = "tf32"
    figures.append(Figure(work, "s", ours, "products in TF32", learn(run_lstm)))
    cudnn.rnn.fp32_precision = "ieee"
    return figures


def time_images(sizes: Sizes, device: torch.device) -> list[Figure]:
    """Time the image encoder: eager and compiled, and batches of changing size with and without tuning."""
    encoder = CXREncoder(sizes.backbone).to(device)
    images = torch.rand(sizes.batch_size, 1, sizes.image_size, sizes.image_size, device=device)

    def learn(count: int = sizes.batch_size) -> None:
        with torch.autocast(device.type, torch.bfloat16):
            features = encoder(images[:count])
        features.sum().backward()

    def changing() -> float:
        counts = np.random.default_rng(0).binomial(sizes.batch_size, 0.18, 30)  # 18 % have an X-ray: assumed
        start = time.perf_counter()
        for count in counts:
            learn(int(count))
        if device.type == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - start) / len(counts)

    name = f"{sizes.backbone} at {sizes.image_size}, bf16, forward and backward"
    eager = seconds(learn, device, sizes.repeats)
    tuned = changing()
    torch.backends.cudnn.benchmark = False
    untuned = changing()
    torch.backends.cudnn.benchmark = True
    encoder.stages.compile()
    compiled = seconds(learn, device, sizes.repeats)
    return [
        Figure(f"{name}, batch {sizes.batch_size}", "s", eager, "compiled", compiled),
        Figure(f"{name}, 30 batches of changing size", "s", tuned, "without cudnn.benchmark", untuned),
    ]


def time_step(sizes: Sizes, device: torch.device) -> list[Figure]:
    """Time SimCLR's forward and backward pass on one stream and on two; the losses must agree."""
    encoders = build_encoders(EncoderConfig(vision_backbone=sizes.backbone))
    objective = OBJECTIVES["simclr"]().build(encoders, build_heads(encoders, 1)).to(device)
    batch = random_pairs(sizes, device)
    side = torch.cuda.Stream(priority=-1) if device.type == "cuda" else None

    def one() -> Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            loss: Tensor = objective(batch)["loss"]
        loss.backward()
        return loss

    def two() -> Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            loss = loss_on_two_streams(objective, batch, side)
        loss.backward()
        return loss

    torch.testing.assert_close(one(), two(), rtol=1e-3, atol=1e-3)
    ours = seconds(one, device, sizes.repeats)
    peak = torch.cuda.max_memory_allocated() / 2**20 if side else None
    name = f"SimCLR, {sizes.backbone} at {sizes.image_size}, batch {sizes.batch_size}, forward and backward"
    other = seconds(two, device, sizes.repeats)
    return [Figure(name, "s", ours, "the LSTM on a second stream", other, peak)]


def time_save(device: torch.device, folder: Path) -> list[Figure]:
    """Time how long training stands still for a checkpoint: written by the thread, or before it goes on."""
    weights = CXREncoder(SAVED).to(device).state_dict()
    content = {"parts": {"cxr_encoder": weights}, "config": {}, "epoch": 0}
    with checkpoint.Writer() as writer:
        times = []
        for _ in range(3):
            start = time.perf_counter()
            writer.save(folder / "thread.ckpt", content)
            times.append(time.perf_counter() - start)
            writer.wait()
    at_once = seconds(lambda: checkpoint.save(folder / "at_once.ckpt", content), device, 2)
    work = f"training stands still for a checkpoint of {SAVED}, from {place(device)}"
    return [Figure(work, "s", float(np.median(times)), "written before it goes on", at_once)]


def place(device: torch.device) -> str:
    """Return the name of a device for a row."""
    return torch.cuda.get_device_name() if device.type == "cuda" else "a CPU"


def measure_gpu(sizes: Sizes, device: torch.device) -> list[Figure]:
    """Measure all figures of a GPU."""
    set_precision(RunConfig(), device)
    figures = [
        figure
        for hidden in sizes.hidden
        for count in sizes.stays
        for figure in time_lstm(hidden, count, sizes, device)
    ]
    figures += [*time_step(sizes, device), *time_images(sizes, device)]
    return [on(figure, place(device)) for figure in figures]


def on(figure: Figure, machine: str) -> Figure:
    """Return a figure that says on what it was measured."""
    return Figure(
        f"{figure.work} ({machine})", figure.unit, figure.ours, figure.against, figure.other, figure.peak_mb
    )


def not_measured() -> list[Figure]:
    """Return the rows of a GPU where there is none."""
    lstm = "LSTM of 256 stays, 128 hidden units, forward and backward"
    images = "resnet34 at 224, bf16, forward and backward"
    pairs = [
        (lstm, f"split in time at {FEW} stays"),
        (lstm, "padded to the longest"),
        (lstm, "products in TF32"),
        (f"{images}, batch 256", "compiled"),
        (f"{images}, 30 batches of changing size", "without cudnn.benchmark"),
        ("SimCLR, resnet34 at 224, batch 256, forward and backward", "the LSTM on a second stream"),
    ]
    return [Figure(f"{work} (a GPU)", "s", None, against, None) for work, against in pairs]


def main(config: RecurrenceBenchmark) -> None:
    """Measure, print and append the rows."""
    device = setup(config.device).device
    with tempfile.TemporaryDirectory() as folder:
        figures = measure_gpu(Sizes(), device) if device.type == "cuda" else not_measured()
        figures += time_save(device, Path(folder))
    record(config.results, "recurrence", ("torch", "torchvision", "numpy"), figures)


if __name__ == "__main__":
    run_cli(main, RecurrenceBenchmark)
