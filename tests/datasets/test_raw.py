"""Raw tables of any release, and the errors about those that are damaged."""

import gzip
from pathlib import Path

import polars as pl
import pytest

from datasets.raw.reading import read_table, scan_file
from datasets.raw.tables import TABLES, find_files
from tests.raw_tables import admission, patient, write_mimic_iv, write_table


@pytest.mark.parametrize("gz", [True, False])
def test_plain_and_gzipped_tables_read_alike(tmp_path: Path, gz: bool) -> None:
    root = write_mimic_iv(tmp_path, gz=gz)
    assert read_table(root, "icustays")["stay_id"].to_list() == [111]


def test_release_one_keeps_admissions_in_core_and_calls_race_ethnicity(tmp_path: Path) -> None:
    row = admission() | {"ethnicity": "ASIAN"}
    columns = ["subject_id", "hadm_id", "admittime", "dischtime", "deathtime", "ethnicity"]
    write_table(tmp_path / "core/admissions.csv", columns, [{key: row[key] for key in columns if key in row}])
    assert read_table(tmp_path, "admissions")["race"].to_list() == ["ASIAN"]


def test_extra_and_reordered_columns_do_not_matter(tmp_path: Path) -> None:
    row = patient() | {"new_column": "x"}
    write_table(
        tmp_path / "hosp/patients.csv", ["new_column", "dod", *[k for k in row if k != "new_column"]], [row]
    )
    table = read_table(tmp_path, "patients")
    assert table["anchor_age"].item() == 60 and "new_column" not in table.columns


def test_the_text_none_is_not_a_missing_value(tmp_path: Path) -> None:
    write_mimic_iv(tmp_path, chartevents=[{"hadm_id": 11, "itemid": 220739, "value": "None"}, {"itemid": 1}])
    scan = scan_file(tmp_path / "icu/chartevents.csv.gz", TABLES["chartevents"])
    assert scan.collect()["value"].to_list() == ["None", None]


def test_a_missing_table_is_named_with_its_places_and_releases(tmp_path: Path) -> None:
    tried = r"icu/icustays.csv.gz, icu/icustays.csv, icu/icustays.parquet \(as in MIMIC-IV"
    with pytest.raises(ValueError, match=f"table icustays not found; looked for {tried}"):
        find_files(tmp_path, "icustays")


def test_a_missing_column_is_named_with_its_file(tmp_path: Path) -> None:
    write_table(tmp_path / "icu/icustays.csv", ["subject_id", "hadm_id"], [])
    missing = r"icustays.csv: column stay_id, .* is missing \(MIMIC-IV 1.0, 2.x and 3.x have it\)"
    with pytest.raises(ValueError, match=missing):
        scan_file(tmp_path / "icu/icustays.csv", TABLES["icustays"])


def test_a_table_that_is_there_twice_is_an_error(tmp_path: Path) -> None:
    write_mimic_iv(tmp_path)
    write_mimic_iv(tmp_path, gz=False)
    with pytest.raises(ValueError, match=r"table patients has 2 files"):
        find_files(tmp_path, "patients")


@pytest.mark.parametrize(
    ("column", "what"), [("anchor_age", "a 64-bit integer"), ("dod", "a time such as 2150-01-31")]
)
def test_a_value_of_the_wrong_type_is_not_quoted_but_its_line_is_named(
    tmp_path: Path, column: str, what: str
) -> None:
    write_mimic_iv(tmp_path, patients=[patient(), patient(2, **{column: "elephant"})])
    with pytest.raises(ValueError, match=rf"patients.csv.gz: .* line 3: {column} is not {what}") as error:
        read_table(tmp_path, "patients")
    assert "elephant" not in str(error.value) and error.value.__cause__ is None


def content(*lines: str, end: str = "\n") -> bytes:
    """A small table of patients."""
    head = "subject_id,gender,anchor_age,anchor_year,dod,note"
    return "".join(line + end for line in (head, *lines)).encode()


@pytest.mark.parametrize("gz", [True, False])
@pytest.mark.parametrize(
    ("raw", "fault"),
    [
        (content("1,F,60,2150,,", "2,F,60,2150,,x")[:-1], "the last line does not end in a newline"),
        (content("1,F,60,2150,,", end="\r"), "lines end in CR alone"),
        (content("1,F,,60,2150,,,"), "line 2 does not have the 6 fields of the header"),
        (content("1,F,60,2150,,", "2,F,60,2150"), "line 3 does not have the 6 fields of the header"),
        (content("1,F,60,2150,,", "2,F,6\0,2150,,"), "line 3: anchor_age holds a NUL byte or is not UTF-8"),
        (content("1,F,60,2150,,", "2,F,60,2150,,x").replace(b"2,F", b"2,\xe9"), "line 3: gender holds a NUL"),
        (content("1,F,60,2150,,", '2,F,60,2150,,"x'), "line 3: a quote is not closed"),
        (content("1,F,60,2150,-1-02-03 00:00:00,"), "line 2: dod is not a time such as"),
        (content("9223372036854775808,F,60,2150,,"), "line 2: subject_id is not a 64-bit integer"),
        (content("1,F,60,2150,,").replace(b"dod", b"gender"), "column gender is repeated"),
        (b"", "the first line, which should name the columns, is empty"),
        (b"\n1,F,60\n", "the first line, which should name the columns, is empty"),
        (b"1,F,elephant,2150,,\n", "column subject_id, gender.* is missing .*this file has: none"),
    ],
)
def test_what_is_no_table_is_refused_with_its_place(tmp_path: Path, raw: bytes, fault: str, gz: bool) -> None:
    path = tmp_path / f"hosp/patients.csv{'.gz' if gz else ''}"
    path.parent.mkdir()
    path.write_bytes(gzip.compress(raw) if gz else raw)
    with pytest.raises(ValueError, match=rf"patients.csv.*{fault}") as error:
        read_table(tmp_path, "patients")
    assert "elephant" not in str(error.value)


@pytest.mark.parametrize(
    "raw",
    [
        content("1,F,60,2150,2150-02-03,a", "2,,61,2150,,", end="\r\n"),
        b"\xef\xbb\xbf" + content("1,F,60,2150,2150-02-03,a", "2,,61,2150,,"),
        content("1,F,60,2150,2150-02-03,a", "", "2,,61,2150,,", ""),
        content('"1","F","60","2150","2150-02-03","a"', '"2","","61","2150","",""'),
        content('1,F,60,2150,2150-02-03,"a, b"', "2,,61,2150,,"),
        content('1,F,60,2150,2150-02-03,"of two\nlines, not one"', "2,,61,2150,,"),
    ],
    ids=["windows", "mark", "blank", "quoted", "comma", "lines"],
)
def test_what_does_not_matter_reads_the_same(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "a[1]*/hosp/patients.csv"
    path.parent.mkdir(parents=True)
    path.write_bytes(raw)
    table = read_table(tmp_path / "a[1]*", "patients")
    assert table["anchor_age"].to_list() == [60, 61] and table["gender"].to_list() == ["F", None]
    assert table["dod"].is_null().to_list() == [False, True]


@pytest.mark.parametrize("damage", ["cut", "changed"])
def test_a_damaged_gz_names_the_file(tmp_path: Path, damage: str) -> None:
    path = write_mimic_iv(tmp_path) / "hosp/patients.csv.gz"
    good = path.read_bytes()
    path.write_bytes(good[:20] if damage == "cut" else good[:30] + bytes(5) + good[30:])
    with pytest.raises(ValueError, match=r"patients.csv.gz"):
        read_table(tmp_path, "patients")


def test_dates_and_times_both_parse(tmp_path: Path) -> None:
    write_mimic_iv(tmp_path, patients=[patient(dod="2150-02-03"), patient(2, dod="2150-02-03 04:05:06")])
    assert read_table(tmp_path, "patients")["dod"].dt.hour().to_list() == [0, 4]
    assert read_table(tmp_path, "patients")["dod"].dtype == pl.Datetime("us")
