"""The synthetic folders: the releases' layout, reproducible, as dirty as real ones, and learnable."""

import shutil
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from datasets.conditions import groups_of
from datasets.cxr import image_path, study_time
from datasets.extract_config import ExtractConfig
from datasets.raw.cells import to_time
from datasets.raw.reading import read_table
from datasets.raw.tables import TABLES
from datasets.schema import SYNTHETIC_MARKER
from datasets.store import Store
from datasets.synthetic import release
from datasets.synthetic.config import SyntheticConfig
from datasets.synthetic.events import draw_charts, draw_labs
from datasets.synthetic.images import SIGNS, XRay, draw_xray, draw_xrays, in_groups, xray_size
from datasets.synthetic.latents import (
    LATENTS,
    SEVERITY_CORRELATION,
    draw_latents,
    draw_outcome,
    liability,
    loadings_of,
)
from datasets.synthetic.patients import PATIENTS_PER_BLOCK, Block, draw_block, read_stays
from datasets.synthetic.release import main, write_synthetic, write_xrays_for_stays
from datasets.synthetic.simulation import Simulation
from datasets.synthetic.studies import draw_studies
from tests.stores import extract_with_samples
from tests.training.toy import room_for

# Columns of MIMIC-IV 2.2 and MIMIC-CXR-JPG 2.0.0, in order.
COLUMNS = {
    "hosp/patients": "subject_id,gender,anchor_age,anchor_year,anchor_year_group,dod",
    "hosp/admissions": "subject_id,hadm_id,admittime,dischtime,deathtime,admission_type,admit_provider_id,"
    "admission_location,discharge_location,insurance,language,marital_status,race,edregtime,edouttime,"
    "hospital_expire_flag",
    "hosp/diagnoses_icd": "subject_id,hadm_id,seq_num,icd_code,icd_version",
    "hosp/labevents": "labevent_id,subject_id,hadm_id,specimen_id,itemid,order_provider_id,charttime,"
    "storetime,value,valuenum,valueuom,ref_range_lower,ref_range_upper,flag,priority,comments",
    "hosp/d_labitems": "itemid,label,fluid,category",
    "icu/icustays": "subject_id,hadm_id,stay_id,first_careunit,last_careunit,intime,outtime,los",
    "icu/chartevents": "subject_id,hadm_id,stay_id,caregiver_id,charttime,storetime,itemid,value,valuenum,"
    "valueuom,warning",
    "icu/d_items": "itemid,label,abbreviation,linksto,category,unitname,param_type,lownormalvalue,"
    "highnormalvalue",
}
METADATA = (
    "dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,Rows,Columns,StudyDate,"
    "StudyTime,ProcedureCodeSequence_CodeMeaning,ViewCodeSequence_CodeMeaning,"
    "PatientOrientationCodeSequence_CodeMeaning"
)


@pytest.fixture(scope="module")
def drawing(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[int]]:
    """Both folders, and how many blocks of patients were in memory when each was drawn."""
    out = tmp_path_factory.mktemp("synthetic")
    blocks, alive = [], []

    def draw_and_count(seed: int, number: int, simulation: Simulation) -> Block:
        alive.append(sum(block() is not None for block in blocks))
        block = draw_block(seed, number, simulation)
        blocks.append(weakref.ref(block))
        return block

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(release, "draw_block", draw_and_count)
        write_synthetic(SyntheticConfig(out, patients=120, seed=7, image_size=96), Simulation())
    return out, alive


@pytest.fixture(scope="module")
def made(drawing: tuple[Path, list[int]]) -> Path:
    return drawing[0]


@pytest.fixture(scope="module")
def charts(made: Path) -> pl.DataFrame:
    return table(made / "mimic-iv/icu/chartevents.csv.gz").with_columns(
        to_time(pl.col("charttime")).alias("charttime")
    )


def table(path: Path) -> pl.DataFrame:
    """A gzipped CSV file with ids as numbers and everything else as text."""
    frame = pl.read_csv(path, infer_schema=False)
    return frame.with_columns(
        pl.col("^(.*_id|itemid)$").exclude("dicom_id", "order_provider_id").cast(pl.Int64, strict=False)
    )


def contents(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


def auroc(truth: np.ndarray, score: np.ndarray) -> float:
    below = score[truth][:, None] - score[~truth][None]
    return float(np.mean(below > 0) + np.mean(below == 0) / 2)


def test_patients_are_drawn_and_let_go_block_by_block(drawing: tuple[Path, list[int]]) -> None:
    assert drawing[1] == [0, 1, 1]  # the one before stays until the next is there


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(made: Path, tmp_path: Path) -> None:
    again = SyntheticConfig(tmp_path / "again", patients=120, seed=7, image_size=96)
    write_synthetic(again, Simulation())
    assert contents(again.out) == contents(made)
    write_synthetic(SyntheticConfig(tmp_path / "other", patients=3, seed=6, image_size=96), Simulation())
    assert not (contents(tmp_path / "other").items() & contents(made).items()) - {
        (name, bytes_)
        for name, bytes_ in contents(made).items()
        if name.endswith(("SYNTHETIC", "items.csv.gz"))
    }


def test_more_patients_leave_the_first_ones_as_they_are(made: Path, tmp_path: Path) -> None:
    write_synthetic(
        SyntheticConfig(tmp_path, patients=PATIENTS_PER_BLOCK + 3, seed=7, image_size=96), Simulation()
    )
    few = table(tmp_path / "mimic-iv/hosp/patients.csv.gz")["subject_id"].implode()
    assert len(few[0]) == PATIENTS_PER_BLOCK + 3
    for path in tmp_path.rglob("*.csv.gz"):
        full, part = table(made / path.relative_to(tmp_path)), table(path)
        if "subject_id" in part.columns:
            assert part.equals(full.filter(pl.col("subject_id").is_in(few))), path.name
    images = {name: data for name, data in contents(tmp_path).items() if name.endswith(".jpg")}
    assert images and images.items() <= contents(made).items()


def test_drawing_in_processes_changes_nothing(tmp_path: Path) -> None:
    for workers in (1, 2):
        config = SyntheticConfig(tmp_path / str(workers), patients=6, image_size=64, workers=workers)
        write_synthetic(config, Simulation())
    assert contents(tmp_path / "1") == contents(tmp_path / "2")


@pytest.mark.parametrize("side", [64, 150])
def test_xrays_drawn_together_are_those_drawn_alone(side: int) -> None:
    rng = np.random.default_rng(3)
    views, portrait = rng.choice(["AP", "PA", "LATERAL", "LL", ""], 40), rng.random(40) < 0.5
    signs = 1.5 * rng.standard_normal((40, len(SIGNS)))
    xrays = [
        XRay(10_000_000 + n // 2, 50_000_000 + n, n % 3, views[n], *xray_size(side, portrait[n]), signs[n])
        for n in range(40)
    ]
    assert {xray.signs[SIGNS.index("lesion")] > 1.6 for xray in xrays} == {False, True}
    groups = in_groups(xrays)
    assert sorted(row for rows in groups for row in rows) == list(range(len(xrays)))
    assert max(map(len, groups)) > 1
    for rows in groups:
        together = draw_xrays([xrays[row] for row in rows], 5, Simulation())
        for row, pixels in zip(rows, together, strict=True):
            assert np.array_equal(pixels, draw_xray(xrays[row], 5, Simulation())), xrays[row]


def test_columns_are_those_of_the_releases(made: Path) -> None:
    for name, columns in COLUMNS.items():
        assert ",".join(table(made / f"mimic-iv/{name}.csv.gz").columns) == columns
    assert ",".join(table(made / "mimic-cxr-jpg/mimic-cxr-2.0.0-metadata.csv.gz").columns) == METADATA
    for name in TABLES:
        root = made / ("mimic-cxr-jpg" if name in ("metadata", "chexpert") else "mimic-iv")
        assert len(read_table(root, name)), name


def test_each_folder_says_that_it_is_synthetic(made: Path) -> None:
    for name in ("mimic-iv", "mimic-cxr-jpg"):
        assert "no record here is of a real patient" in (made / name / SYNTHETIC_MARKER).read_text()


def test_patients_are_adults_with_stays_as_varied_as_real_ones(made: Path) -> None:
    iv = made / "mimic-iv"
    stays, admissions, patients = (read_table(iv, name) for name in ("icustays", "admissions", "patients"))
    assert patients["anchor_age"].min() >= 18
    assert 0.02 < (stays["first_careunit"] != stays["last_careunit"]).mean() < 0.3
    assert stays.group_by("hadm_id").len()["len"].max() > 1
    assert admissions.group_by("subject_id").len()["len"].max() > 1
    assert 0.3 < (stays["los"] >= 2).mean() < 0.75
    assert stays["los"].max() > 10
    assert (stays["outtime"] > stays["intime"]).all()
    without = admissions.join(stays, on="subject_id", how="anti")
    assert 0 < len(without) < 0.2 * len(admissions)
    joined = stays.join(admissions, on="hadm_id")
    assert (joined["admittime"] <= joined["intime"]).all()


def test_some_come_back_within_thirty_days_and_some_later(made: Path) -> None:
    stays = read_table(made / "mimic-iv", "icustays").sort("subject_id", "intime")
    gap = (pl.col("intime").shift(-1).over("subject_id") - pl.col("outtime")).dt.total_hours() / 24
    other = pl.col("hadm_id") != pl.col("hadm_id").shift(-1).over("subject_id")
    days = stays.select(pl.when(other).then(gap).alias("days"))["days"].drop_nulls()
    assert (days > 0).all() and (days <= 30).any() and (days > 30).any()


def test_deaths_are_in_hospital_or_later(made: Path) -> None:
    admissions = read_table(made / "mimic-iv", "admissions")
    dod = read_table(made / "mimic-iv", "patients").select("subject_id", "dod")
    last = (
        admissions.sort("admittime")
        .group_by("subject_id", maintain_order=True)
        .last()
        .join(dod, on="subject_id")
    )
    died = last.filter(pl.col("deathtime").is_not_null())
    assert 0.06 < len(died) / len(admissions) < 0.2
    assert (died["deathtime"] <= died["dischtime"]).all()
    assert (died["deathtime"].dt.date() == died["dod"].dt.date()).all()
    assert len(died) == admissions["deathtime"].is_not_null().sum()
    later = last.filter(pl.col("deathtime").is_null() & pl.col("dod").is_not_null())
    assert len(later) and (later["dod"] > later["dischtime"]).all()


def test_diagnoses_hold_every_condition_in_both_versions_and_other_codes(made: Path) -> None:
    codes = read_table(made / "mimic-iv", "diagnoses_icd")
    conditions = set(loadings_of("condition"))
    for version in (9, 10):
        of_version = codes.filter(pl.col("icd_version") == version)["icd_code"].to_list()
        groups = [groups_of(code, version, "corrected") for code in of_version]
        assert any(not group & conditions for group in groups)
        assert len(frozenset().union(*groups) & conditions) >= 24
    new = codes.filter(pl.col("icd_version") == 10)["icd_code"].to_list()
    assert any(groups_of(c, 10, "corrected") and not groups_of(c, 10, "medmod") for c in new)


def test_charts_mix_units_as_real_ones_do(charts: pl.DataFrame) -> None:
    number = pl.col("valuenum").cast(pl.Float64, strict=False)
    median = dict(charts.group_by("itemid").agg(number.median()).iter_rows())
    assert 95 < median[223761] < 103 and 35 < median[223762] < 40
    assert 1.8 < median[226531] / median[226512] < 2.6 and 50 < median[224639] < 110
    assert 60 < median[226707] < 75 and 150 < median[226730] < 190
    oxygen = charts.filter(pl.col("itemid") == 223835)["value"].cast(pl.Float64, strict=False)
    assert ((oxygen > 0.2) & (oxygen <= 1)).any() and (oxygen > 20).any()


def test_charts_hold_the_texts_of_the_release(charts: pl.DataFrame) -> None:
    texts = {item: set(values) for item, values in charts.group_by("itemid").agg("value").iter_rows()}
    assert {"None", "To Pain", "To Speech", "Spontaneously"} <= texts[220739]
    assert {"Obeys Commands", "Abnormal extension", "No response"} <= texts[223901]
    assert {"Oriented", "No Response-ETT", "No Response"} <= texts[223900]
    assert {"Normal <3 secs", "Abnormal >3 secs"} <= texts[223951] and {"Brisk", "Delayed"} <= texts[224308]
    assert {"Unable to score", "___", "ERROR"} <= set().union(*texts.values())
    assert any("/" in value for value in texts[227243] | texts[224167] if value)


def test_charts_are_as_dirty_as_real_ones(charts: pl.DataFrame, made: Path) -> None:
    for column in ("hadm_id", "stay_id", "value"):
        assert 0 < charts[column].is_null().mean() < 0.01
    stays = read_table(made / "mimic-iv", "icustays")
    timed = charts.join(stays.select("stay_id", "intime", "outtime"), on="stay_id")
    assert (timed["charttime"] < timed["intime"]).any() and (timed["charttime"] > timed["outtime"]).any()
    assert len(charts.join(stays, on=["stay_id", "hadm_id"], how="anti").drop_nulls(["stay_id", "hadm_id"]))
    same = (
        charts.drop_nulls("stay_id")
        .group_by("stay_id", "itemid", "charttime")
        .agg(pl.col("value").n_unique())
    )
    assert (same["value"] > 1).any()
    vitals = charts.filter(pl.col("itemid").is_in([220045, 220210, 220277, 220179, 220181, 220050, 220052]))
    number = vitals["value"].cast(pl.Float64, strict=False)
    assert (number > 350).any() and (number == 0).any() and (number < 0).any()
    hours = (stays["outtime"] - stays["intime"]).dt.total_hours().sum()
    assert 8 < len(charts) / hours < 16


def test_labs_are_unsorted_have_no_stay_and_sometimes_no_admission(made: Path) -> None:
    labs = table(made / "mimic-iv/hosp/labevents.csv.gz")
    assert not labs["charttime"].is_sorted() and not labs["subject_id"].is_sorted()
    assert 0.02 < labs["hadm_id"].is_null().mean() < 0.3
    assert {50931, 50809, 50817, 50820, 51478, 51491, 51094, 50831} <= set(labs["itemid"])
    assert {"___", "NEG"} <= set(labs["value"])


def test_xrays_are_in_the_releases_layout(made: Path) -> None:
    root = made / "mimic-cxr-jpg"
    metadata = read_table(root, "metadata").with_columns(study_time())
    paths = [
        image_path(root, *row) for row in metadata.select("subject_id", "study_id", "dicom_id").iter_rows()
    ]
    assert sorted(paths) == sorted(root.glob("files/p1?/p*/s*/*.jpg"))
    assert metadata["time"].null_count() == 0 and (metadata["StudyTime"] < 10_000).any()
    assert {"AP", "PA", "LATERAL", None} <= set(metadata["ViewPosition"])
    assert metadata.group_by("study_id").len()["len"].max() > 1
    sizes = table(root / "mimic-cxr-2.0.0-metadata.csv.gz").select("dicom_id", "Columns", "Rows")
    for dicom_id, columns, rows in sizes.head(5).iter_rows():
        with Image.open(next(path for path in paths if path.stem == dicom_id)) as image:
            assert (image.mode, image.size) == ("L", (int(columns), int(rows)))
            assert min(image.size) == 96 and np.asarray(image).std() > 10


def test_findings_are_positive_negative_uncertain_or_missing_and_some_studies_have_none(made: Path) -> None:
    chexpert = read_table(made / "mimic-cxr-jpg", "chexpert")
    for value in (1.0, 0.0, -1.0, None):
        assert chexpert["Edema"].eq_missing(value).any()
    positive = chexpert.drop("subject_id", "study_id").select((pl.all() == 1).sum())
    assert min(positive.row(0)) > 0
    metadata = read_table(made / "mimic-cxr-jpg", "metadata")
    assert 0 < len(metadata.join(chexpert, on="study_id", how="anti")) < 0.2 * len(metadata)


@pytest.mark.parametrize("paired", [0.0, 0.4, 1.0])
def test_the_fraction_of_stays_with_a_labelled_ap_xray_is_that_of_the_flag(paired: float) -> None:
    blocks = [in_stay(draw_block(2, number, Simulation()), number, paired) for number in range(8)]
    stays = sum(count for count, _ in blocks)
    assert abs(sum(len(xrays) for _, xrays in blocks) / stays - paired) < 0.06


def in_stay(block: Block, number: int, paired: float) -> tuple[int, pl.DataFrame]:
    """Number of stays, and the first labelled AP X-ray within each stay that has one."""
    studies = draw_studies(2, number, block, paired, 96)
    labelled = studies.studies.with_row_index("study").filter(pl.col("labelled") & ~pl.col("standing"))
    xrays = labelled.join(block.stays.select("patient", "stay_id", "intime", "outtime"), on="patient")
    xrays = xrays.filter(pl.col("time").is_between("intime", "outtime"))
    xrays = xrays.unique("stay_id", maintain_order=True)
    return len(block.stays), xrays.with_columns(signs=pl.Series(studies.signs[xrays["study"]]))


def test_xrays_lie_within_and_outside_stays_and_with_subjects_without_any(made: Path) -> None:
    stays = read_table(made / "mimic-iv", "icustays")
    metadata = read_table(made / "mimic-cxr-jpg", "metadata").with_columns(study_time())
    near = metadata.join(stays, on="subject_id")
    inside = near["time"].is_between(near["intime"], near["outtime"])
    assert inside.any() and (near["time"] < near["intime"]).any() and (near["time"] > near["outtime"]).any()
    assert len(metadata.join(stays, on="subject_id", how="anti"))
    studies = near.filter(inside).group_by("stay_id").agg(pl.col("study_id").n_unique())
    assert studies["study_id"].max() > 1


def test_xrays_for_stays_need_no_patients_of_ours(made: Path, tmp_path: Path) -> None:
    config = SyntheticConfig(tmp_path / "cxr", seed=1, image_size=64, for_stays=made / "mimic-iv")
    write_xrays_for_stays(config, made / "mimic-iv", Simulation())
    root = config.out / "mimic-cxr-jpg"
    assert not (config.out / "mimic-iv").exists() and "real stays" in (root / SYNTHETIC_MARKER).read_text()
    metadata, stays = read_table(root, "metadata").with_columns(study_time()), read_stays(made / "mimic-iv")
    assert set(metadata["subject_id"]) <= set(stays["subject_id"])
    epoch = pl.col("time").dt.epoch("s").is_between("intime", "outtime")
    seen = metadata.filter(pl.col("ViewPosition") == "AP").join(stays, on="subject_id").filter(epoch)
    assert 0.45 < seen["stay_id"].n_unique() / len(stays) < 0.75
    assert len(list(root.rglob("*.jpg"))) == len(metadata)


@pytest.fixture(scope="module")
def store(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("extracted") / "store"
    extract_with_samples(ExtractConfig(made / "mimic-iv", out))
    return out


def test_xrays_for_stays_take_a_finished_store(made: Path, store: Path, tmp_path: Path) -> None:
    stays = read_stays(store)
    assert 0 < len(stays) < len(read_stays(made / "mimic-iv"))  # those of the cohort
    main(SyntheticConfig(tmp_path, seed=1, image_size=64, for_stays=store))
    config = ExtractConfig(made / "mimic-iv", tmp_path / "store", tmp_path / "mimic-cxr-jpg")
    extract_with_samples(config)
    both = Store.open(config.out)
    assert both.images()["stay_id"].nunique() > len(stays) / 3
    assert both.manifest.synthetic_images and not Store.open(store).manifest.images


def test_xrays_for_stays_refuse_a_half_written_store(store: Path, tmp_path: Path) -> None:
    half = Path(shutil.copytree(store, tmp_path / "half"))
    (half / "manifest.yaml").unlink()
    (half / ".work").mkdir()
    with pytest.raises(ValueError, match=r"half has no manifest\.yaml: its extraction did not end"):
        read_stays(half)


def test_a_folder_that_is_there_is_left_alone_and_a_failure_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "mimic-cxr-jpg").mkdir()
    config = SyntheticConfig(tmp_path, patients=2, image_size=64)
    with pytest.raises(ValueError, match="mimic-cxr-jpg already there"):
        write_synthetic(config, Simulation())
    (tmp_path / "mimic-cxr-jpg").rmdir()
    with pytest.raises(ValueError, match="range"):
        write_synthetic(config, Simulation(death_rate=2.0))
    assert list(tmp_path.iterdir()) == []


def test_pending_xrays_are_not_drawn_after_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []

    def draw(xrays: object, paths: list[str], *_: object) -> None:
        time.sleep(0.05)
        drawn.extend(paths)

    monkeypatch.setattr(release, "write_xrays", draw)
    xrays = [XRay(n, n, 0, "AP", 64 + n, 64, np.zeros(len(SIGNS))) for n in range(40)]  # each a group
    with (
        pytest.raises(RuntimeError, match="power cut"),
        release.open_cxr(tmp_path / "cxr", "notice", 0, Simulation(), 1) as cxr,
    ):
        cxr.write_xrays(xrays, [str(n) for n in range(40)])
        raise RuntimeError("power cut")
    assert len(drawn) < 20


def test_a_full_disk_is_reported_and_leaves_nothing(tmp_path: Path) -> None:
    config = SyntheticConfig(tmp_path, patients=2, images=False)
    with room_for(2000), pytest.raises(OSError, match=r"no space left to write .*free space there"):
        write_synthetic(config, Simulation())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "wrong", [{"patients": 0}, {"paired": 1.2}, {"image_size": 8}, {"for_stays": Path("x"), "images": False}]
)
def test_flags_that_make_no_sense_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="--"):
        SyntheticConfig(Path("out"), **wrong)


def test_latent_states_and_liabilities_have_variance_one() -> None:
    states = draw_latents(np.random.default_rng(0), 100_000)
    assert np.allclose(states.std(axis=0), 1, atol=0.02)
    assert np.allclose(np.corrcoef(states.T)[0], SEVERITY_CORRELATION, atol=0.02)
    assert abs(liability(states, loadings_of("outcome")["readmission"]).std() - 1) < 0.02
    pneumonia = draw_outcome(np.random.default_rng(1), states, loadings_of("condition")["122"], 0.15, 0.5)
    assert abs(pneumonia.mean() - 0.15) < 0.01
    assert auroc(pneumonia[:3000], states[:3000, LATENTS.index("consolidation")]) > 0.75


@pytest.fixture(scope="module")
def blocks() -> Iterator[list[Block]]:
    yield [draw_block(2, number, Simulation()) for number in range(12)]


def died_in(block: Block) -> pl.DataFrame:
    return block.stays.join(block.admissions.select("hadm_id", "died"), on="hadm_id")


def test_vitals_tell_who_dies(blocks: list[Block]) -> None:
    frames = []
    for number, block in enumerate(blocks):
        events = draw_charts(2, number, block).with_columns(pl.col("valuenum").cast(pl.Float64, strict=False))
        means = [
            pl.col("valuenum").filter(pl.col("itemid").is_in(items)).median().alias(name)
            for name, items in {"rate": [220045], "breath": [220210], "pressure": [220181, 220052]}.items()
        ]
        frames.append(events.group_by("stay_id").agg(means).join(died_in(block), on="stay_id"))
    seen = pl.concat(frames).drop_nulls(["rate", "breath", "pressure"])
    score = seen["rate"] / 16 + seen["breath"] / 4.5 - seen["pressure"] / 11
    assert 0.65 < auroc(seen["died"].to_numpy(), score.to_numpy()) < 0.95


def test_laboratory_values_tell_hidden_states(blocks: list[Block]) -> None:
    frames = []
    for number, block in enumerate(blocks):
        labs = draw_labs(2, number, block).with_columns(pl.col("valuenum").cast(pl.Float64, strict=False))
        medians = [
            pl.col("valuenum").filter(pl.col("itemid") == item).median().alias(name)
            for item, name in ((50912, "creatinine"), (50931, "glucose"), (50820, "ph"))
        ]
        states = pl.DataFrame(block.course.latents, schema=list(LATENTS), orient="row")
        owner = pl.concat([block.admissions.select("hadm_id"), states], how="horizontal")
        frames.append(labs.group_by("hadm_id").agg(medians).join(owner, on="hadm_id"))
    seen = pl.concat(frames).drop_nulls(["creatinine", "glucose", "ph"])
    for value, state, sign in (("creatinine", "renal", 1), ("glucose", "chronic", 1), ("ph", "renal", -1)):
        assert sign * np.corrcoef(seen[value], seen[state])[0, 1] > 0.2, value


def test_the_last_day_before_death_shows_in_vitals(blocks: list[Block]) -> None:
    changes = {True: [], False: []}
    for number, block in enumerate(blocks):
        events = draw_charts(2, number, block).filter(pl.col("itemid") == 220045)
        rate = events.with_columns(pl.col("valuenum").cast(pl.Float64, strict=False).alias("rate"))
        rate = rate.filter(pl.col("rate").is_between(20, 250)).join(
            died_in(block).filter(pl.col("los") > 2), on="stay_id"
        )
        left = (pl.col("outtime") - pl.col("charttime").dt.epoch("s")) / 3600
        by_stay = rate.group_by("stay_id", "died").agg(
            pl.col("rate").filter(left < 8).mean() - pl.col("rate").filter(left > 30).mean()
        )
        for died, change in by_stay.select("died", "rate").drop_nulls().iter_rows():
            changes[died].append(change)
    assert np.mean(changes[True]) > np.mean(changes[False]) + 5


def test_xrays_tell_who_dies_and_who_has_fluid(blocks: list[Block]) -> None:
    brightness, died, fluid = [], [], []
    for number, block in enumerate(blocks):
        _, xrays = in_stay(block, number, 1.0)
        xrays = xrays.join(died_in(block).select("stay_id", "died"), on="stay_id")
        for row in xrays.iter_rows(named=True):
            xray = XRay(row["subject_id"], row["study_id"], 0, "AP", 115, 96, np.array(row["signs"]))
            pixels = draw_xray(xray, 2, Simulation()).astype(float)
            upper, lower = pixels[25:45, 15:80].mean(), pixels[62:80, 15:80].mean()
            brightness.append((lower - upper) / pixels.std())
            died.append(row["died"])
            fluid.append(row["signs"][3] > 1)
    assert auroc(np.array(fluid), np.array(brightness)) > 0.7
    assert 0.55 < auroc(np.array(died), np.array(brightness)) < 0.95
