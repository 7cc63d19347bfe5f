"""The cohort: which stays are selected, and their outcomes."""

from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from datasets.cohort import Cohort, add_readmission, read_stays, select_stays
from datasets.raw.reading import read_table
from tests.raw_tables import admission, patient, stay, write_mimic_iv


def cohort(
    folder: Path, protocol: str = "medmod", wanted: frozenset[int] | None = None, **tables: list
) -> Cohort:
    root = write_mimic_iv(folder, **tables)
    raw = (read_table(root, name) for name in ("icustays", "admissions", "patients"))
    return select_stays(*raw, protocol, wanted=wanted)


def test_a_transfer_between_units_removes_the_stay_before_stays_are_counted(tmp_path: Path) -> None:
    moved = stay(stay_id=112, last_careunit="SICU")
    selected = cohort(tmp_path, icustays=[stay(), moved])
    assert selected.stays["stay_id"].to_list() == [111]
    assert selected.attrition.filter(pl.col("rule").str.contains("transfer"))["stays"].item() == 1


def test_two_remaining_stays_in_an_admission_remove_both(tmp_path: Path) -> None:
    other = [stay(subject=2, hadm=22, stay_id=222)]
    tables = {"patients": [patient(), patient(2)], "admissions": [admission(), admission(2, 22)]}
    selected = cohort(tmp_path, icustays=[stay(), stay(stay_id=112), *other], **tables)
    assert selected.stays["stay_id"].to_list() == [222]


def test_minors_and_stays_of_no_length_are_out(tmp_path: Path) -> None:
    tables = {
        "patients": [patient(), patient(2, anchor_age=17), patient(3)],
        "admissions": [admission(), admission(2, 22), admission(3, 33)],
        "icustays": [stay(), stay(2, 22, 222), stay(3, 33, 333, los=-1)],
    }
    selected = cohort(tmp_path, **tables)
    assert selected.stays["stay_id"].to_list() == [111]
    assert selected.attrition["stays"].to_list() == [3, 3, 3, 3, 2, 1]


def test_age_counts_from_the_anchor_year_only_under_corrected(tmp_path: Path) -> None:
    tables = {"patients": [patient(anchor_year=2148)]}
    assert cohort(tmp_path / "a", **tables).stays["age"].item() == 60
    assert cohort(tmp_path / "b", "corrected", **tables).stays["age"].item() == 62


def test_the_type_of_the_admission_is_kept_if_the_release_has_it(tmp_path: Path) -> None:
    root = write_mimic_iv(tmp_path, gz=False)
    path = next(root.rglob("admissions.csv"))
    raw = {name: read_table(root, name) for name in ("icustays", "admissions", "patients")}
    assert select_stays(*raw.values(), "medmod").stays["admission_type"].to_list() == [None]
    pl.read_csv(path).with_columns(admission_type=pl.lit("EW EMER.")).write_csv(path)
    raw["admissions"] = read_table(root, "admissions")
    assert select_stays(*raw.values(), "medmod").stays["admission_type"].to_list() == ["EW EMER."]
    raw["admissions"] = raw["admissions"].drop("admission_type")  # of a MEDS dataset
    assert "admission_type" not in select_stays(*raw.values(), "medmod").stays


@pytest.mark.parametrize(
    ("patients", "admissions", "died"),
    [
        ({}, {}, 0),
        ({}, {"deathtime": "2150-01-05 00:00:00"}, 1),
        ({"dod": "2150-01-05"}, {}, 1),
        ({"dod": "2150-01-10"}, {}, 0),
    ],
)
def test_death_counts_within_the_admission(
    tmp_path: Path, patients: dict, admissions: dict, died: int
) -> None:
    selected = cohort(tmp_path, patients=[patient(**patients)], admissions=[admission(**admissions)])
    assert selected.stays["mortality"].item() == died


def later_admissions(moved: bool) -> dict[str, list]:
    """Three stays of a subject: the second 20 days after the first, the third 60 days after the second."""
    begins = {12: "2150-01-24 00:00:00", 13: "2150-03-25 00:00:00"}
    ends = {12: "2150-01-25 00:00:00", 13: "2150-03-26 00:00:00"}
    stays = [stay()]
    for hadm, start in begins.items():
        unit = "SICU" if moved and hadm == 12 else "MICU"
        stays.append(stay(1, hadm, 100 + hadm, 1.0, intime=start, outtime=ends[hadm], last_careunit=unit))
    admissions = [admission(), *(admission(1, h, admittime=t, dischtime=ends[h]) for h, t in begins.items())]
    return {"icustays": stays, "admissions": admissions}


def test_readmission_is_a_stay_within_thirty_days(tmp_path: Path) -> None:
    assert cohort(tmp_path, **later_admissions(False)).stays["readmission"].to_list() == [1, 0, 0]


@pytest.mark.parametrize(
    ("days", "published", "corrected"), [(-1, 1, 0), (0, 1, 1), (29, 1, 1), (30, 0, 1), (31, 0, 0)]
)
def test_the_published_readmission_is_in_less_than_thirty_days(
    days: int, published: int, corrected: int
) -> None:
    start, out = datetime(2150, 1, 1), datetime(2150, 1, 4)
    times = {"intime": [start, out + timedelta(days=days)], "outtime": [out, out + timedelta(days=40)]}
    stays = pl.DataFrame({"subject_id": [1, 1], "stay_id": [1, 2], **times})
    for is_published, label in ((True, published), (False, corrected)):
        assert add_readmission(stays, stays, is_published)["readmission"].to_list() == [label, 0]


def test_a_transferred_stay_is_a_readmission_only_under_corrected(tmp_path: Path) -> None:
    tables = later_admissions(True)
    assert cohort(tmp_path / "a", **tables).stays["readmission"].to_list() == [0, 0]
    assert cohort(tmp_path / "b", "corrected", **tables).stays["readmission"].to_list() == [1, 0]


def test_episodes_are_numbered_in_order_of_time(tmp_path: Path) -> None:
    stays = cohort(tmp_path, **later_admissions(False)).stays
    assert stays["episode"].to_list() == [1, 2, 3]
    assert stays["intime"].to_list() == sorted(stays["intime"])
    assert stays["intime"][0] == datetime(2150, 1, 1)


def test_a_stay_named_twice_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="stay_id 111 is in 2 rows, but must be unique"):
        cohort(tmp_path, icustays=[stay(), stay()])


@pytest.mark.parametrize(
    "changes",
    [
        {"los": "NaN"},
        {"los": "inf"},
        {"los": "1e309"},
        {"los": "4.1"},
        {"los": ""},
        {"intime": "2150-01-04 00:00:00", "outtime": "2150-01-01 00:00:00"},
        {"outtime": "9999-01-01 00:00:00", "los": 2866840.0},
    ],
)
def test_a_length_that_is_none_or_not_that_of_the_times_is_out_and_counted(
    tmp_path: Path, changes: dict
) -> None:
    two = {"patients": [patient(), patient(2)], "admissions": [admission(), admission(2, 22)]}
    selected = cohort(tmp_path, icustays=[stay(**changes), stay(2, 22, 222)], **two)
    assert selected.stays["stay_id"].to_list() == [222]
    assert selected.attrition["stays"].to_list()[-2:] == [2, 1]


@pytest.mark.parametrize("table", ["patients", "admissions", "icustays"])
def test_a_row_without_the_id_that_names_it_is_an_error(tmp_path: Path, table: str) -> None:
    row = {"patients": patient, "admissions": admission, "icustays": stay}[table]()
    key = {"patients": "subject_id", "admissions": "hadm_id", "icustays": "stay_id"}[table]
    with pytest.raises(ValueError, match=f"{table}: 1 rows have no {key}"):
        cohort(tmp_path, **{table: [row, row | {key: ""}]})


def test_an_empty_cohort_names_the_rule_that_emptied_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"the cohort is empty.*age 18 or more: 0"):
        cohort(tmp_path, patients=[patient(anchor_age=3)])


@pytest.mark.parametrize("protocol", ["medmod", "corrected"])
def test_listed_stays_keep_the_labels_and_numbers_of_the_whole_cohort(tmp_path: Path, protocol: str) -> None:
    tables = later_admissions(moved=False)
    whole = cohort(tmp_path / "whole", protocol, **tables)
    part = cohort(tmp_path / "part", protocol, frozenset({111, 113, 999}), **tables)
    assert part.stays.equals(whole.stays.filter(pl.col("stay_id") != 112))
    assert part.stays["readmission"].to_list() == [1, 0]  # by stay 112, which is not listed
    assert part.stays["episode"].to_list() == [1, 3]
    assert part.attrition[:-1].equals(whole.attrition)
    assert part.attrition.row(-1) == ("in the list of --stays", 2, 2, 1)


def test_a_list_without_a_stay_of_the_cohort_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="none of the 1 stays in the list of --stays passes the rules"):
        cohort(tmp_path, wanted=frozenset({5}))


@pytest.mark.parametrize(
    "text", ["111\n112\n", "stay_id\r\n111\r\n\r\n112", "\ufeffstay_id\n 112 \n111\n111"]
)
def test_a_list_of_stays_has_one_on_each_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "stays.csv").write_bytes(text.encode())
    assert read_stays(tmp_path / "stays.csv") == {111, 112}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("111\n1,2\n", r"line 2: '1,2' is no stay_id; write one on each line"),
        ("subject_id\n111", r"line 1: 'subject_id' is no stay_id"),
        ("stay_id\n", "lists no stay"),
    ],
)
def test_a_wrong_list_of_stays_names_the_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "stays.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_stays(tmp_path / "stays.csv")
