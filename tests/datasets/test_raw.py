"""Raw tables of any release, and what is said when one is not right."""

from pathlib import Path

import polars as pl
import pytest

from datasets.raw import find_table, read, scan
from tests.raw_tables import admission, patient, write_mimic_iv, write_table


@pytest.mark.parametrize("gz", [True, False])
def test_plain_and_gzipped_tables_read_alike(tmp_path: Path, gz: bool) -> None:
    root = write_mimic_iv(tmp_path, gz=gz)
    assert read(root, "icustays")["stay_id"].to_list() == [111]


def test_release_one_keeps_admissions_in_core_and_calls_race_ethnicity(tmp_path: Path) -> None:
    own = admission() | {"ethnicity": "ASIAN"}
    columns = ["subject_id", "hadm_id", "admittime", "dischtime", "deathtime", "ethnicity"]
    write_table(tmp_path / "core/admissions.csv", columns, [{key: own[key] for key in columns if key in own}])
    assert read(tmp_path, "admissions")["race"].to_list() == ["ASIAN"]


def test_extra_and_reordered_columns_do_not_matter(tmp_path: Path) -> None:
    row = patient() | {"new_column": "x"}
    write_table(
        tmp_path / "hosp/patients.csv", ["new_column", "dod", *[k for k in row if k != "new_column"]], [row]
    )
    found = read(tmp_path, "patients")
    assert found["anchor_age"].item() == 60 and "new_column" not in found.columns


def test_the_text_none_is_not_a_missing_value(tmp_path: Path) -> None:
    write_mimic_iv(tmp_path, chartevents=[{"hadm_id": 11, "itemid": 220739, "value": "None"}, {"itemid": 1}])
    assert scan(tmp_path, "chartevents").collect()["value"].to_list() == ["None", None]


def test_a_missing_table_is_named_with_its_places_and_releases(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"no table icustays: looked for icu/icustays.csv.gz, icu/icustays.csv \(MIMIC-IV"
    ):
        find_table(tmp_path, "icustays")


def test_a_missing_column_is_named_with_its_file(tmp_path: Path) -> None:
    write_table(tmp_path / "icu/icustays.csv", ["subject_id", "hadm_id"], [])
    with pytest.raises(
        ValueError, match=r"icustays.csv: lacks the column stay_id.*MIMIC-IV 1.0, 2.x and 3.x have"
    ):
        scan(tmp_path, "icustays")


def test_a_table_that_is_there_twice_is_an_error(tmp_path: Path) -> None:
    write_mimic_iv(tmp_path)
    write_mimic_iv(tmp_path, gz=False)
    with pytest.raises(ValueError, match=r"is there 2 times"):
        find_table(tmp_path, "patients")


@pytest.mark.parametrize("column", ["anchor_age", "dod"])
def test_a_value_of_the_wrong_type_names_the_file(tmp_path: Path, column: str) -> None:
    write_mimic_iv(tmp_path, patients=[patient(**{column: "elephant"})])
    with pytest.raises(ValueError, match=r"patients.csv.gz: cannot be read as a table of this kind"):
        read(tmp_path, "patients")


@pytest.mark.parametrize("damage", ["cut", "changed"])
def test_a_damaged_gz_names_the_file(tmp_path: Path, damage: str) -> None:
    path = write_mimic_iv(tmp_path) / "hosp/patients.csv.gz"
    whole = path.read_bytes()
    path.write_bytes(whole[:20] if damage == "cut" else whole[:30] + bytes(5) + whole[30:])
    with pytest.raises(ValueError, match=r"patients.csv.gz"):
        read(tmp_path, "patients")


def test_dates_and_times_both_parse(tmp_path: Path) -> None:
    write_mimic_iv(tmp_path, patients=[patient(dod="2150-02-03"), patient(2, dod="2150-02-03 04:05:06")])
    assert read(tmp_path, "patients")["dod"].dt.hour().to_list() == [0, 4]
    assert read(tmp_path, "patients")["dod"].dtype == pl.Datetime("us")
