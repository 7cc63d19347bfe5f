"""What several tasks read is named once, and every sample finds its own."""

from pathlib import Path

import numpy as np

from datasets.data_config import DataConfig
from datasets.features import UniqueInputs, input_keys, unique_inputs
from datasets.samples import Samples, load_samples
from datasets.schema import SPLITS
from datasets.store import Store
from tasks import TASKS
from tests.stores import write_store
from utils.distributed import Process


def parts_of(folder: Path) -> list[Samples]:
    """All samples of all tasks."""
    store, config = Store.open(write_store(folder)), DataConfig(data_pairs="partial")
    return [load_samples(store, task, split, config, 0) for task in TASKS.values() for split in SPLITS]


def test_each_piece_is_there_once_and_every_sample_finds_its_own(tmp_path: Path) -> None:
    parts = parts_of(tmp_path / "store")
    for modality in ("ehr", "cxr"):
        rows, places = unique_inputs(parts, modality)
        assert len(np.unique(input_keys(rows, modality), axis=0)) == len(rows) < sum(map(len, parts))
        assert [len(place) for place in places] == [len(part) for part in parts]
        for part, place in zip(parts, places, strict=True):
            there = place >= 0
            assert np.array_equal(input_keys(rows, modality)[place[there]], input_keys(part, modality)[there])
            assert np.array_equal(there, part.cxr_row >= 0 if modality == "cxr" else np.ones(len(part)))


def test_samples_that_differ_in_the_other_modality_share(tmp_path: Path) -> None:
    part = parts_of(tmp_path / "store")[0]
    paired = part.take(part.cxr_row >= 0).take(slice(0, 1))
    other = Samples(**{**vars(paired), "cxr_row": paired.cxr_row + 1})
    rows, places = unique_inputs([paired, other], "ehr")
    assert len(rows) == 1 and [place.tolist() for place in places] == [[0], [0]]
    assert len(unique_inputs([paired, other], "cxr")[0]) == 2


def test_a_key_is_of_one_input_also_where_a_bin_is_cut(tmp_path: Path) -> None:
    store, config = Store.open(write_store(tmp_path / "store")), DataConfig(data_pairs="partial")
    some_are_cut = False
    for task in TASKS.values():
        samples = {split: load_samples(store, task, split, config, 0) for split in SPLITS}
        for modality in ("ehr", "cxr"):
            inputs = UniqueInputs(store, samples, modality, config, Process())
            assert len(np.unique(inputs.keys)) == inputs.count
            some_are_cut |= bool((inputs.samples.partial_bin_row >= 0).any())
    assert some_are_cut
