"""A store is opened whole or not at all, and read by name."""

import json
import mmap
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from datasets.schema import FINDINGS, SAMPLE_COLUMNS, SPLITS, channel_count, continuous_channels
from datasets.store import FileDigest, Store
from datasets.store_writer import write_rows
from tasks import TASKS
from tests.stores import refresh_manifests, write_store, xray_shapes

ROOT = Path(__file__).resolve().parents[2]
LISTFILE = "radiology/test_listfile.csv"


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
    refresh_manifests(folder)
    return Store.open(folder)


def test_a_missing_folder_is_named_with_its_cure(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"nowhere: there is no such folder; make it with .*datasets\.extract"
    ):
        Store.open(tmp_path / "nowhere")


def test_a_store_without_manifest_is_unfinished(folder: Path) -> None:
    (folder / "manifest.yaml").unlink()
    (folder / ".work").mkdir()
    with pytest.raises(ValueError, match=r"did not end; run .* python -m datasets\.extract .* --out .*again"):
        Store.open(folder)


@pytest.mark.parametrize("inside", ["icu", "mimic-iv/hosp", ""])
def test_a_folder_that_is_no_store_is_not_to_be_extracted_into(tmp_path: Path, inside: str) -> None:
    (tmp_path / "folder" / inside).mkdir(parents=True)
    match = r"folder is a raw release, .* in another folder" if inside else "folder is not a store"
    with pytest.raises(ValueError, match=match) as error:
        Store.open(tmp_path / "folder")
    assert f"--out {tmp_path}" not in str(error.value)


@pytest.mark.parametrize("version", ["1", "2", "999", "null", "'3'"])
def test_a_store_of_another_version_is_refused(folder: Path, version: str) -> None:
    edit(folder / "manifest.yaml", "store_version: 3", f"store_version: {version}")
    with pytest.raises(ValueError, match="this code reads 3; extract again, into another folder"):
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


@pytest.mark.parametrize(
    "name", ["hourly.npy", "cxr.npy", "stays.parquet", "cxr.parquet", "normalizer.json", LISTFILE]
)
def test_a_changed_bit_is_found_when_a_file_is_read(folder: Path, name: str) -> None:
    path = folder / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    store = Store.open(folder)
    reads = {
        "hourly.npy": lambda: store.hourly, "cxr.npy": lambda: store.cxr, "stays.parquet": store.stays,
        "cxr.parquet": store.images, "normalizer.json": store.normalizer,
        LISTFILE: lambda: store.listfile("radiology", "test"),
    }  # fmt: skip
    with pytest.raises(ValueError, match=f"{name}: its content is not what the manifest says"):
        reads[name]()


@pytest.mark.parametrize("name", ["../other.npy", "/etc/hostname", "x/../../other.npy", "link.npy"])
def test_no_file_outside_of_a_store_is_read(folder: Path, name: str) -> None:
    (folder.parent / "other.npy").write_bytes(b"12")
    if name == "link.npy":
        (folder / name).symlink_to(folder.parent / "other.npy")
    path = folder / "manifest.yaml"
    manifest = yaml.safe_load(path.read_text())
    manifest["files"][name] = {"bytes": 2, "sha256": "0"}
    path.write_text(yaml.safe_dump(manifest))
    with pytest.raises(ValueError, match=rf"{re.escape(name)} of the store .* lies outside of it"):
        Store.open(folder)


def test_a_store_behind_a_link_is_read(folder: Path) -> None:
    (folder.parent / "latest").symlink_to(folder)
    assert len(Store.open(folder.parent / "latest").stays()) == 20


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"files": None}, "files: Input should be"),
        ({"files": {"a": {"bytes": "9", "sha256": "0"}}}, "files.a.bytes: Input should be"),
        ({"files": {7: {"bytes": 9, "sha256": "0"}}}, "files.7.*: Input should be"),
        ({"synthetic": None}, "synthetic: Input should be"),
        ({"timestep": "long"}, "timestep: Input should be"),
        ({"store_version": True}, "the store has version True"),
        ({"store_version": [1]}, "the store has version that is not a number"),
    ],
)
def test_a_manifest_that_lacks_something_is_refused(folder: Path, change: dict, fault: str) -> None:
    path = folder / "manifest.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | change))
    with pytest.raises(ValueError, match=rf"manifest.yaml: {fault}"):
        Store.open(folder)


def test_a_manifest_runs_nothing(folder: Path) -> None:
    path, marker = folder / "manifest.yaml", folder / "ran"
    path.write_text(f"{path.read_text()}\nx: !!python/object/apply:os.system ['touch {marker}']\n")
    with pytest.raises(ValueError, match=r"manifest.yaml: not valid YAML"):
        Store.open(folder)
    assert not marker.exists()


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((5, channel_count())),
        np.zeros((5, channel_count() - 1), np.float32),
        np.zeros(5, np.float32),
        np.zeros((5, channel_count()), ">f4"),
        np.array([{}], object),
    ],
    ids=["float64", "narrow", "flat", "swapped", "pickled"],
)
def test_hours_of_another_kind_are_refused(folder: Path, array: np.ndarray) -> None:
    np.save(folder / "hourly.npy", array)
    refresh_manifests(folder)
    with pytest.raises(ValueError, match=r"hourly.npy.*(holds .*, not float32|no array that can be read)"):
        _ = Store.open(folder).hourly


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"offset": "x"}, "offset is not a whole number"),
        ({"length": np.nan}, "length is not a whole number"),
        ({"los_hours": "x"}, "los_hours is not a number"),
        (None, "cannot be read as a table"),
    ],
)
def test_stays_of_another_kind_are_refused(folder: Path, change: dict | None, fault: str) -> None:
    path = folder / "stays.parquet"
    stays = Store.open(folder).stays()
    if change is None:
        path.write_bytes(b"PAR1 and no more")
    else:
        stays.assign(**change).to_parquet(path)
    refresh_manifests(folder)
    with pytest.raises(ValueError, match=rf"stays.parquet: {fault}"):
        Store.open(folder).stays()


@pytest.mark.parametrize(
    "text",
    ["", "[]", "null", "[" * 100_000, '{"channels": 1}', "std 0", "std nan", "mean short", "mean null"],
)
def test_a_normaliser_of_another_kind_is_refused(folder: Path, text: str) -> None:
    path = folder / "normalizer.json"
    fitted = json.loads(path.read_text())
    key, _, what = text.partition(" ")
    count = len(fitted["std"])
    odd = {"0": [0.0] * count, "nan": [float("nan")] * count, "short": [1.0], "null": None}
    path.write_text(json.dumps(fitted | {key: odd[what]}) if key in fitted else text)
    refresh_manifests(folder)
    with pytest.raises(ValueError, match=r"normalizer.json.*extract again"):
        Store.open(folder).normalizer()


@pytest.mark.parametrize(
    ("row", "fault"),
    [("1,x", "column #1"), ("1,", "bins"), ("elephant,3", "y_true"), ("1", "Expected 2 columns")],
)
def test_a_listfile_of_another_kind_is_refused_without_its_values(folder: Path, row: str, fault: str) -> None:
    store = listfile(folder, "readmission", f"y_true,bins\n1,2\n{row}\n")
    with pytest.raises(ValueError, match=rf"train_listfile.csv.*{fault}") as error:
        store.listfile("readmission", "train")
    assert "elephant" not in str(error.value)


def test_opening_reads_no_array(folder: Path) -> None:
    path = folder / "hourly.npy"
    path.write_bytes(bytes(path.stat().st_size))
    store = Store.open(folder)
    with pytest.raises(ValueError):
        _ = store.hourly


def test_arrays_are_mapped_not_read(written: Path) -> None:
    store = Store.open(written)
    for array in (store.hourly, store.cxr.pixels):
        assert type(array) is np.ndarray and not array.flags.writeable
        while isinstance(array.base, np.ndarray):
            array = array.base
        assert isinstance(array.base, mmap.mmap)
    assert store.hourly.shape == (store.manifest.hours, channel_count()) and store.hourly.dtype == np.float32
    assert len(store.cxr) == 12 and store.cxr.pixels.dtype == np.uint8
    assert [list(store.cxr[row].shape) for row in range(12)] == xray_shapes(12).tolist()


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


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: task.name)
def test_columns_are_those_of_the_tables(written: Path, task: object) -> None:
    store = Store.open(written)
    names = ["subject_id", "split", "los_hours", "mortality"]
    for columns, table in (
        (store.stay_columns(names), store.stays(names)),
        (store.image_columns(["hours", "stay_row", "Edema"]), store.images(["hours", "stay_row", "Edema"])),
        *(
            (
                store.listfile_columns(task.name, split, [*task.labels, "bins"]),
                store.listfile(task.name, split),
            )
            for split in SPLITS
        ),
    ):
        for name, column in columns.items():
            np.testing.assert_array_equal(column, table[name].to_numpy())
            assert column.dtype == table[name].to_numpy().dtype or column.dtype == object


def test_columns_of_a_listfile_without_a_value_are_numbers(folder: Path) -> None:
    store = listfile(folder, "readmission", "y_true,bins\n,1\n,2\n")
    columns = store.listfile_columns("readmission", "train", ["y_true", "bins"])
    np.testing.assert_array_equal(columns["y_true"], [np.nan, np.nan])
    assert columns["bins"].tolist() == [1, 2] and columns["bins"].dtype == np.int64


def test_columns_that_are_missing_or_of_another_kind_are_refused(folder: Path) -> None:
    store = Store.open(folder)
    with pytest.raises(ValueError, match="cannot be read as a table with the needed columns"):
        store.stay_columns(["stay_id", "gout"])
    store = listfile(folder, "readmission", "y_true,bins\nelephant,1\n")
    with pytest.raises(ValueError, match=r"train_listfile\.csv: y_true is not a number"):
        store.listfile_columns("readmission", "train", ["y_true"])


def test_samples_are_loaded_without_pandas(written: Path) -> None:
    """Its import takes a third of a second, a tenth of what a training takes to its first step."""
    load = f"""
import sys
from datasets.data_config import DataConfig
from datasets.samples import load_samples
from datasets.store import Store
from tasks import get_task
config = DataConfig(data_pairs="partial")
samples = load_samples(Store.open({str(written)!r}), get_task("phenotyping"), "train", config, 0)
print(len(samples), "pandas" in sys.modules)
"""
    ended = subprocess.run([sys.executable, "-c", load], capture_output=True, cwd=ROOT, text=True, check=True)
    count, has_pandas = ended.stdout.split()
    assert int(count) > 0 and has_pandas == "False"


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
    known = ", ".join(sorted(TASKS))
    with pytest.raises(ValueError, match=f"no samples of 'phenotypes', only of {known}; make them with"):
        Store.open(written).listfile("phenotypes", "train")


def test_a_listfile_without_a_column_is_named(written: Path) -> None:
    with pytest.raises(ValueError, match=r"radiology/test_listfile\.csv: .*'Gout'.*python -m tasks\.samples"):
        Store.open(written).listfile("radiology", "test", ["Gout"])


def test_only_continuous_channels_are_normalised(written: Path) -> None:
    mean, deviation = Store.open(written).normalizer()
    fitted = json.loads((written / "normalizer.json").read_text())
    continuous = list(continuous_channels())
    others = np.setdiff1d(np.arange(channel_count()), continuous)
    assert mean[continuous] == pytest.approx(fitted["mean"])
    assert deviation[continuous] == pytest.approx(fitted["std"])
    assert not mean[others].any() and (deviation[others] == 1).all()
    assert mean.dtype == deviation.dtype == np.float32


def test_a_normaliser_of_other_channels_is_refused(folder: Path) -> None:
    edit(folder / "normalizer.json", "Glucose", "Lactate")
    refresh_manifests(folder)
    with pytest.raises(ValueError, match=r"Lactate.*extract again"):
        Store.open(folder).normalizer()


def test_a_store_may_have_no_image(tmp_path: Path) -> None:
    store = Store.open(write_store(tmp_path / "none", stays=10, images=0))
    assert not len(store.cxr) and not len(store.images())
    assert not len(store.listfile("radiology", "train"))


def test_the_manifests_list_every_file(written: Path) -> None:
    for manifest in (written / "manifest.yaml", *(written / task / "manifest.yaml" for task in TASKS)):
        listed = set(yaml.safe_load(manifest.read_text())["files"])
        present = {path.name for path in manifest.parent.iterdir() if path.is_file()}
        assert present - listed == {"manifest.yaml"}


@pytest.mark.parametrize(
    ("synthetic", "synthetic_images", "description"),
    [
        (False, False, "real data"),
        (False, True, "real records with synthetic X-rays"),
        (True, True, "synthetic data"),
    ],
)
def test_a_store_says_whose_data_it_holds(
    written: Path, synthetic: bool, synthetic_images: bool, description: str
) -> None:
    manifest = replace(Store.open(written).manifest, synthetic=synthetic, synthetic_images=synthetic_images)
    assert Store(written, manifest).data_description == description


def test_samples_of_another_store_are_refused(folder: Path) -> None:
    path = folder / "readmission" / "manifest.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"store": "0" * 64}))
    with pytest.raises(ValueError, match=r"readmission: made from another store; .*remove .*readmission and"):
        Store.open(folder)


def fingerprints(folder: Path) -> tuple[str, str, str]:
    """Those of the store, of radiology and of readmission."""
    store = Store.open(folder)
    return store.fingerprint, store.fingerprint_of("radiology"), store.fingerprint_of("readmission")


def test_the_fingerprint_of_a_task_changes_with_its_samples_and_with_the_store(folder: Path) -> None:
    before = fingerprints(folder)
    edit(folder / "readmission" / "val_listfile.csv", "30000003", "30000004")
    refresh_manifests(folder)
    other_samples = fingerprints(folder)
    assert [a == b for a, b in zip(before, other_samples, strict=True)] == [True, True, False]
    np.save(folder / "cxr.npy", np.load(folder / "cxr.npy") ^ 1)
    refresh_manifests(folder)
    assert not set(fingerprints(folder)) & {*before, *other_samples}


def test_a_store_may_have_a_height_of_patients_that_is_not_known(folder: Path) -> None:
    stays = pd.read_parquet(folder / "stays.parquet").assign(height=[180.5] + [np.nan] * 19, weight=np.nan)
    stays.to_parquet(folder / "stays.parquet")
    refresh_manifests(folder)
    assert Store.open(folder).stays()["height"][0] == 180.5


@pytest.mark.parametrize(
    ("shape", "fault"),
    [
        ({"height": 256.5}, "height is not a whole number in each row; copy"),
        ({"width": -256}, r"cxr.npy does not hold the \d+ images of cxr.parquet; copy"),
        ({"height": 1}, r"cxr.npy does not hold the \d+ images of cxr.parquet; copy"),
    ],
)
def test_images_of_another_shape_than_their_pixels_are_refused(folder: Path, shape: dict, fault: str) -> None:
    images = pd.read_parquet(folder / "cxr.parquet").assign(**shape)
    images.to_parquet(folder / "cxr.parquet")
    refresh_manifests(folder)
    with pytest.raises(ValueError, match=fault):
        _ = Store.open(folder).cxr


def test_a_file_that_is_hashed_while_it_is_written_has_the_hash_of_the_whole(tmp_path: Path) -> None:
    path, rows = tmp_path / "hourly.npy", np.arange(15, dtype=np.float32).reshape(5, 3)
    with write_rows(path, np.float32, (3,), total=5) as file:
        file.write(rows[:2])
        file.write(rows[2:])
    assert file.digest == FileDigest.of(path) and np.array_equal(np.load(path), rows)
    with write_rows(path, np.float32, (3,), total=6) as file:
        file.write(rows)
    with pytest.raises(ValueError, match="5 rows were written, and 6 announced"):
        _ = file.digest
