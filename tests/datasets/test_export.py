"""The published layout of a store."""

from pathlib import Path

import pandas as pd
import pytest

from datasets.export import ExportConfig, export
from datasets.extract import ExtractConfig
from datasets.schema import SAMPLE_COLUMNS, variables
from datasets.splits import split_of
from tasks import TASKS
from tests.raw_tables import chart, write_mimic_iv
from tests.stores import extract_with_samples
from tests.training.toy import room_for

FOLDER = "test" if split_of(1) == "test" else "train"


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    """One stay of three days with three moments of charting, one of them after the first 48 hours."""
    rows = [
        chart(220045, "80", "2150-01-01 01:00:00"),
        chart(220739, "To Speech", "2150-01-01 01:00:00"),
        chart(226512, "70.5", "2150-01-01 02:30:00"),
        chart(220045, "95", "2150-01-03 12:00:00"),
    ]
    write_mimic_iv(tmp_path / "iv", chartevents=rows)
    extract_with_samples(ExtractConfig(tmp_path / "iv", tmp_path / "store"))
    export(ExportConfig(tmp_path / "store", tmp_path / "out"))
    return tmp_path / "out"


def test_a_subject_has_an_episode_and_its_series(exported: Path) -> None:
    subject = exported / "root" / FOLDER / "1"
    episode = pd.read_csv(subject / "episode1.csv")
    assert episode.columns[0] == "Icustay" and episode["Icustay"].item() == 111
    assert episode["Weight"].item() == 70.5 and episode["Length of Stay"].item() == 3.0
    series = pd.read_csv(subject / "episode1_timeseries.csv")
    assert list(series.columns) == ["Hours", *(variable.name for variable in variables())]
    assert series["Hours"].tolist() == [1.0, 2.5, 60.0]
    assert series["Heart Rate"].tolist()[::2] == [80, 95] and series["Heart Rate"].isna().tolist()[1]
    assert series["Glascow coma scale eye opening"][0] == "To Speech"


def test_listfiles_have_the_published_columns_alone(exported: Path) -> None:
    for task in TASKS.values():
        for split in ("train", "val", "test"):
            columns = pd.read_csv(exported / task.name / f"{split}_listfile.csv").columns
            assert list(columns) == ["stay", "period_length", "stay_id", *task.labels]
            assert not set(columns) & set(SAMPLE_COLUMNS)


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
    assert set(hours.values()) == {60.0}


def test_an_export_is_not_overwritten(exported: Path) -> None:
    with pytest.raises(ValueError, match="exists, and an export is not continued; remove"):
        export(ExportConfig(exported.with_name("store"), exported))


def test_a_full_disk_is_told_and_leaves_nothing(exported: Path) -> None:
    out = exported.with_name("again")
    with room_for(100), pytest.raises(OSError, match=r"no space left to write .*again.* free space there"):
        export(ExportConfig(exported.with_name("store"), out))
    assert not list(out.parent.glob("again*"))
