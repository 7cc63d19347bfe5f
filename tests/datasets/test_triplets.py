"""Triplets of a batch: the events of each sample until its end, normalised, wherever they are held."""

import numpy as np
import pandas as pd
import pytest
import torch

from datasets import triplets
from datasets.batches import Batches
from datasets.data_config import DataConfig
from datasets.extract_config import ExtractConfig
from datasets.samples import load_samples
from datasets.schema import RecordNeeds, Triplets, variables
from datasets.store import Store
from tasks import TASKS
from tests.random_cohort import random_cohort
from tests.stores import extract_with_samples

NEEDS = RecordNeeds(triplets=True)
SOME_TASKS = ("decompensation", "radiology", "in-hospital-mortality", "readmission")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("cohort")
    iv, cxr = random_cohort(3).write(folder / "raw")
    extract_with_samples(ExtractConfig(mimic_iv=iv, mimic_cxr=cxr, out=folder / "store"))
    return Store.open(folder / "store")


def batches(store: Store, task: str, device: str = "cpu", by: str = "sample") -> Batches:
    config = DataConfig(store=store.folder, data_pairs="ehr_all", data_device=device, batch_size=5)
    samples = load_samples(store, TASKS[task], "train", config, 0)
    cpu = torch.device("cpu")
    return Batches(store, samples, config, seed=0, device=cpu, train=False, by=by, needs=NEEDS)


def of_sample(found: Triplets, number: int) -> torch.Tensor:
    """The triplets of a sample of a batch, [n, 3]."""
    part = slice(int(found.first[number]), int(found.first[number] + found.counts[number]))
    return torch.stack([found.hours[part], found.channel[part].float(), found.value[part]], dim=1)


def expected_triplets(store: Store, events: pd.DataFrame, stay_id: int, end_hours: float) -> np.ndarray:
    """The same from the table, event by event."""
    mean, deviation = store.normalizer()
    by_name = {variable.name: variable for variable in variables()}
    rows = []
    for event in events[(events["stay_id"] == stay_id) & (events["hours"] <= end_hours + 1e-7)].itertuples():
        variable = by_name[event.variable]
        if variable.categories:
            rows.append((event.hours, variable.first_channel + int(event.value), 1.0))
        else:
            channel = variable.first_channel
            rows.append((event.hours, channel, (event.value - mean[channel]) / deviation[channel]))
    return np.array(rows, np.float32).reshape(-1, 3)


@pytest.mark.parametrize("task", SOME_TASKS)
def test_a_sample_has_the_events_until_its_end_and_no_other(store: Store, task: str) -> None:
    made = batches(store, task, by="stay")
    events, seen = pd.read_parquet(store.folder / "events.parquet"), 0
    for batch in made.epoch(0):
        for number, row in enumerate(batch.row.tolist()):
            end, stay = made.samples.end_hours[row], made.samples.stay_id[row]
            end = min(end, 48) if task == "readmission" else end  # of which the first 48 hours are read
            expected = expected_triplets(store, events, stay, end)
            assert np.allclose(of_sample(batch.triplets, number), expected, rtol=1e-4, atol=1e-5)
            assert batch.triplets.end[number] == np.float32(end)
            seen += len(expected)
    assert seen > 100


def test_samples_of_a_stay_share_its_events_and_nothing_is_padded(store: Store) -> None:
    for batch in batches(store, "decompensation", by="stay").epoch(0):
        found = batch.triplets
        stays = {
            first: int((found.counts[found.first == first]).max()) for first in found.first.unique().tolist()
        }
        assert len(found.hours) == sum(stays.values())


@pytest.mark.parametrize("at_once", [1, 40, 1 << 20])
def test_triplets_are_the_same_in_memory_and_on_disk(
    store: Store, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = list(batches(store, "decompensation").epoch(0))
    monkeypatch.setattr(triplets, "EVENTS_AT_ONCE", at_once)
    for device in ("cpu", "disk"):
        for batch, other in zip(batches(store, "decompensation", device).epoch(0), expected, strict=True):
            assert all(torch.equal(*pair) for pair in zip(batch.triplets, other.triplets, strict=True))


def test_triplets_are_read_only_if_an_encoder_needs_them(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Store, "events", lambda *_: pytest.fail("events.parquet was read"))
    config = DataConfig(store=store.folder, data_pairs="ehr_all", batch_size=5)
    samples = load_samples(store, TASKS["radiology"], "train", config, 0)
    cpu = torch.device("cpu")
    for batch in Batches(store, samples, config, seed=0, device=cpu, train=True).epoch(0):
        assert batch.triplets is None


def test_an_encoder_that_shares_no_stay_gets_batches_of_few_samples(store: Store) -> None:
    made = batches(store, "decompensation", by="input")
    most = np.bincount(np.unique(made.samples.stay_id, return_inverse=True)[1]).max()
    assert all(len(batch.row) <= 5 + most for batch in made.epoch(0))
