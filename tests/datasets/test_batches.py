"""Each sample comes once, with its own hours and image, the same for any number of ranks, from any place."""

import shutil
import sys
import threading
from collections.abc import Iterable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import get_args, get_type_hints

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.utils.rnn import pack_sequence, unpack_sequence

from datasets import augment, image_batch, placement
from datasets.augment import centre_view, random_views, warp
from datasets.batches import VIEWS, Batches, By, check_batch_size, packed_rows, split_evenly
from datasets.data_config import SAMPLE_SELECTIONS, DataConfig
from datasets.image_batch import ImageBatch
from datasets.samples import Samples, load_samples
from datasets.schema import SPLITS, Batch, channel_count
from datasets.store import Store
from tasks import TASKS
from tests.random_batches import take_samples
from tests.stores import refresh_manifests, write_store

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store.open(write_store(tmp_path_factory.mktemp("batches") / "tiny"))


def config(store: Store, **changes: object) -> DataConfig:
    return replace(DataConfig(store.folder, batch_size=7, image_size=32), **changes)


def samples_of(
    store: Store, task: str = "phenotyping", split: str = "train", seed: int = 0, **changes: object
) -> Samples:
    return load_samples(store, TASKS[task], split, config(store, **changes), seed)


def batches_of(
    store: Store,
    task: str = "phenotyping",
    split: str = "train",
    *,
    train: bool = True,
    seed: int = 0,
    rank: int = 0,
    world: int = 1,
    by: By = "sample",
    **changes: object,
) -> Batches:
    samples = samples_of(store, task, split, seed, **changes)
    own = config(store, **changes)
    return Batches(store, samples, own, seed=seed, device=CPU, train=train, rank=rank, world=world, by=by)


def hours_of(batch: Batch) -> list[Tensor]:
    """The hours of each sample."""
    stays = unpack_sequence(batch.ehr)
    assert torch.equal(batch.last, batch.hours - 1)
    return [stays[stay][:hours] for stay, hours in zip(batch.stay, batch.hours, strict=True)]


def one_view(image: np.ndarray, size: int, crop: float = 224 / 256, square: bool = True) -> Tensor:
    """The central view of an image, by default squeezed to a square."""
    return centre_view(ImageBatch.of(torch.tensor(image)[None]), size, crop, square)


def same(a: Batch, b: Batch) -> bool:
    """Whether two batches are equal bit for bit."""
    if (a.ehr is None, a.cxr is None) != (b.ehr is None, b.cxr is None):
        return False
    pairs = [(x, y) for x, y in zip(a, b, strict=True) if isinstance(x, Tensor)]
    pairs += list(zip(a.ehr, b.ehr, strict=True)) if a.ehr is not None else []
    return all(x.shape == y.shape and torch.equal(bits(x), bits(y)) for x, y in pairs)


def bits(values: Tensor) -> Tensor:
    return values.view(torch.int32) if values.dtype == torch.float32 else values


def of_samples(parts: Iterable[Batch]) -> Batch:
    """The batch of all ranks, in which each sample has hours and an image of its own."""
    parts = [take_samples(part, range(len(part.row))) for part in parts if len(part.row)]
    names = ("hours", "last", "cxr", "has_ehr", "has_cxr", "labels", "row", "gap_days")
    plain = {name: torch.cat([getattr(part, name) for part in parts]) for name in names}
    present = plain["has_cxr"]
    return Batch(
        ehr=pack_sequence(
            [stay for part in parts for stay in unpack_sequence(part.ehr)], enforce_sorted=False
        ),
        stay=torch.arange(len(present)),
        image=torch.where(present, present.cumsum(0) - 1, -1),
        paired=present.nonzero()[:, 0],
        **plain,
    )


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 12), st.booleans()), min_size=1, max_size=9), st.randoms())
def test_packed_rows_are_those_of_torch(stays: list[tuple[int, bool]], random: object) -> None:
    bins = np.array([length for length, _ in stays])
    offset = np.array(random.sample(range(0, 20 * len(stays), 20), len(stays)))
    tail = np.array([1000 + place if cut else -1 for place, (_, cut) in enumerate(stays)])
    rows = [torch.arange(o, o + n) for o, n in zip(offset, bins, strict=True)]
    for own, end in zip(rows, tail, strict=True):
        own[-1] = end if end >= 0 else own[-1]
    order = np.argsort(-bins, kind="stable")
    expected = pack_sequence([rows[place] for place in order])
    found, batch_sizes = packed_rows(offset[order], bins[order], tail[order])
    assert found.tolist() == expected.data.tolist()
    assert batch_sizes.tolist() == expected.batch_sizes.tolist()


@pytest.mark.parametrize("task", TASKS)
def test_a_sample_has_its_own_hours_up_to_its_time_and_no_other(store: Store, task: str) -> None:
    rows = store.listfile(task, "train")
    mean, deviation = store.normalizer()
    stays = store.stays()
    seen = 0
    for batch in batches_of(store, task, data_pairs="ehr_all").epoch(0):
        for row, hours in zip(batch.row.tolist(), hours_of(batch), strict=True):
            sample = rows.iloc[row]
            offset = stays["offset"][sample["stay_row"]]
            own = store.hourly[offset : offset + sample["bins"]].copy()
            if sample["partial_bin_row"] >= 0:
                own[-1] = store.partial_bins(task)[sample["partial_bin_row"]]
            assert (own[:, 0] == sample["stay_row"]).all()
            assert torch.equal(hours, torch.from_numpy((own - mean) / deviation))
            seen += 1
    assert seen == len(rows)


def test_some_samples_end_inside_a_bin(store: Store) -> None:
    assert (samples_of(store, "radiology").partial_bin_row >= 0).any()


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("pairs", SAMPLE_SELECTIONS)
def test_each_sample_comes_once_with_its_labels(store: Store, task: str, pairs: str) -> None:
    batches = batches_of(store, task, "val", data_pairs=pairs)
    found = list(batches.epoch(0))
    row = torch.cat([batch.row for batch in found]).numpy()
    assert len(found) == len(batches) and sorted(row) == list(range(len(batches.samples)))
    labels = torch.cat([batch.labels for batch in found]).numpy()
    assert np.array_equal(labels, batches.samples.labels[row], equal_nan=True)
    assert labels.dtype == np.float32
    assert np.array_equal(torch.cat([batch.hours for batch in found]), batches.samples.bins[row])


def test_packed_hours_can_go_into_an_lstm(store: Store) -> None:
    batch = next(batches_of(store).epoch(0))
    lstm = torch.nn.LSTM(channel_count(), 3)
    last = lstm(batch.ehr)[1][0][0]
    alone = torch.cat([lstm(hours[:, None])[1][0][0] for hours in hours_of(batch)])
    assert torch.allclose(last[batch.stay], alone, atol=1e-6)


def test_every_image_is_that_of_its_sample(store: Store) -> None:
    batches = batches_of(
        store, "length-of-stay", train=False, data_pairs="partial", image_size=224, batch_size=64
    )
    batch = next(batches.epoch(0, 1))
    image = batches.samples.cxr_row[batch.row][batch.has_cxr]
    assert 0 < len(image) < 64 and (batches.samples.cxr_row[batch.row][~batch.has_cxr] == -1).all()
    expected = [one_view(store.cxr[row], 224) for row in image]
    assert torch.allclose(batch.cxr, torch.cat(expected), atol=1e-4)
    assert torch.equal(torch.isnan(batch.gap_days), ~batch.has_cxr)


@pytest.mark.parametrize(
    ("changes", "crop", "square"),
    [
        ({}, None, True),
        ({"transforms_cxr": "supervised"}, None, False),
        ({"cxr_shape": "kept"}, None, False),
        ({"transforms_cxr": "supervised", "cxr_shape": "square"}, None, True),
        ({}, 1.0, False),
        ({}, 0.0, False),
    ],
)
def test_views_have_the_published_shape_unless_a_flag_or_an_encoder_says_another(
    store: Store, changes: dict, crop: float | None, square: bool
) -> None:
    made = config(store, data_pairs="cxr", image_size=224, **changes)
    samples = samples_of(store, data_pairs="cxr")
    batch = next(Batches(store, samples, made, seed=0, device=CPU, train=False, crop=crop).epoch(0))
    shown = 224 / 256 if crop is None else crop
    expected = [one_view(store.cxr[samples.cxr_row[row]], 224, shown, square) for row in batch.row]
    assert torch.allclose(batch.cxr, torch.cat(expected), atol=1e-4)


def test_a_corrected_store_keeps_the_shape_of_its_images() -> None:
    for protocol, square in (("medmod", True), ("corrected", False)):
        assert DataConfig(transforms_cxr="simclrv2").squeezes_cxr(protocol) == square
        assert not DataConfig(transforms_cxr="supervised").squeezes_cxr(protocol)
        assert DataConfig(cxr_shape="square").squeezes_cxr(protocol)


def test_training_views_are_those_drawn_for_the_shape_of_their_image(store: Store) -> None:
    made = config(store, data_pairs="cxr", transforms_cxr="supervised", image_size=64)
    samples = samples_of(store, data_pairs="cxr")
    batch = next(Batches(store, samples, made, seed=3, device=CPU, train=True).epoch(1))
    images = [store.cxr[row] for row in samples.cxr_row[batch.row]]
    aspect = np.array([[image.shape[1], image.shape[0]] for image in images]) / 256
    views = random_views(np.random.default_rng((3, 1, VIEWS, 0)), aspect, "supervised")
    for row, image in enumerate(images):
        alone = ImageBatch.of(torch.tensor(image)[None])
        expected = warp(alone, views.take(slice(row, row + 1)), 64)
        assert torch.allclose(batch.cxr[row : row + 1], expected, atol=1e-4)


def test_a_batch_without_images_is_empty_of_them(store: Store) -> None:
    samples = samples_of(store, data_pairs="partial")
    unpaired = samples.take(samples.cxr_row < 0)
    made = config(store, data_pairs="partial")
    for train in (True, False):
        batch = next(Batches(store, unpaired, made, seed=0, device=CPU, train=train).epoch(0))
        assert batch.cxr.shape == (0, 1, 32, 32) and not batch.has_cxr.any() and batch.has_ehr.all()


def tensors_of(value: object) -> list[Tensor]:
    """Return the tensors of nested tuples and dataclasses."""
    if isinstance(value, Tensor):
        return [value]
    parts = value if isinstance(value, tuple) else vars(value).values() if hasattr(value, "__dict__") else ()
    return [tensor for part in parts for tensor in tensors_of(part)]


def test_nothing_that_goes_to_a_device_is_float64_which_apples_lack(store: Store) -> None:
    types = {tensor.dtype for tensor in tensors_of(next(batches_of(store, data_pairs="partial").epoch(0)))}
    assert torch.float32 in types and torch.float64 not in types


def test_a_batch_is_shared_by_no_more_processes_than_it_has_samples() -> None:
    check_batch_size(2, 2)
    with pytest.raises(
        ValueError, match=r"--batch_size 1 is that of all 2 processes together; use 2 or more"
    ):
        check_batch_size(1, 2)


@pytest.mark.parametrize(("pairs", "ehr", "cxr"), [("ehr", True, False), ("cxr_all", False, True)])
def test_what_is_not_asked_for_is_not_there(store: Store, pairs: str, ehr: bool, cxr: bool) -> None:
    batch = next(batches_of(store, data_pairs=pairs).epoch(0))
    assert (batch.ehr is not None, batch.cxr is not None) == (ehr, cxr)
    assert batch.has_ehr.all() == ehr and batch.has_cxr.all() == cxr
    assert len(batch.hours) == 7


def test_batches_are_made_on_one_core_beside_a_model_that_has_all(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: list[int] = []
    make = Batches._batch

    def counted(self: Batches, *arguments: object) -> Batch:
        counts.append(torch.get_num_threads())
        return make(self, *arguments)

    monkeypatch.setattr(Batches, "_batch", counted)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert len(list(batches_of(store, "phenotyping").epoch(0))) == len(counts)
        assert set(counts) == {1} and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_the_gap_is_the_time_from_image_to_prediction(store: Store) -> None:
    samples = samples_of(store, "decompensation")
    hours = store.images()["hours"].to_numpy()[samples.cxr_row]
    assert (samples.end_hours >= hours).all()
    assert samples.gap_days == pytest.approx((samples.end_hours - hours) / 24, abs=1e-6)
    assert not samples_of(store, "radiology").gap_days.any()


def test_length_of_stay_is_encoded_and_kept_in_hours(store: Store) -> None:
    samples = samples_of(store, "length-of-stay")
    assert set(np.unique(samples.labels)) <= set(range(10)) and samples.raw_labels.max() > 24
    assert np.array_equal(samples.labels, TASKS["length-of-stay"].encode(samples.raw_labels))


@pytest.mark.parametrize("task", ["phenotyping", "decompensation"])
def test_pairs_choose_samples(store: Store, task: str) -> None:
    rows = store.listfile(task, "test")
    with_image = int((rows["cxr_row"] >= 0).sum())
    assert 0 < with_image < len(rows)
    for pairs in ("paired", "ehr", "cxr"):
        assert len(samples_of(store, task, "test", data_pairs=pairs)) == with_image
    for pairs in ("partial", "ehr_all"):
        assert len(samples_of(store, task, "test", data_pairs=pairs)) == len(rows)


@pytest.mark.parametrize("pairs", ["paired", "cxr", "partial"])
def test_retrieving_all_images_gives_each_one_up_to_the_prediction(store: Store, pairs: str) -> None:
    images, rows = store.images(), store.listfile("decompensation", "train")
    expected = []
    for sample in rows.itertuples():
        before = (images["stay_row"] == sample.stay_row) & (images["hours"] <= sample.end_hours)
        found = np.flatnonzero(before).tolist()
        expected += [(sample.stay_id, sample.end_hours, image) for image in found]
        if not found and pairs == "partial":
            expected.append((sample.stay_id, sample.end_hours, -1))
    samples = samples_of(store, "decompensation", data_pairs=pairs, retrieve_cxr="all")
    assert list(zip(samples.stay_id, samples.end_hours, samples.cxr_row, strict=True)) == expected
    gaps = samples.end_hours - images["hours"].to_numpy()[samples.cxr_row]
    paired = samples.cxr_row >= 0
    assert samples.gap_days[paired] == pytest.approx(gaps[paired] / 24, abs=1e-6)
    assert np.isnan(samples.gap_days[~paired]).all()


def test_cxr_all_has_every_image_of_the_split(store: Store) -> None:
    images, splits = store.images(), store.stays()["split"].to_numpy()
    samples = samples_of(store, "phenotyping", "train", data_pairs="cxr_all")
    own = np.flatnonzero(splits[images["stay_row"]] == "train")
    assert samples.cxr_row.tolist() == own.tolist()
    assert len(samples) > len(samples_of(store, "phenotyping", "train", data_pairs="cxr"))


def test_a_task_about_images_keeps_the_one_it_is_about(store: Store) -> None:
    recent = samples_of(store, "radiology")
    every = samples_of(store, "radiology", retrieve_cxr="all")
    assert np.array_equal(recent.cxr_row, every.cxr_row)
    assert len(np.unique(store.images()["stay_row"][recent.cxr_row])) < len(recent)


@settings(max_examples=25, deadline=None)
@given(ratio=st.floats(0, 1), seed=st.integers(0, 99), pairs=st.sampled_from(["partial", "ehr_all"]))
def test_a_ratio_thins_out_unpaired_train_samples_alone(
    store: Store, ratio: float, seed: int, pairs: str
) -> None:
    whole = samples_of(store, "decompensation", data_pairs=pairs)
    thin = samples_of(store, "decompensation", seed=seed, data_pairs=pairs, data_ratio=ratio)
    assert np.array_equal(thin.cxr_row[thin.cxr_row >= 0], whole.cxr_row[whole.cxr_row >= 0])
    stays, kept = (np.unique(part.stay_id[part.cxr_row < 0]) for part in (whole, thin))
    assert len(kept) == round(ratio * len(stays))
    dropped = (whole.cxr_row < 0) & np.isin(whole.stay_id, np.setdiff1d(stays, kept))
    assert len(thin) == len(whole) - dropped.sum()
    names = [list(zip(part.stay_id, part.end_hours, strict=True)) for part in (thin, whole)]
    assert names[0] == [name for name in names[1] if name in set(names[0])]
    val = [samples_of(store, "decompensation", "val", data_pairs=pairs, data_ratio=r) for r in (ratio, 1)]
    assert len(val[0]) == len(val[1])


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_every_nth_hour_thins_out_the_hourly_tasks_alone(store: Store, split: str) -> None:
    for task in TASKS:
        whole, thin = (samples_of(store, task, split, data_pairs="partial", every_hours=n) for n in (1, 5))
        hourly = task in ("decompensation", "length-of-stay")
        kept = whole.end_hours % 5 == 0 if hourly else np.ones(len(whole), bool)
        assert kept.sum() > 0 and np.array_equal(thin.labels, whole.labels[kept], equal_nan=True)
        assert np.array_equal(thin.end_hours, whole.end_hours[kept])


@settings(max_examples=25, deadline=None)
@given(rate=st.floats(0, 1), more=st.floats(0, 1), seed=st.integers(0, 99))
def test_a_stay_keeps_or_loses_its_xrays_whole(store: Store, rate: float, more: float, seed: int) -> None:
    whole = samples_of(store, "decompensation", "test", data_pairs="partial")
    few, many = (
        samples_of(store, "decompensation", "test", seed, data_pairs="partial", drop_cxr=(0.3, 0.3, r))
        for r in (min(rate, more), max(rate, more))
    )
    stays = np.unique(whole.stay_id[whole.cxr_row >= 0])
    lost = whole.stay_id[few.cxr_row != whole.cxr_row]
    assert len(np.unique(lost)) == round(min(rate, more) * len(stays))
    assert np.array_equal(np.isin(whole.stay_id, lost) & (few.cxr_row >= 0), np.zeros(len(whole), bool))
    assert np.array_equal(np.isnan(few.gap_days), few.cxr_row < 0)
    assert not ((many.cxr_row >= 0) & (few.cxr_row < 0)).any()
    assert np.array_equal(few.labels, whole.labels, equal_nan=True)


def test_each_split_loses_its_own_fraction_of_xrays(store: Store) -> None:
    left = {
        split: samples_of(store, split=split, data_pairs="partial", drop_cxr=(0.0, 0.5, 1.0)).cxr_row >= 0
        for split in ("train", "val", "test")
    }
    whole = samples_of(store, data_pairs="partial").cxr_row >= 0
    assert np.array_equal(left["train"], whole) and not left["test"].any() and left["val"].any()


def test_the_ratio_is_drawn_with_the_seed(store: Store) -> None:
    ids = [
        samples_of(store, seed=seed, data_pairs="partial", data_ratio=0.5).stay_id.tolist()
        for seed in (1, 1, 2)
    ]
    assert ids[0] == ids[1] != ids[2]


def test_evaluation_keeps_the_order_of_samples(store: Store) -> None:
    batches = batches_of(store, train=False)
    for epoch in (0, 3):
        assert torch.cat([batch.row for batch in batches.epoch(epoch)]).tolist() == list(
            range(len(batches.samples))
        )


def test_training_shuffles_anew_each_epoch_and_by_seed(store: Store) -> None:
    def order(seed: int, epoch: int) -> list[int]:
        return torch.cat([batch.row for batch in batches_of(store, seed=seed).epoch(epoch)]).tolist()

    orders = [order(0, 0), order(0, 1), order(1, 0)]
    assert order(0, 0) == orders[0] and all(sorted(rows) == sorted(orders[0]) for rows in orders)
    assert len({tuple(rows) for rows in orders}) == 3 and orders[0] != sorted(orders[0])


def test_views_change_with_epoch_and_step_and_are_not_those_of_evaluation(store: Store) -> None:
    one = samples_of(store).take(np.zeros(14, np.int64))  # the same stay and image fourteen times
    train, evaluation = (
        Batches(store, one, config(store), seed=0, device=CPU, train=train) for train in (True, False)
    )
    views = torch.cat([batch.cxr for epoch in (0, 1) for batch in train.epoch(epoch)])
    assert len(torch.unique(views.flatten(1), dim=0)) == 28
    central = torch.cat([batch.cxr for batch in evaluation.epoch(0)])
    assert len(torch.unique(central.flatten(1), dim=0)) == 1


def test_batches_by_stay_hold_whole_stays_and_each_input_once(store: Store) -> None:
    batches = batches_of(store, "decompensation", by="stay", data_pairs="partial", batch_size=60)
    samples, rows, shared = batches.samples, [], 0
    for batch in batches.epoch(0):
        stay_id, cxr_row = samples.stay_id[batch.row], samples.cxr_row[batch.row]
        assert set(np.flatnonzero(np.isin(samples.stay_id, stay_id))) == set(batch.row.tolist())
        assert len(unpack_sequence(batch.ehr)) == len(set(stay_id))
        assert len(batch.cxr) == len(set(cxr_row[cxr_row >= 0])) == len(batch.cxr.flatten(1).unique(dim=0))
        assert torch.equal(batch.paired, batch.has_cxr.nonzero()[:, 0])
        rows += batch.row.tolist()
        shared += len(batch.row) > len(batch.cxr) > 0
    assert sorted(rows) == list(range(len(samples))) and shared and len(batches) == -(-len(samples) // 60)
    again = [batch.row for batch in batches_of(store, "decompensation", by="stay", batch_size=60).epoch(1)]
    assert rows != torch.cat(again).tolist()


@pytest.mark.parametrize("task", ["decompensation", "radiology"])
@pytest.mark.parametrize("by", ["stay", "input"])
def test_samples_have_the_same_inputs_in_every_kind_of_batch(store: Store, task: str, by: By) -> None:
    kinds = (
        batches_of(store, task, "test", train=False, by=kind, data_pairs="partial", batch_size=1000)
        for kind in ("sample", by)
    )
    one, other = ([*batches.epoch(0)] for batches in kinds)
    one, other = of_samples(one), of_samples(other)
    in_order = (take_samples(batch, batch.row.argsort().tolist()) for batch in (one, other))
    assert same(*in_order)


def test_batches_of_inputs_hold_as_many_stays_as_asked_for_and_not_too_many_samples(store: Store) -> None:
    batches = batches_of(store, "length-of-stay", by="input", train=False, data_pairs="partial", batch_size=4)
    for batch in batches.epoch(0):
        assert len(batch.row) <= 16 * 4 + 72 and len(unpack_sequence(batch.ehr)) <= 5
    phenotyping = batches_of(store, by="input", train=False, data_pairs="partial")
    assert [len(batch.row) for batch in phenotyping.epoch(0)] == [6] * 6


@given(st.lists(st.integers(1, 60), min_size=1, max_size=40), st.data())
def test_stays_are_split_into_parts_of_about_the_same_weight(stays: list[int], data: st.DataObject) -> None:
    weights, parts = np.array(stays), data.draw(st.integers(1, len(stays)))
    cuts = split_evenly(weights, parts)
    found = np.add.reduceat(weights, cuts[:-1])
    assert cuts[0] == 0 and cuts[-1] == len(weights) and (np.diff(cuts) > 0).all() and len(found) == parts
    assert (np.abs(found - weights.sum() / parts) <= weights.max()).all()


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("epoch", [0, 2])
@pytest.mark.parametrize("by", get_args(By))
def test_the_rest_of_an_epoch_is_its_tail(store: Store, train: bool, epoch: int, by: By) -> None:
    batches = batches_of(store, "decompensation", "val", train=train, data_pairs="partial", by=by)
    whole = list(batches.epoch(epoch))
    for start in (1, 5, len(batches) - 1, len(batches)):
        rest = list(batches.epoch(epoch, start))
        assert len(rest) == len(whole) - start
        assert all(same(a, b) for a, b in zip(whole[start:], rest, strict=True))


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("world", [2, 3, 5])
def test_the_batches_of_all_ranks_are_those_of_one(store: Store, train: bool, world: int) -> None:
    options = {"task": "phenotyping", "train": train, "data_pairs": "partial"}
    one = batches_of(store, **options)
    ranks = [list(batches_of(store, **options, rank=rank, world=world).epoch(1)) for rank in range(world)]
    assert all(len(parts) == len(one) for parts in ranks)
    last = len(one.samples) % 7
    assert last and [len(parts[-1].row) for parts in ranks] == [
        len(p) for p in np.array_split(range(last), world)
    ]
    for parts, whole in zip(zip(*ranks, strict=True), one.epoch(1), strict=True):
        assert len(parts[0].row) - len(parts[-1].row) in (0, 1)
        assert same(of_samples(parts), of_samples([whole]))


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(1, 40),
    batch_size=st.integers(1, 45),
    world=st.integers(1, 6),
    seed=st.integers(0, 9),
    epoch=st.integers(0, 9),
    train=st.booleans(),
    by=st.sampled_from(get_args(By)),
    done=st.floats(0, 1),
)
def test_every_sample_comes_once_whatever_the_batch_and_the_processes(
    store: Store,
    count: int,
    batch_size: int,
    world: int,
    seed: int,
    epoch: int,
    train: bool,
    by: By,
    done: float,
) -> None:
    own = config(store, batch_size=batch_size, data_pairs="ehr_all")
    samples = samples_of(store, "decompensation", data_pairs="ehr_all").take(slice(0, count))
    settings = {"seed": seed, "device": CPU, "train": train, "by": by}
    whole = [batch.row for batch in Batches(store, samples, own, **settings).epoch(epoch)]
    start = round(done * len(whole))
    ranks = [Batches(store, samples, own, **settings, rank=r, world=world) for r in range(world)]
    steps = list(zip(*(batches.epoch(epoch, start) for batches in ranks), strict=True))
    assert torch.cat(whole).sort().values.tolist() == list(range(len(samples)))
    assert by != "sample" or all(len(rows) == batch_size for rows in whole[:-1])
    assert len(steps) == len(whole) - start == len(ranks[0]) - start
    for parts, rows in zip(steps, whole[start:], strict=True):
        if train and by != "sample" and len(rows) < world:
            assert not any(len(part.row) for part in parts)
            continue
        assert torch.equal(torch.cat([part.row for part in parts]), rows)
        counts = [len(part.row) for part in parts]
        assert max(counts) - min(counts) <= 1 or (by != "sample" and min(counts) > 0)


def test_a_rank_without_a_sample_gets_an_empty_batch(store: Store) -> None:
    samples = samples_of(store).take(slice(0, 1))
    batch = next(
        Batches(store, samples, config(store), seed=0, device=CPU, train=True, rank=1, world=2).epoch(0)
    )
    assert batch.ehr.data.shape == (0, channel_count()) and not len(batch.ehr.batch_sizes)
    assert batch.cxr.shape == (0, 1, 32, 32) and batch.labels.shape == (0, 25) and not len(batch.row)


@pytest.mark.parametrize("place", ["cpu", "disk"])
@pytest.mark.parametrize("train", [True, False])
def test_no_sample_of_a_batch_is_handled_by_itself(
    store: Store, monkeypatch: pytest.MonkeyPatch, place: str, train: bool
) -> None:
    """A batch of 8 samples takes as many calls, of Python and of C, as one of 64."""
    monkeypatch.setattr(augment, "CHUNK_SIZES", {})  # warp as on a GPU, not eight images of one shape at once
    monkeypatch.setattr(image_batch, "_copied", image_batch._gathered)
    made = []
    for size in (8, 8, 64):  # the first one fills caches
        options = {"data_pairs": "paired", "data_device": place, "batch_size": size, "train": train}
        batches, calls = batches_of(store, "decompensation", **options), []
        rows = np.arange(size)
        sys.setprofile(lambda frame, event, _, calls=calls: calls.append(event))
        try:
            batch = batches._batch(rows, 0, 0)
        finally:
            sys.setprofile(None)
        assert len(batch.row) == size
        made.append(sum(event in ("call", "c_call") for event in calls))
    assert made[1] == made[2] < 1000


def test_memory_serves_samples_in_any_order(store: Store) -> None:
    samples = samples_of(store, "decompensation").take(slice(None, None, -1))
    places = (config(store, data_device=place) for place in ("cpu", "disk"))
    both = (Batches(store, samples, own, seed=0, device=CPU, train=False).epoch(0) for own in places)
    assert all(same(a, b) for a, b in zip(*both, strict=True))


@pytest.mark.parametrize("task", ["radiology", "length-of-stay"])
def test_data_on_disk_are_those_in_memory(store: Store, task: str) -> None:
    options = {"task": task, "data_pairs": "partial"}
    both = [batches_of(store, **options, data_device=place) for place in ("cpu", "disk")]
    assert [batches.placement for batches in both] == ["cpu", "disk"]
    assert all(same(a, b) for a, b in zip(*(batches.epoch(0) for batches in both), strict=True))


def test_memory_holds_what_the_split_needs_and_no_more(store: Store) -> None:
    samples = samples_of(store, "radiology", "val")
    batches = batches_of(store, "radiology", "val", data_device="cpu")
    longest = {}
    for offset, bins in zip(samples.offset, samples.bins, strict=True):
        longest[offset] = max(bins, longest.get(offset, 0))
    tails = len(set(samples.partial_bin_row[samples.partial_bin_row >= 0]))
    assert len(batches._hours.held) == sum(longest.values()) + tails
    assert len(batches._images.height) == len(samples) < len(store.cxr)
    assert len(batches._images.held) == store.cxr.size[np.unique(samples.cxr_row)].sum()
    assert not len(batches_of(store, "radiology", "val", data_device="cpu", data_pairs="ehr")._images.held)


def test_large_data_are_brought_in_by_parts(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = list(batches_of(store).epoch(0))
    monkeypatch.setattr(placement, "BYTES_AT_ONCE", 3000)
    assert all(same(a, b) for a, b in zip(whole, batches_of(store).epoch(0), strict=True))


def test_auto_leaves_on_disk_what_does_not_fit(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    assert batches_of(store).placement == "cpu"
    monkeypatch.setattr(placement, "free_memory", lambda: 1 << 20)
    assert batches_of(store).placement == "disk"


def test_auto_shares_memory_with_the_other_processes(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    held = batches_of(store, data_device="cpu")
    size = held._hours.held.nbytes + held._images.held.nbytes
    monkeypatch.setattr(placement, "free_memory", lambda: 2 * size + 1000)
    assert batches_of(store).placement == "cpu" and batches_of(store, world=2).placement == "disk"


def test_data_on_a_gpu_need_one(store: Store) -> None:
    with pytest.raises(ValueError, match="--data_device cuda needs --device cuda"):
        batches_of(store, data_device="cuda")


def test_an_error_while_reading_ahead_reaches_the_consumer(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = batches_of(store)
    make = batches._batch

    def fails(rows: np.ndarray, epoch: int, step: int) -> Batch:
        if step == 1:
            raise OSError("the disk is gone")
        return make(rows, epoch, step)

    monkeypatch.setattr(batches, "_batch", fails)
    stream = batches.epoch(0)
    assert len(next(stream).row) == 7
    with pytest.raises(OSError, match="the disk is gone"):
        next(stream)
    assert not reading_threads()


@pytest.mark.parametrize("place", ["cpu", "disk"])
def test_closing_an_epoch_ends_its_threads(store: Store, place: str) -> None:
    with closing(batches_of(store, "decompensation", data_device=place).epoch(0)) as stream:
        next(stream)
        assert reading_threads()
    assert not reading_threads()


def reading_threads() -> list[str]:
    names = (thread.name for thread in threading.enumerate())
    return [name for name in names if name.startswith("ThreadPoolExecutor")]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, "--batch_size must be 1 or more, not 0"),
        ({"image_size": 16}, "--image_size must be 32 to 1024 pixels, not 16"),
        ({"data_ratio": 1.5}, "--data_ratio must be 0 to 1"),
        ({"every_hours": 0}, "--every_hours must be 1 or more"),
        ({"data_ratio": 0.5}, "--data_pairs paired has none; use --data_pairs partial"),
        ({"drop_cxr": (0.0, 1.5, 0.0)}, "--drop_cxr must be three fractions from 0 to 1"),
        ({"drop_cxr": (0.5, 0.0, 0.0)}, "--data_pairs paired does not keep them .* use --data_pairs partial"),
        ({"data_pairs": "ehr_all", "retrieve_cxr": "all"}, "reads no X-rays; leave it out"),
    ],
)
def test_settings_that_cannot_work_or_do_nothing_are_refused(
    changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        DataConfig(**changes)


def test_every_choice_of_pairs_has_a_meaning() -> None:
    assert set(get_args(get_type_hints(DataConfig)["data_pairs"])) == set(SAMPLE_SELECTIONS)


def test_a_store_without_images_says_how_to_get_pairs(tmp_path: Path) -> None:
    bare = Store.open(write_store(tmp_path / "bare", stays=10, images=0))
    with pytest.raises(
        ValueError, match=r"no train sample with an X-ray.*--data_pairs ehr_all .*--mimic_cxr"
    ):
        samples_of(bare)
    with pytest.raises(ValueError, match="radiology has no train sample; the cohort is too small"):
        samples_of(bare, "radiology")
    whole = batches_of(bare, data_pairs="partial")
    assert sum(len(batch.row) for batch in whole.epoch(0)) == 6


def test_a_split_without_pairs_names_the_choice(store: Store, tmp_path: Path) -> None:
    few = Store.open(write_store(tmp_path / "few", stays=10, images=1))
    with pytest.raises(ValueError, match=r"no test sample with an X-ray, and --data_pairs cxr .*partial"):
        samples_of(few, split="test", data_pairs="cxr")


def test_listfiles_of_another_store_are_refused(tmp_path: Path) -> None:
    folder = write_store(tmp_path / "mixed", stays=10, images=5)
    stays = Store.open(folder).stays()
    length = stays["length"][::-1].reset_index(drop=True)  # of other stays
    stays.assign(length=length, offset=length.cumsum() - length).to_parquet(folder / "stays.parquet")
    refresh_manifests(folder)
    with pytest.raises(ValueError, match="listfiles of phenotyping are not of this store"):
        samples_of(Store.open(folder))


def first_sample(folder: Path, column: str, value: float) -> None:
    """Changes a number of the first phenotyping sample of train, that of stay 0."""
    path = folder / "phenotyping" / "train_listfile.csv"
    rows = pd.read_csv(path)
    rows = rows.astype({column: type(value)})
    rows.loc[0, column] = value
    rows.to_csv(path, index=False)
    refresh_manifests(folder)


@pytest.mark.parametrize(
    ("column", "value"),
    [("stay_id", 30_000_001), ("stay_row", 3), ("stay_row", 99), ("stay_row", -1), ("bins", 999),
     ("bins", 0), ("bins", -1), ("subject_id", 10_000_001), ("cxr_row", 4), ("cxr_row", 99),
     ("partial_bin_row", 0), ("partial_bin_row", 99_999), ("partial_bin_row", -2),
     ("end_hours", -1.0), ("end_hours", float("nan")), ("end_hours", float("inf"))],
)  # fmt: skip
def test_a_sample_that_is_not_its_stays_is_refused_with_its_line(
    tmp_path: Path, column: str, value: float
) -> None:
    folder = write_store(tmp_path / "mixed", stays=10, images=5)
    first_sample(folder, column, value)
    with pytest.raises(ValueError, match=r"1 of 6 train samples, the first on line 2, break the rule"):
        samples_of(Store.open(folder))


@pytest.mark.parametrize("value", [2, -1, 0.5, float("inf")])
def test_a_label_that_is_none_of_0_1_and_unknown_is_refused(tmp_path: Path, value: float) -> None:
    folder = write_store(tmp_path / "odd", stays=10, images=5)
    first_sample(folder, TASKS["phenotyping"].labels[3], value)
    with pytest.raises(ValueError, match="train labels of phenotyping: labels must be 0, 1 or NaN"):
        samples_of(Store.open(folder))


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("offset", "the hours of stays.parquet do not follow one another"),
        ("hourly.npy", r"hourly.npy does not hold the \d+ hours of stays.parquet"),
        ("cxr.npy", "cxr.npy does not hold the 5 images of cxr.parquet"),
        ("stays.parquet", "stays.parquet holds no stay"),
    ],
)
def test_tables_and_arrays_that_do_not_belong_together_are_refused(
    tmp_path: Path, name: str, fault: str
) -> None:
    folder = write_store(tmp_path / "mixed", stays=10, images=5)
    stays = pd.read_parquet(folder / "stays.parquet")
    if name.endswith(".npy"):
        np.save(folder / name, np.load(folder / name)[:3])
    else:
        other = stays[:0] if name == "stays.parquet" else stays.assign(offset=stays["offset"] + 1)
        other.to_parquet(folder / "stays.parquet")
    refresh_manifests(folder)
    with pytest.raises(ValueError, match=fault):
        samples_of(Store.open(folder))


@pytest.mark.parametrize("placement", ["cpu", "disk"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_hours_that_are_no_finite_numbers_are_refused(tmp_path: Path, value: float, placement: str) -> None:
    folder = write_store(tmp_path / "odd", stays=10, images=5)
    hourly = np.load(folder / "hourly.npy")
    hourly[3, 7] = value  # an LSTM would saturate, and predict as if nothing was
    np.save(folder / "hourly.npy", hourly)
    refresh_manifests(folder)
    with pytest.raises(ValueError, match=r"hourly.npy: holds values that are no finite numbers"):
        list(batches_of(Store.open(folder), data_pairs="ehr_all", data_device=placement).epoch(0))


def test_labels_of_another_cohort_are_refused(tmp_path: Path) -> None:
    folder, other = (write_store(tmp_path / name, stays=n, images=5) for name, n in (("a", 10), ("b", 15)))
    stays = pd.read_parquet(other / "stays.parquet")
    shutil.copy(other / "phenotyping" / "train_listfile.csv", folder / "phenotyping" / "train_listfile.csv")
    refresh_manifests(folder)
    foreign = (stays["split"] == "train").sum()
    with pytest.raises(ValueError, match=rf"listfiles of phenotyping are not of this store: \d of {foreign}"):
        samples_of(Store.open(folder))


def test_a_listfile_of_another_split_is_refused(tmp_path: Path) -> None:
    folder = write_store(tmp_path / "mixed", stays=10, images=5)
    shutil.copy(folder / "readmission" / "test_listfile.csv", folder / "readmission" / "train_listfile.csv")
    refresh_manifests(folder)
    with pytest.raises(ValueError, match=r"readmission are not of this store: 2 of 2 train samples"):
        samples_of(Store.open(folder), "readmission")


def test_a_subject_in_train_and_test_is_refused(tmp_path: Path) -> None:
    folder = write_store(tmp_path / "mixed", stays=10, images=5)
    stays = pd.read_parquet(folder / "stays.parquet")
    stays.loc[stays["split"] == "test", "subject_id"] = stays.loc[0, "subject_id"]
    stays.to_parquet(folder / "stays.parquet")
    refresh_manifests(folder)
    for split in SPLITS:
        with pytest.raises(ValueError, match=r"1 subjects are in two splits \(first: 10000000\)"):
            samples_of(Store.open(folder), split=split)
