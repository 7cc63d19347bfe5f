"""The published layouts of a store, read as the published readers read them."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from datasets.export import ExportConfig, Layout, export, published_episode, published_stays
from datasets.extract_config import ExtractConfig
from datasets.schema import SPLITS, channel_count, variables
from datasets.splits import split_of
from datasets.store import Store
from tasks import TASKS
from tests.random_cohort import random_cohort
from tests.raw_tables import chart, write_mimic_iv
from tests.stores import extract_with_samples, refresh_manifests
from tests.training.toy import room_for

FOLDER = "test" if split_of(1) == "test" else "train"
FOLDER_OF = {"train": "train", "val": "train", "test": "test"}


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    """One stay of three days with three moments of charting, one of them after the first 48 hours."""
    rows = [
        chart(226512, "71.5", "2149-12-31 12:00:00"),
        chart(226512, "72.5", "2149-12-31 12:00:00"),
        chart(226707, "70", "2150-01-03 23:00:00"),
        chart(226730, "180", "2150-01-04 05:00:00"),
        chart(220045, "80", "2150-01-01 01:00:00"),
        chart(220739, "To Speech", "2150-01-01 01:00:00"),
        chart(226512, "70.5", "2150-01-01 02:30:00"),
        chart(220045, "95", "2150-01-03 12:00:00"),
    ]
    codes = [("I2510", 10), ("4019", 9), ("Z999", 10)]
    diagnoses = [
        {"subject_id": 1, "hadm_id": 11, "seq_num": 9 - n, "icd_code": code, "icd_version": version}
        for n, (code, version) in enumerate(codes)
    ]
    write_mimic_iv(tmp_path / "iv", chartevents=rows, diagnoses_icd=diagnoses)
    extract_with_samples(ExtractConfig(tmp_path / "iv", tmp_path / "store"))
    export(ExportConfig(tmp_path / "store", tmp_path / "out"))
    return tmp_path / "out"


@pytest.fixture(scope="module")
def cohort_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of some random stays with X-rays, whose uncertain findings are left out."""
    folder = tmp_path_factory.mktemp("cohort")
    iv, cxr = random_cohort(3, subjects=10).write(folder)
    extract_with_samples(ExtractConfig(iv, folder / "store", cxr, uncertain="ignore"))
    return folder / "store"


@pytest.fixture(scope="module", params=["medfuse", "mimic3"])
def layout(request: pytest.FixtureRequest, cohort_store: Path) -> tuple[Layout, Path]:
    """Each layout, and its export of the cohort."""
    folder = cohort_store.parent / request.param
    export(ExportConfig(cohort_store, folder, request.param))
    return request.param, folder


def samples_as_read(layout: Layout, lines: list[str], task: str) -> Iterator[tuple[str, float, list[int]]]:
    """Series, hours and whole labels of a listfile, split at commas as the published readers do."""
    for line in lines[1:]:
        series, *cells = line.split(",")
        hours = 0.0 if layout == "mimic3" and task == "in-hospital-mortality" else float(cells.pop(0))
        if layout == "medfuse":
            int(cells.pop(0))  # stay_id
        yield series, hours, [float(c) if task == "length-of-stay" else int(c) for c in cells]


def discretize(path: Path, end: float) -> np.ndarray:
    """The published discretizer on a series: bins of an hour, last value, carried forward, masks: [bins, 76].

    Events after `end` are left out, as its readers do; before the first value stands the normal one.
    """
    bins = int(end + 1 - 1e-6)
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    table = table[table["Hours"].astype(float) <= end + 1e-6]
    grid = np.zeros((bins, channel_count()), np.float32)
    for variable in variables():
        cells: dict[int, str] = {}
        for hour, cell in zip(table["Hours"].astype(float), table[variable.name], strict=True):
            if cell:
                cells[int(hour - 1e-6)] = cell
        value = variable.normal
        for number in range(bins):
            value = cells.get(number, value)
            slot = variable.categories.index(value) if variable.categories else 0
            grid[number, variable.first_channel + slot] = 1 if variable.categories else float(value)
            grid[number, variable.mask_channel] = number in cells
    return grid


def test_the_published_discretizer_gives_our_hours(layout: tuple[Layout, Path], cohort_store: Path) -> None:
    name, folder = layout
    store = Store.open(cohort_store)
    offset, compared = store.stays()["offset"], 0
    for task in TASKS:
        for split in SPLITS:
            rows = store.listfile(task, split)
            lines = (folder / task / f"{split}_listfile.csv").read_text().splitlines()
            read = list(samples_as_read(name, lines, task))
            assert [series for series, *_ in read] == rows["stay"].tolist()
            for place in range(0, len(rows), 1 if len(rows) < 40 else 7):
                series, hours, _ = read[place]
                sample = rows.iloc[place]
                ours = store.hourly[offset[sample["stay_row"]] :][: sample["bins"]].copy()
                if sample["partial_bin_row"] >= 0:
                    ours[-1] = store.partial_bins(task)[sample["partial_bin_row"]]
                published = discretize(folder / task / FOLDER_OF[split] / series, hours or 48.0)
                np.testing.assert_array_equal(published[: len(ours)], ours)
                compared += ours.size
                assert len(published) == len(ours) or (task == "readmission" and len(published) == 48)
    assert compared > 100_000


def test_labels_are_those_of_the_store_and_unknown_ones_are_minus_one(
    layout: tuple[Layout, Path], cohort_store: Path
) -> None:
    name, folder = layout
    store, unknown = Store.open(cohort_store), 0
    for task in TASKS.values():
        for part in ("train", "test"):
            splits = [split for split in SPLITS if FOLDER_OF[split] == part]
            labels = pd.concat([store.listfile(task.name, split) for split in splits])[list(task.labels)]
            lines = (folder / task.name / part / "listfile.csv").read_text().splitlines()
            read = np.array([own for *_, own in samples_as_read(name, lines, task.name)])
            read = read.reshape(-1, len(task.labels))
            np.testing.assert_allclose(read, labels.fillna(-1).to_numpy(), atol=1e-6)
            unknown += (read == -1).sum()
    assert unknown > 0


def test_listfiles_name_the_columns_of_their_layout(layout: tuple[Layout, Path]) -> None:
    name, folder = layout
    for task in TASKS.values():
        hours = [] if (name, task.name) == ("mimic3", "in-hospital-mortality") else ["period_length"]
        stay_id = ["stay_id"] if name == "medfuse" else []
        expected = ["stay", *hours, *stay_id, *task.labels]
        names = [*(f"{split}_listfile.csv" for split in SPLITS), "train/listfile.csv", "test/listfile.csv"]
        for file in names:
            assert list(pd.read_csv(folder / task.name / file, nrows=0)) == expected


def test_each_subject_has_stays_and_diagnoses(layout: tuple[Layout, Path], cohort_store: Path) -> None:
    name, folder = layout
    stays = Store.open(cohort_store).stays()
    stay_id, code, used = (
        ("stay_id", "icd_code", "USE_IN_BENCHMARK") if name == "medfuse" else
        ("ICUSTAY_ID", "ICD9_CODE", "USE_IN_BENCHMARK")
    )  # fmt: skip
    everyone = pd.read_csv(folder / "root" / "all_stays.csv")
    assert everyone[stay_id].tolist() == stays["stay_id"].tolist()
    assert {"race", "ethnicity"} <= set(everyone) or name == "mimic3"
    assert name == "medfuse" or {"SUBJECT_ID", "INTIME", "DEATHTIME", "ETHNICITY"} <= set(everyone)
    for (subject, split), rows in stays.groupby(["subject_id", "split"]):
        own = folder / "root" / FOLDER_OF[split] / str(subject)
        assert pd.read_csv(own / "stays.csv")[stay_id].tolist() == rows["stay_id"].tolist()
        diagnoses = pd.read_csv(own / "diagnoses.csv", dtype={code: str})
        assert diagnoses[stay_id].tolist() == rows["stay_id"].tolist()
        assert set(diagnoses[code]) <= {"99592", "41071", "4280"} and (diagnoses[used] == 1).all()


def test_a_subject_has_an_episode_and_its_series(exported: Path) -> None:
    subject = exported / "root" / FOLDER / "1"
    episode = pd.read_csv(subject / "episode1.csv")
    assert episode.columns[0] == "Icustay" and episode["Icustay"].item() == 111
    assert episode["Weight"].item() == 72.5  # the greatest of those charted first, before the stay
    assert episode["Height"].item() == 70  # charted in the stay, before the other
    assert episode["Length of Stay"].item() == 3.0
    assert (episode["Gender"].item(), episode["Ethnicity"].item(), episode["Mortality"].item()) == (1, 4, 0)
    diagnoses = episode.filter(like="Diagnosis ")
    assert diagnoses.shape == (1, 256)
    present = diagnoses.columns[diagnoses.iloc[0] == 1]
    assert present.tolist() == ["Diagnosis I2510", "Diagnosis I2510.1", "Diagnosis 4019"]
    series = pd.read_csv(subject / "episode1_timeseries.csv")
    assert list(series.columns) == ["Hours", *(variable.name for variable in variables())]
    assert series["Hours"].tolist() == [1.0, 2.5, 60.0, 71.0]
    assert series["Heart Rate"].tolist()[::2] == [80, 95] and series["Heart Rate"].isna().tolist()[1]
    assert series["Glascow coma scale eye opening"][0] == "To Speech"
    written = pd.read_csv(subject / "diagnoses.csv", dtype={"icd_code": str})
    assert written["icd_code"].tolist() == ["Z999", "4019", "I2510"]  # by seq_num
    assert written["USE_IN_BENCHMARK"].tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    ("race", "medfuse", "mimic3"),
    [
        ("WHITE - RUSSIAN", 4, 4), ("BLACK/CAPE VERDEAN", 2, 2), ("HISPANIC OR LATINO", 3, 3),
        ("ASIAN - CHINESE", 1, 1), ("PORTUGUESE", 4, 5), ("OTHER", 0, 5), ("UNABLE TO OBTAIN", 0, 0),
        (None, 0, 0),
    ],
)  # fmt: skip
def test_races_have_the_published_codes(race: str | None, medfuse: int, mimic3: int) -> None:
    stay = pd.Series({"stay_id": 1, "race": race, "sex": None, "age": 60, "height": np.nan, "weight": 70.0,
                      "los_hours": 24.0, "mortality": 0})  # fmt: skip
    rows = [published_episode(stay, set(), layout).iloc[0] for layout in ("medfuse", "mimic3")]
    assert [row["Ethnicity"] for row in rows] == [medfuse, mimic3]
    assert rows[0]["Gender"] == 0 and [len(row) for row in rows] == [8 + 256, 8 + 128]


def test_death_in_the_unit_is_that_of_the_protocol() -> None:
    at = pd.Timestamp("2150-01-01")
    times = dict.fromkeys(("intime", "admittime"), at) | dict.fromkeys(
        ("outtime", "dischtime"), at.replace(day=3)
    )
    ids = dict.fromkeys(("subject_id", "hadm_id", "stay_id", "anchor_age", "age"), 1)
    texts = dict.fromkeys(("last_careunit", "race", "sex"), "x")
    row = (
        times
        | ids
        | texts
        | {"los_hours": 48.0, "mortality": 1, "death_hours": 60.0, "dod": at.replace(day=2)}
    )
    stays = pd.DataFrame([row]).assign(deathtime=pd.NaT)
    stays["deathtime"] = pd.to_datetime(stays["deathtime"])
    assert [published_stays(stays, p)["mortality_inunit"].item() for p in ("medmod", "corrected")] == [1, 0]
    table = published_stays(stays, "medmod")
    assert table["intime"].item() == "2150-01-01 00:00:00" and table["dod"].item() == "2150-01-02"


def test_a_change_of_one_series_leaves_the_others(exported: Path) -> None:
    name = "1_episode1_timeseries.csv"
    before = (exported / "readmission" / FOLDER / name).read_bytes()
    with (exported / "phenotyping" / FOLDER / name).open("a") as file:
        file.write("changed")
    assert (exported / "readmission" / FOLDER / name).read_bytes() == before
    assert (exported / "root" / FOLDER / "1" / "episode1_timeseries.csv").read_bytes() == before


def test_a_store_without_codes_is_refused(exported: Path) -> None:
    store = exported.with_name("store")
    (store / "diagnoses.parquet").unlink()
    refresh_manifests(store)
    with pytest.raises(ValueError, match=r"no diagnoses\.parquet: a former version made it; extract again"):
        export(ExportConfig(store, exported.with_name("again")))


def test_every_sample_names_a_series_of_its_task(exported: Path) -> None:
    for task in set(TASKS) - {"radiology"}:
        listed = [
            pd.read_csv(exported / task / f"{split}_listfile.csv") for split in ("train", "val", "test")
        ]
        names = set(pd.concat(listed)["stay"])
        assert names and all((exported / task / FOLDER / name).exists() for name in names)


def test_mortality_sees_the_first_48_hours_alone(exported: Path) -> None:
    name = "1_episode1_timeseries.csv"
    hours = {
        task: pd.read_csv(exported / task / FOLDER / name)["Hours"].max()
        for task in TASKS
        if task != "radiology"
    }
    assert hours.pop("in-hospital-mortality") == 2.5
    assert set(hours.values()) == {71.0}


def test_an_export_is_not_overwritten(exported: Path) -> None:
    with pytest.raises(ValueError, match="exists, and an export is not continued; remove"):
        export(ExportConfig(exported.with_name("store"), exported))


def test_a_full_disk_is_told_and_leaves_nothing(exported: Path) -> None:
    out = exported.with_name("again")
    with room_for(100), pytest.raises(OSError, match=r"no space left to write .*again.* free space there"):
        export(ExportConfig(exported.with_name("store"), out))
    assert not list(out.parent.glob("again*"))
