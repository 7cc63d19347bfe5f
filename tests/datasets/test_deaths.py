"""Deaths as MIMIC-IV records them: labels and samples of both protocols, and what is counted."""

from datetime import datetime, timedelta
from pathlib import Path

import pandas as pd
import polars as pl
import pytest

from datasets.extract_config import ExtractConfig
from datasets.schema import SPLITS
from tasks import TASKS
from tests.raw_tables import admission, chart, patient, stay, write_mimic_cxr, write_mimic_iv
from tests.stores import extract_with_samples

PROTOCOL_PAGE = Path(__file__).parents[2] / "docs/protocol.md"
START = datetime(2150, 1, 2, 10)
DIED = {"hospital_expire_flag": 1, "discharge_location": "DIED"}
LEFT = {"hospital_expire_flag": 0, "discharge_location": "HOME"}


def at(hours: float) -> str:
    return str(START + timedelta(hours=hours))


class Records:
    """Raw tables of subjects with a stay of one unit each."""

    def __init__(self) -> None:
        self.tables: dict[str, list] = {name: [] for name in ("patients", "admissions", "icustays")}
        self.tables["chartevents"] = []

    def add(
        self, number: int, hours: float, left: float, dod: str = "", begin: float = 0.0, subject: int = 0,
        **changes: object,
    ) -> None:  # fmt: skip
        """Add a stay of `hours` hours from `begin` on, whose admission ends `left` hours after it."""
        ids = {"subject": subject or number, "hadm": 100 + number}
        times = {"admittime": at(begin - 0.05), "dischtime": at(begin + hours + left)}
        if not subject:
            self.tables["patients"].append(patient(number, dod=dod))
        self.tables["admissions"].append(admission(**ids, **times | changes))
        places = {"intime": at(begin), "outtime": at(begin + hours)}
        self.tables["icustays"].append(stay(**ids, stay_id=number, days=hours / 24, **places))
        charted = {"subject_id": ids["subject"], "hadm_id": ids["hadm"], "stay_id": number}
        self.tables["chartevents"].append(chart(220045, 80, at(begin + 0.5), **charted))

    def extract(self, folder: Path, protocol: str) -> "Store":
        write_mimic_iv(folder / "iv", **self.tables)
        config = ExtractConfig(folder / "iv", folder / protocol, protocol=protocol)
        extract_with_samples(config)
        return Store(config.out)


class Store:
    """Stays and samples of an extraction."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.stays = pd.read_parquet(folder / "stays.parquet").set_index("stay_id")

    def samples(self, task: str, number: int) -> pd.DataFrame:
        files = (pd.read_csv(self.folder / task / f"{split}_listfile.csv") for split in SPLITS)
        table = pd.concat(files)
        return table[table["stay_id"] == number]

    def describe(self, number: int) -> str:
        """Return the labels of a stay as docs/protocol.md has them."""
        if number not in self.stays.index:
            return "no stay"
        mortality, readmission = (
            ", ".join(map(str, self.samples(task, number)["y_true"])) or "none"
            for task in ("in-hospital-mortality", "readmission")
        )
        decompensation = self.samples("decompensation", number)["y_true"]
        hours = len(self.samples("length-of-stay", number))
        return f"{mortality}; {len(decompensation)} ({decompensation.sum()}); {hours}; {readmission}"


def ten_situations() -> Records:
    records = Records()
    records.add(1, 72, 0, "2150-01-05", **DIED)
    records.add(2, 60, 17, "2150-01-05", hospital_expire_flag=0, discharge_location="HOSPICE")
    records.add(3, 10, 0, "2150-01-02", deathtime=at(11), **DIED)
    records.add(4, 72, -75, "2150-01-05", deathtime=at(72), **DIED)
    records.add(5, 60, 0, "2150-01-03", deathtime=at(20), **DIED)
    records.add(6, 50, 0, "2150-01-04", deathtime=at(50), **DIED)
    records.add(7, 55, 0, begin=50.1, subject=6, **LEFT)
    records.add(8, 72, 0, "2150-01-05", deathtime=at(72), **DIED)
    records.add(9, 72, 2, "2150-01-05", deathtime=at(74), **DIED)
    records.add(10, 72, 0, "2150-01-05", deathtime="2150-01-05 00:00:00", **DIED)
    return records


def documented_situations() -> list[list[str]]:
    """Return the rows of the death table of docs/protocol.md: number, medmod, corrected."""
    lines = PROTOCOL_PAGE.read_text().split("## Deaths")[1].split("\n## ")[0].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return [[row[0], *row[2:]] for row in rows if row[0].isdigit()]


def test_the_ten_situations_have_the_labels_of_the_protocol_page(tmp_path: Path) -> None:
    medmod, corrected = (ten_situations().extract(tmp_path, name) for name in ("medmod", "corrected"))
    made = [[str(n), medmod.describe(n), corrected.describe(n)] for n in range(1, 11)]
    assert made == documented_situations()


def test_contradictions_are_counted_and_stays_after_death_are_an_attrition_row(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    store = ten_situations().extract(tmp_path, "corrected")
    counts = pd.read_csv(store.folder / "deaths.csv").set_index("finding")["stays"]
    assert counts["hospital_expire_flag 1, no deathtime"] == 1
    assert counts["deathtime at midnight, read as a day"] == 1
    assert counts["deathtime after discharge"] == 1
    assert counts["discharge before admission, mended"] == 1
    attrition = pd.read_csv(store.folder / "attrition.csv").set_index("rule")["removed_stays"]
    assert attrition["alive at ICU admission"] == 1
    assert "1  discharge before admission, mended" in capsys.readouterr().out


def test_medmod_has_no_attrition_row_and_no_table_of_deaths(tmp_path: Path) -> None:
    store = ten_situations().extract(tmp_path, "medmod")
    assert not (store.folder / "deaths.csv").exists() and "death_hour_known" not in store.stays
    assert "alive at ICU admission" not in (store.folder / "attrition.csv").read_text()


@pytest.mark.parametrize(
    ("changes", "mortality"),
    [
        ({}, 0),
        ({"hospital_expire_flag": ""}, 0),
        ({"hospital_expire_flag": "", "discharge_location": "DIED"}, 1),
        ({"hospital_expire_flag": "", "deathtime": at(70)}, 1),
        ({"hospital_expire_flag": 0, "discharge_location": "DIED"}, 0),
        ({"hospital_expire_flag": 0, "deathtime": at(70)}, 0),
        ({"hospital_expire_flag": 1, "discharge_location": "HOME"}, 1),
    ],
)
def test_the_flag_says_who_died_and_other_records_do_where_it_is_missing(
    tmp_path: Path, changes: dict, mortality: int
) -> None:
    records = Records()
    records.add(1, 72, 1, **{"discharge_location": "HOME"} | changes)
    assert records.extract(tmp_path, "corrected").stays["mortality"].item() == mortality


def test_releases_without_flag_and_place_are_read(tmp_path: Path) -> None:
    records = Records()
    records.add(1, 72, 0, "2150-01-05", deathtime=at(72))
    write_mimic_iv(tmp_path / "iv", gz=False, **records.tables)
    path = tmp_path / "iv/hosp/admissions.csv"
    table = pl.read_csv(path).drop("hospital_expire_flag", "discharge_location")
    table.write_csv(path)
    extract_with_samples(ExtractConfig(tmp_path / "iv", tmp_path / "out", protocol="corrected"))
    assert Store(tmp_path / "out").stays["mortality"].item() == 1


def test_no_sample_of_any_task_ends_after_death(tmp_path: Path) -> None:
    records = Records()
    records.add(1, 90, 0, "2150-01-04", deathtime=at(50.5), **DIED)
    write_mimic_iv(tmp_path / "iv", **records.tables)
    shots = [
        {"dicom_id": name, "subject_id": 1, "study_id": number, "ViewPosition": "AP",
         "StudyDate": (START + timedelta(hours=hours)).strftime("%Y%m%d"),
         "StudyTime": (START + timedelta(hours=hours)).strftime("%H%M%S")}
        for number, (name, hours) in enumerate({"a": 20, "b": 60}.items())
    ]  # fmt: skip
    findings = [{"subject_id": 1, "study_id": number} for number in range(2)]
    write_mimic_cxr(tmp_path / "cxr", shots, findings)
    ends = {}
    for protocol in ("medmod", "corrected"):
        config = ExtractConfig(tmp_path / "iv", tmp_path / protocol, tmp_path / "cxr", protocol=protocol)
        extract_with_samples(config)
        store = Store(config.out)
        ends[protocol] = {task: store.samples(task, 1)["end_hours"].max() for task in TASKS}
    assert ends["corrected"] | {"readmission": None} == {
        "phenotyping": 50.5, "in-hospital-mortality": 48.0, "decompensation": 50.0, "length-of-stay": 50.0,
        "radiology": 20.0, "readmission": None,
    }  # fmt: skip
    assert ends["medmod"]["radiology"] == 60.0 and ends["medmod"]["length-of-stay"] == 90.0


@pytest.mark.parametrize(
    ("death", "end", "samples"),
    [
        (at(30.0), 30, 26),  # with an hour: to the hour of death
        ("2150-01-04 00:00:00", 14, 10),  # the 38th hour at the earliest
    ],
)
def test_a_death_of_unknown_hour_gives_no_decompensation_samples_near_it(
    tmp_path: Path, death: str, end: int, samples: int
) -> None:
    records = Records()
    records.add(1, 72, 0, deathtime=death, **DIED)
    found = records.extract(tmp_path, "corrected").samples("decompensation", 1)
    assert (found["end_hours"].max(), len(found)) == (end, samples)
    assert found["y_true"].any() == (end == 30)


def test_a_death_in_a_later_year_changes_no_sample(tmp_path: Path) -> None:
    records = Records()
    records.add(1, 72, 1, "2151-07-01", **LEFT)
    store = records.extract(tmp_path, "corrected")
    assert store.describe(1) == "0; 68 (0); 68; 0"


def test_a_stay_after_death_is_no_readmission_of_an_earlier_one(tmp_path: Path) -> None:
    records = Records()
    records.add(1, 72, 1, "2150-01-07", **LEFT)
    records.add(2, 50, 1, begin=24 * 8, subject=1, **LEFT)
    store = records.extract(tmp_path, "corrected")
    assert store.describe(1) == "0; 68 (0); 68; 0" and store.describe(2) == "no stay"


def test_a_discharge_before_admission_becomes_the_end_of_the_stay(tmp_path: Path) -> None:
    records = Records()
    records.add(1, 72, -75, **LEFT)
    dischtime = records.extract(tmp_path, "corrected").stays["dischtime"].item()
    assert dischtime == START + timedelta(hours=72)
