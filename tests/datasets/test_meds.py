"""A store of a MEDS dataset is that of the raw tables, in both dialects; faulty datasets are refused."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow.parquet as pq
import pytest
import yaml

from datasets.extract_config import ExtractConfig
from datasets.extraction import extract
from datasets.meds.mapping import read_mapping
from datasets.meds.reading import MEDSDataset
from datasets.schema import RESOURCES
from datasets.splits import split_of
from datasets.store import Store
from tasks import TASKS
from tasks.samples import make_samples
from tests.meds_dataset import SPLITS, write_meds
from tests.random_cohort import random_cohort
from tests.raw_tables import admission, chart, lab, patient, stay, write_mimic_iv
from tests.stores import extract_with_samples

STORED = "2150-01-01 01:40:00"
SHIPPED = {name: RESOURCES / f"meds_mimic_iv_{name}.yaml" for name in ("charttime", "storetime")}


def cohort_tables(seed: int) -> dict[str, list[dict]]:
    """A random cohort in which nobody dies twice, and whose laboratory values are stored an hour later."""
    tables = random_cohort(seed, subjects=12).tables
    dead: set[object] = set()
    for row in tables["admissions"]:
        if row["subject_id"] in dead:
            row["deathtime"] = ""
        elif row.get("deathtime"):
            dead.add(row["subject_id"])
            next(p for p in tables["patients"] if p["subject_id"] == row["subject_id"])["dod"] = row[
                "deathtime"
            ][:10]
    for row in tables["labevents"]:
        row["storetime"] = str(pd.Timestamp(row["charttime"]) + pd.Timedelta(hours=1))
    return tables


def tables_of_one(**tables: list[dict]) -> dict[str, list[dict]]:
    """The tables of the one adult, admission and stay of `write_mimic_iv`, and others."""
    diagnosis = {"subject_id": 1, "hadm_id": 11, "seq_num": 1, "icd_code": "I509", "icd_version": 10}
    events = {"chartevents": [], "labevents": [lab(50931, "99", storetime=STORED)]}
    cohort = {"patients": [patient()], "admissions": [admission()], "icustays": [stay()]}
    return cohort | {"diagnoses_icd": [diagnosis]} | events | tables


def split_lists(folder: Path, tables: dict[str, list[dict]]) -> dict[str, Path]:
    """Lists of the test and validation subjects, as the splits of the dataset have them."""
    for name in ("test", "val"):
        lines = [f"{p['subject_id']},{int(split_of(p['subject_id']) == name)}" for p in tables["patients"]]
        (folder / f"{name}.csv").write_text("\n".join(lines))
    return {f"{name}_subjects": folder / f"{name}.csv" for name in ("test", "val")}


@pytest.mark.parametrize("lab_time", ["charttime", "storetime"])
@pytest.mark.parametrize("protocol", ["medmod", "corrected"])
def test_the_store_is_that_of_the_raw_tables(lab_time: str, protocol: str, tmp_path: Path) -> None:
    tables = cohort_tables(1)
    options = {"protocol": protocol, **split_lists(tmp_path, tables)}
    iv = write_mimic_iv(tmp_path / "iv", **tables)
    extract_with_samples(ExtractConfig(iv, tmp_path / "raw", lab_time=lab_time, **options))
    meds = write_meds(tmp_path / "meds", tables, lab_time)
    extract_with_samples(ExtractConfig(None, tmp_path / "store", meds=meds, protocol=protocol))
    raw, store = Store.open(tmp_path / "raw"), Store.open(tmp_path / "store")
    for column, expected in raw.stays().items():
        if column not in ("anchor_age", "age") or (column == "age" and protocol == "corrected"):
            pd.testing.assert_series_equal(store.stays()[column], expected, check_dtype=False, atol=1e-9)
    assert (store.stays()["age"] == 60 + store.stays()["intime"].dt.year - 2150).all()
    np.testing.assert_array_equal(store.hourly, raw.hourly)
    for task in TASKS:
        for split in SPLITS:
            pd.testing.assert_frame_equal(store.listfile(task, split), raw.listfile(task, split))
    assert store.manifest.stays > 10 and len(store.hourly) > 100
    manifest = yaml.safe_load((tmp_path / "store" / "manifest.yaml").read_text())
    assert manifest["lab_time"] == lab_time and "MIMIC_IV_MEDS" in manifest["meds"]["mapping"]


def test_without_ids_times_say_what_belongs_to_a_stay(tmp_path: Path) -> None:
    tables = cohort_tables(2)
    meds = [
        write_meds(tmp_path / n, tables, without=w)
        for n, w in (("ids", ()), ("none", ("hadm_id", "icustay_id")))
    ]
    stores = []
    for folder in meds:
        extract_with_samples(ExtractConfig(None, tmp_path / f"{folder.name}_store", meds=folder))
        stores.append(Store.open(tmp_path / f"{folder.name}_store"))
    with_ids, without = (store.stays().drop(columns=["hadm_id", "stay_id"]) for store in stores)
    pd.testing.assert_frame_equal(with_ids, without)
    np.testing.assert_array_equal(stores[0].hourly, stores[1].hourly)
    lost = yaml.safe_load((tmp_path / "none_store" / "manifest.yaml").read_text())["meds"]["lost"]
    assert {"hadm_id", "stay_id"} <= {line.split(":")[0] for line in lost}


def test_values_are_what_was_charted(tmp_path: Path) -> None:
    """Float32 numbers, texts beside them, redacted ones, and text that orders values of one second."""
    rows = [
        chart(226512, "71.3"), chart(220739, "None", valuenum=1.0), chart(220050, "120/80"),
        chart(223762, "36.6"), chart(220045, "9"), chart(220045, "21"),
    ]  # fmt: skip
    labs = [lab(50820, "___", valuenum=7.38), lab(50931, "greater than 500", valuenum=500.0)]
    tables = tables_of_one(chartevents=rows, labevents=labs)
    for protocol in ("medmod", "corrected"):
        write_mimic_iv(tmp_path / protocol / "iv", **tables)
        extract(ExtractConfig(tmp_path / protocol / "iv", tmp_path / protocol / "raw", protocol=protocol))
        meds = write_meds(tmp_path / protocol / "meds", tables)
        extract(ExtractConfig(None, tmp_path / protocol / "store", meds=meds, protocol=protocol))
        stores = [Store.open_without_samples(tmp_path / protocol / name) for name in ("raw", "store")]
        events = [pl.read_parquet(store.folder / "events.parquet") for store in stores]
        assert events[0].equals(events[1]) and len(events[0]) == (6 if protocol == "corrected" else 5)


def test_a_death_without_an_hour_refuses_decompensation(tmp_path: Path) -> None:
    ends = {"dischtime": "2150-01-03 12:00:00", "discharge_location": "DIED"}
    tables = tables_of_one(
        patients=[patient(dod="2150-01-03")],
        admissions=[admission(**ends)],
        chartevents=[chart(220045, "80")],
    )
    config = ExtractConfig(None, tmp_path / "store", meds=write_meds(tmp_path / "meds", tables))
    extract(config)
    make_samples(config.out, TASKS.values())
    store = Store.open(config.out)
    assert set(store.tasks) == set(TASKS) - {"decompensation"} and store.stays()["mortality"].tolist() == [1]
    with pytest.raises(
        ValueError, match="no samples of decompensation: it needs the hour of death, and 0 of 1"
    ):
        make_samples(config.out, [TASKS["decompensation"]])


def test_other_codes_are_read_by_a_mapping_of_ones_own(tmp_path: Path) -> None:
    charted = [chart(220045, "80"), chart(223761, "37"), chart(220739, "2")]
    tables = tables_of_one(chartevents=charted, labevents=[])
    meds = write_meds(tmp_path / "meds", tables)
    names = {"LAB//220045//UNK": "HR", "LAB//223761//UNK": "TEMP//C", "LAB//220739//UNK": "GCS//EYE"}
    for path in meds.rglob("data/*/*.parquet"):
        table = pl.read_parquet(path).with_columns(pl.col("code").replace(names)).to_arrow()
        pq.write_table(table, path)
    with pytest.raises(ValueError, match=r"the codes are not those of MIMIC_IV_MEDS .* --meds_mapping"):
        extract(ExtractConfig(None, tmp_path / "store", meds=meds))
    content = yaml.safe_load(SHIPPED["charttime"].read_text())
    eye = {"code": "GCS//EYE", "item": 220739, "texts": {"2": "To Pain"}}
    content |= {"items": "(?!)(?P<item>x)", "variables": {
        "Heart Rate": [{"code": "HR", "item": 220045}],
        "Temperature": [{"code": "TEMP//C", "item": 223761, "factor": 1.8, "offset": 32}],
        "Glascow coma scale eye opening": [eye],
    }}  # fmt: skip
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(content))
    extract(
        ExtractConfig(
            None, tmp_path / "store", meds=meds, meds_mapping=tmp_path / "own.yaml", protocol="corrected"
        )
    )
    events = pd.read_parquet(tmp_path / "store" / "events.parquet")
    read = dict(zip(events["variable"], events["value"], strict=True))
    assert read == {
        "Heart Rate": 80,
        "Temperature": pytest.approx(37, abs=1e-5),
        "Glascow coma scale eye opening": 0,
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"codes": {"sexx": "x"}}, "unknown key sexx"),
        ({"codes": {"sex": "x"}}, "codes: birth is missing"),
        ({"items": "LAB"}, r"items: 'LAB' has no group \(\?P<item>"),
        ({"items": "("}, "is no regular expression"),
        ({"lab_time": "noon"}, "lab_time: Input should be"),
        ({"colours": {}}, "colours"),
        ({"variables": {"Pulse": []}}, "there is no variable 'Pulse'"),
        ({"variables": {"Heart Rate": [{"code": "x", "item": 220277}]}}, "220277 is none of its items"),
    ],
)
def test_a_mapping_that_does_not_fit_is_refused(change: dict, message: str, tmp_path: Path) -> None:
    content = yaml.safe_load(SHIPPED["storetime"].read_text()) | change
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(ValueError, match=message):
        read_mapping(tmp_path / "own.yaml")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tables = tables_of_one(
        chartevents=[chart(220045, "80")], patients=[patient(), patient(2), patient(3), patient(6)]
    )
    return write_meds(tmp_path_factory.mktemp("meds") / "meds", tables, "storetime")


def change_shard(change: Callable[[pl.DataFrame], pl.DataFrame]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        path = next(p for p in sorted(folder.rglob("data/*/*.parquet")) if len(pl.read_parquet(p)) > 5)
        pq.write_table(change(pl.read_parquet(path)).to_arrow(), path)

    return apply


def in_two_files(folder: Path) -> None:
    train, held_out = (folder / "data" / name / "0.parquet" for name in ("train", "held_out"))
    both = pl.concat([pl.read_parquet(held_out), pl.read_parquet(train).tail(1)])
    pq.write_table(both.to_arrow(), held_out)


def without_splits(folder: Path) -> None:
    (folder / "metadata" / "subject_splits.parquet").unlink()


def with_split(split: str | None, count: int) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        path = folder / "metadata" / "subject_splits.parquet"
        pl.read_parquet(path).head(count).with_columns(split=pl.lit(split, pl.String)).write_parquet(path)

    return apply


def cut(folder: Path) -> None:
    path = sorted(folder.rglob("data/*/*.parquet"))[-1]
    path.write_bytes(path.read_bytes()[:-20])


def is_code(prefix: str) -> pl.Expr:
    return pl.col("code").str.starts_with(prefix)


DAMAGES = {
    "unsorted": (change_shard(lambda t: t.reverse()), "are not in order of time"),
    "apart": (change_shard(lambda t: pl.concat([t[3:], t[:3]])), "rows of a subject are"),
    "two_files": (in_two_files, "the rows of a subject are also in"),
    "zone": (
        change_shard(lambda t: t.with_columns(pl.col("time").dt.replace_time_zone("UTC"))),
        "have no zone",
    ),
    "nanoseconds": (change_shard(lambda t: t.cast({"time": pl.Datetime("ns")})), r"is timestamp\[ns\], not"),
    "no_code": (change_shard(lambda t: t.drop("code")), "column code is missing"),
    "null_code": (
        change_shard(lambda t: t.with_columns(code=None).cast({"code": pl.String})),
        "a row has no code",
    ),
    "text_id": (change_shard(lambda t: t.cast({"subject_id": pl.String})), "column subject_id is"),
    "no_splits": (without_splits, "subject_splits.parquet is missing"),
    "other_split": (with_split("test", 9), "test is none of train, tuning, held_out"),
    "null_split": (with_split(None, 9), "a row has no subject or no split"),
    "few_splits": (with_split("train", 1), "subjects of the data have no split"),
    "cut": (cut, "cannot be read as a table of the standard"),
    "no_discharge": (
        change_shard(lambda t: t.filter(~is_code("HOSPITAL_DISCHARGE"))),
        "no code matches hospital_discharge",
    ),
    "text_ids": (
        change_shard(lambda t: t.with_columns(hadm_id=pl.format("ENC-{}", "hadm_id"))),
        "column hadm_id is no integer in any row of hospital_admission; leave hadm_id out",
    ),
    "no_stay_id": (
        change_shard(lambda t: t.with_columns(icustay_id=pl.lit(None, pl.Int64))),
        "column icustay_id is no integer in any row of icu_admission; leave stay_id out",
    ),
    "unplaced": (
        change_shard(lambda t: t.with_columns(hadm_id=pl.when(~is_code("LAB")).then("hadm_id"))),
        "2 observations during admissions of the cohort have no hadm_id, .*; leave hadm_id out",
    ),
    "no_values": (change_shard(lambda t: t.filter(~is_code("LAB"))), "finds no value of a variable there"),
    "empty": (lambda folder: shutil.rmtree(folder / "data"), "give the folder of a MEDS dataset"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_dataset_that_breaks_the_standard_is_refused(name: str, dataset: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(dataset, tmp_path / "meds")
    damage, message = DAMAGES[name]
    damage(folder)
    with pytest.raises(ValueError, match=message) as raised:
        extract(ExtractConfig(None, tmp_path / "store", meds=folder, meds_mapping=SHIPPED["storetime"]))
    assert str(tmp_path) in str(raised.value)


def test_observations_without_hadm_id_are_placed_by_their_times_if_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tables = tables_of_one(chartevents=[chart(220045, "80"), chart(220210, "20")])
    meds = write_meds(tmp_path / "meds", tables)
    change_shard(lambda t: t.with_columns(hadm_id=pl.when(~is_code("LAB//220210")).then("hadm_id")))(meds)
    extract(ExtractConfig(None, tmp_path / "by_id", meds=meds))
    assert "1 observations during admissions of the cohort have no hadm_id" in "".join(capsys.readouterr())
    content = yaml.safe_load(SHIPPED["charttime"].read_text())
    del content["columns"]["hadm_id"]
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(content))
    extract(ExtractConfig(None, tmp_path / "by_time", meds=meds, meds_mapping=tmp_path / "own.yaml"))
    read = {
        n: set(pd.read_parquet(tmp_path / n / "events.parquet")["variable"]) for n in ("by_id", "by_time")
    }
    assert read["by_time"] - read["by_id"] == {"Respiratory rate"} and len(read["by_id"]) == 2


def test_records_of_the_subject_and_other_words_are_understood(tmp_path: Path) -> None:
    """A race without an admission is the subject's, EXPIRED a place of death, and a hidden file no shard."""
    ends = admission(discharge_location="EXPIRED", admission_type="URGENT")
    meds = write_meds(tmp_path / "meds", tables_of_one(admissions=[ends], chartevents=[chart(220045, "80")]))

    def without_admission(rows: pl.DataFrame) -> pl.DataFrame:
        static = rows[:1].with_columns(code=pl.lit("RACE//ASIAN"))
        return pl.concat([static, rows.with_columns(race=pl.lit(None, pl.String))])

    change_shard(without_admission)(meds)
    hidden = meds / "data" / ".ipynb_checkpoints" / "0-checkpoint.parquet"
    hidden.parent.mkdir()
    hidden.write_bytes(b"no table")
    extract(ExtractConfig(None, tmp_path / "store", meds=meds, protocol="corrected"))
    stays = Store.open_without_samples(tmp_path / "store").stays()
    assert stays["race"].tolist() == ["ASIAN"] and stays["mortality"].tolist() == [1]
    assert stays["admission_type"].tolist() == ["URGENT"]


def test_without_diagnoses_phenotyping_is_refused(tmp_path: Path) -> None:
    meds = write_meds(tmp_path / "meds", tables_of_one(diagnoses_icd=[]))
    config = ExtractConfig(None, tmp_path / "store", meds=meds)
    extract_with_samples(config)
    assert set(Store.open(config.out).tasks) == set(TASKS) - {"phenotyping"}
    with pytest.raises(ValueError, match="no samples of phenotyping: it needs diagnoses, and no admission"):
        make_samples(config.out, [TASKS["phenotyping"]])


def test_lists_of_subjects_replace_the_splits(dataset: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(dataset, tmp_path / "meds")
    without_splits(folder)
    lists = split_lists(tmp_path, {"patients": [patient(2)]})
    extract(ExtractConfig(None, tmp_path / "store", meds=folder, **lists))
    assert Store.open_without_samples(tmp_path / "store").stays()["split"].tolist() == ["train"]


def test_options_that_contradict_are_refused(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="give one of --mimic_iv and --meds"):
        ExtractConfig(dataset, tmp_path, meds=dataset)
    with pytest.raises(ValueError, match="give one of --mimic_iv and --meds"):
        ExtractConfig()
    with pytest.raises(ValueError, match="has only the storetime of laboratory values"):
        extract(ExtractConfig(None, tmp_path / "store", meds=dataset, lab_time="charttime"))
    with pytest.raises(ValueError, match="--meds_mapping is for --meds"):
        ExtractConfig(dataset, tmp_path, meds_mapping=SHIPPED["charttime"])


def test_the_shipped_mappings_know_their_dialect(tmp_path: Path) -> None:
    for lab_time in SHIPPED:
        folder = write_meds(tmp_path / lab_time, tables_of_one(), lab_time)
        assert MEDSDataset(folder).lab_time == lab_time


def test_the_time_of_a_laboratory_value_is_that_of_its_storing_if_asked_for(tmp_path: Path) -> None:
    labs = [lab(50931, "99", storetime="2150-01-01 02:30:00"), lab(50931, "98", storetime="")]
    iv = write_mimic_iv(tmp_path / "iv", labevents=labs, chartevents=[chart(220045, "80")])
    config, hours = ExtractConfig(iv, tmp_path / "store"), {}
    for lab_time in (None, "storetime"):
        extract(replace(config, out=tmp_path / f"{lab_time}", lab_time=lab_time))
        events = pd.read_parquet(tmp_path / f"{lab_time}" / "events.parquet")
        hours[lab_time] = dict(
            zip(events["variable"], zip(events["hours"], events["value"], strict=True), strict=True)
        )
    assert hours[None] == {"Heart Rate": (1, 80), "Glucose": (1, 99)}
    assert hours["storetime"] == {"Heart Rate": (1, 80), "Glucose": (2.5, 99)}
