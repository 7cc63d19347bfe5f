"""A store is opened whole or not at all, and read by name."""

import json
import mmap
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from datasets.schema import CHANNELS, FINDINGS, IMAGE_SIZE, SAMPLE_COLUMNS, SPLITS, continuous_channels
from datasets.store import Store
from tasks import TASKS
from tests.stores import write_manifest, write_store


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_store(tmp_path_factory.mktemp("stores") / "tiny", stays=20, images=12)


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(written, tmp_path / "tiny"))


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def listfile(folder: Path, task: str, text: str) -> Store:
    """The store with another train listfile."""
    (folder / task / "train_listfile.csv").write_text(text)
    write_manifest(folder)
    return Store.open(folder)


def test_a_missing_folder_is_named_with_its_cure(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"nowhere: there is no such folder; make it with .*datasets\.extract"
    ):
        Store.open(tmp_path / "nowhere")


def test_a_store_without_manifest_is_unfinished(folder: Path) -> None:
    (folder / "manifest.yaml").unlink()
    with pytest.raises(ValueError, match=r"no manifest.*run python -m datasets\.extract --out .*again"):
        Store.open(folder)


@pytest.mark.parametrize("version", ["store_version: 999", "store_version: null", "other: 1"])
def test_a_store_of_another_version_is_refused(folder: Path, version: str) -> None:
    edit(folder / "manifest.yaml", "store_version: 1", version)
    with pytest.raises(ValueError, match="this code reads 1; extract again"):
        Store.open(folder)


def test_a_manifest_of_something_else_is_refused(folder: Path) -> None:
    (folder / "manifest.yaml").write_text("just text")
    with pytest.raises(ValueError, match="version None"):
        Store.open(folder)


@pytest.mark.parametrize("name", ["hourly.npy", "cxr.npy", "stays.parquet", "radiology/val_listfile.csv"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(ValueError, match=f"{name} is missing; copy it"):
        Store.open(folder)


def test_a_cut_file_is_named_with_both_sizes(folder: Path) -> None:
    path = folder / "hourly.npy"
    whole = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(
        ValueError, match=rf"hourly\.npy has {whole - 1} bytes where the manifest says {whole}"
    ):
        Store.open(folder)


def test_opening_reads_no_array(folder: Path) -> None:
    path = folder / "hourly.npy"
    path.write_bytes(bytes(path.stat().st_size))
    store = Store.open(folder)
    with pytest.raises(ValueError):
        _ = store.hourly


def test_arrays_are_mapped_not_read(written: Path) -> None:
    store = Store.open(written)
    for array in (store.hourly, store.cxr):
        assert type(array) is np.ndarray and not array.flags.writeable
        while isinstance(array.base, np.ndarray):
            array = array.base
        assert isinstance(array.base, mmap.mmap)
    assert store.hourly.shape == (store.manifest["hours"], CHANNELS) and store.hourly.dtype == np.float32
    assert store.cxr.shape == (12, IMAGE_SIZE, IMAGE_SIZE) and store.cxr.dtype == np.uint8


def test_tables_give_the_columns_that_are_asked_for(written: Path) -> None:
    store = Store.open(written)
    assert list(store.stays(["offset", "stay_id"])) == ["offset", "stay_id"]
    assert list(store.images(["hours"])) == ["hours"]
    assert len(store.stays()) == 20 and set(FINDINGS) < set(store.images())
    assert store.images()["stay_row"].is_monotonic_increasing


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: task.name)
def test_listfiles_have_labels_and_places(written: Path, task: object) -> None:
    store = Store.open(written)
    splits = store.stays()["split"].to_numpy()
    for split in SPLITS:
        rows = store.listfile(task.name, split)
        assert list(rows) == ["stay", "period_length", "stay_id", *task.labels, *SAMPLE_COLUMNS]
        assert set(splits[rows["stay_row"]]) == {split}


def test_numbers_of_a_listfile_keep_all_digits(folder: Path) -> None:
    store = listfile(folder, "readmission", "y_true,end_hours\n1,0.1\n0,5.000277777777778\n")
    assert store.listfile("readmission", "train")["end_hours"].tolist() == [0.1, 5.000277777777778]


def test_a_label_unknown_in_the_first_megabyte_is_still_a_number(folder: Path) -> None:
    text = "y_true,bins\n" + ",1\n" * 600_000 + "1.0,2\n"
    labels = listfile(folder, "readmission", text).listfile("readmission", "train", ["y_true"])["y_true"]
    assert labels.iloc[-1] == 1.0 and labels.isna().sum() == 600_000


def test_columns_without_a_value_keep_their_types(folder: Path) -> None:
    store = listfile(folder, "readmission", "stay_id,y_true,end_hours,stay_row,bins\n")
    types = store.listfile("readmission", "train").dtypes.astype(str).to_dict()
    assert types == {
        "stay_id": "int64", "y_true": "float64", "end_hours": "float64", "stay_row": "int64", "bins": "int64"
    }  # fmt: skip


def test_an_unknown_task_is_answered_with_the_known_ones(written: Path) -> None:
    with pytest.raises(ValueError, match=f"the tasks of this store are: {', '.join(sorted(TASKS))}"):
        Store.open(written).listfile("phenotypes", "train")


def test_a_listfile_without_a_column_is_named(written: Path) -> None:
    with pytest.raises(ValueError, match=r"radiology/test_listfile\.csv: .*'Gout'.*extract again"):
        Store.open(written).listfile("radiology", "test", ["Gout"])


def test_only_continuous_channels_are_normalised(written: Path) -> None:
    mean, deviation = Store.open(written).normalizer()
    fitted = json.loads((written / "normalizer.json").read_text())
    continuous = list(continuous_channels())
    others = np.setdiff1d(np.arange(CHANNELS), continuous)
    assert mean[continuous] == pytest.approx(fitted["mean"])
    assert deviation[continuous] == pytest.approx(fitted["std"])
    assert not mean[others].any() and (deviation[others] == 1).all()
    assert mean.dtype == deviation.dtype == np.float32


def test_a_normaliser_of_other_channels_is_refused(folder: Path) -> None:
    edit(folder / "normalizer.json", "Glucose", "Lactate")
    write_manifest(folder)
    with pytest.raises(ValueError, match=r"Lactate.*extract again"):
        Store.open(folder).normalizer()


def test_a_store_may_have_no_image(tmp_path: Path) -> None:
    store = Store.open(write_store(tmp_path / "none", stays=10, images=0))
    assert store.cxr.shape == (0, IMAGE_SIZE, IMAGE_SIZE) and not len(store.images())
    assert not len(store.listfile("radiology", "train"))


def test_the_manifest_lists_every_file(written: Path) -> None:
    listed = set(yaml.safe_load((written / "manifest.yaml").read_text())["files"])
    there = {p.relative_to(written).as_posix() for p in written.rglob("*") if p.is_file()}
    assert there - listed == {"manifest.yaml"}
