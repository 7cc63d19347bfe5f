"""The extraction as a whole: what it writes, how it goes on, and what it refuses."""

import gzip
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from datasets.extract import MEMORY_OF_POLARS
from datasets.extract_config import ExtractConfig
from datasets.extraction import STEPS, Step
from datasets.schema import FINDINGS, SPLITS
from datasets.store import Store
from tasks import TASKS
from tests.raw_tables import admission, chart, patient, stay, write_mimic_cxr, write_mimic_iv
from tests.stores import extract_with_samples

ROOT = Path(__file__).parents[2]
VARIABLE = "_RJEM_MALLOC_CONF"


@pytest.fixture
def raw(tmp_path: Path) -> ExtractConfig:
    """One stay of three days with a few values and two X-rays, one of them unreadable."""
    rows = [chart(220045, 80 + h, f"2150-01-01 {h:02d}:30:00") for h in range(1, 6)]
    rows += [chart(220739, "To Speech", "2150-01-01 02:45:00")]
    codes = [{"subject_id": 1, "hadm_id": 11, "seq_num": 1, "icd_code": "99592", "icd_version": 9}]
    write_mimic_iv(tmp_path / "iv", chartevents=rows, diagnoses_icd=codes)
    shots = [
        {"dicom_id": name, "subject_id": 1, "study_id": study, "ViewPosition": "AP", "StudyDate": 21500101,
         "StudyTime": time}
        for name, study, time in (("a", 7, 24500.0), ("b", 7, 24501.0), ("c", 8, 190000.0))
    ]  # fmt: skip
    findings = [
        {"subject_id": 1, "study_id": 7, "Edema": -1.0, "Pneumonia": 1.0},
        {"subject_id": 1, "study_id": 8},
    ]
    write_mimic_cxr(tmp_path / "cxr", shots, findings)
    (tmp_path / "cxr/files/p1/p1/s8/c.jpg").write_bytes(b"broken")
    return ExtractConfig(tmp_path / "iv", tmp_path / "store", tmp_path / "cxr")


def listfile(store: Path, task: str) -> pd.DataFrame:
    return pd.concat(pd.read_csv(store / task / f"{split}_listfile.csv") for split in SPLITS)


def contents(store: Path) -> dict[str, str]:
    files = sorted(p for p in store.rglob("*") if p.is_file())
    return {p.relative_to(store).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_a_store_holds_what_the_layout_promises(raw: ExtractConfig) -> None:
    extract_with_samples(raw)
    names = {"manifest.yaml", "attrition.csv", "unmatched_codes.csv", "value_counts.csv", "normalizer.json",
             "stays.parquet", "events.parquet", "hourly.npy", "cxr.parquet", "cxr.npy",
             "cxr_rejected.csv", "diagnoses.parquet"}  # fmt: skip
    tables = {"attrition.csv", "labels.csv", *(f"{split}_listfile.csv" for split in SPLITS)}
    of_a_task = {"manifest.yaml", "partial_bins.npy", *tables}
    assert set(contents(raw.out)) == names | {f"{task}/{name}" for task in TASKS for name in of_a_task}
    store = Store.open(raw.out)
    assert set(store.manifest.files) == names - {"manifest.yaml"}
    assert set(store.tasks) == set(TASKS)
    assert all(set(task.files) == of_a_task - {"manifest.yaml"} for task in store.tasks.values())
    assert (store.manifest.stays, store.manifest.images, store.manifest.synthetic) == (1, 2, False)
    stays = pd.read_parquet(raw.out / "stays.parquet")
    assert stays["Septicemia (except in labor)"].item() == 1 and stays["events"].item() == 6
    assert stays["first_event_hours"].item() == 1.5


def test_samples_of_each_task(raw: ExtractConfig) -> None:
    extract_with_samples(raw)
    assert listfile(raw.out, "phenotyping")[["period_length", "bins", "cxr_row"]].values.tolist() == [
        [72.0, 72, 1]
    ]
    assert listfile(raw.out, "in-hospital-mortality")[["period_length", "end_hours"]].values.tolist() == [
        [0, 48.0]
    ]
    hours = listfile(raw.out, "decompensation")
    assert hours["period_length"].tolist() == [float(t) for t in range(5, 73)] and hours["y_true"].sum() == 0
    remaining = listfile(raw.out, "length-of-stay")
    assert (remaining["y_true"] + remaining["period_length"]).unique().tolist() == [72.0]
    assert listfile(raw.out, "readmission")["y_true"].tolist() == [0]


def test_radiology_has_a_sample_a_readable_study_and_resolves_uncertain_findings(raw: ExtractConfig) -> None:
    for uncertain, edema in (("zeros", 0.0), ("ones", 1.0), ("ignore", np.nan)):
        out = raw.out.with_name(uncertain)
        extract_with_samples(replace(raw, out=out, uncertain=uncertain))
        found = listfile(out, "radiology")
        assert len(found) == 1 and found["cxr_row"].item() == 0 and found["Pneumonia"].item() == 1
        assert found["Edema"].item() == edema or (np.isnan(edema) and np.isnan(found["Edema"].item()))
        assert found[list(FINDINGS)].sum(axis=1).item() == 1 + (uncertain == "ones")


def test_the_row_that_ends_a_window_holds_no_later_event(raw: ExtractConfig) -> None:
    extract_with_samples(raw)
    sample = listfile(raw.out, "radiology").iloc[0]
    assert sample["end_hours"] == 2.75 and sample["bins"] == 3 and sample["partial_bin_row"] == 0
    hour, (partial_bin,) = np.load(raw.out / "hourly.npy")[2], np.load(raw.out / "radiology/partial_bins.npy")
    assert hour[50] == partial_bin[50] == 82 and hour[9] == partial_bin[9] == 1  # 02:30 and 02:45


def test_rejected_images_are_listed_and_counted_and_leave_no_pixels(
    raw: ExtractConfig, capsys: pytest.CaptureFixture
) -> None:
    (raw.mimic_cxr / "files/p1/p1/s7/b.jpg").unlink()
    extract_with_samples(raw)
    rejected = pd.read_csv(raw.out / "cxr_rejected.csv")
    assert rejected["dicom_id"].tolist() == ["b", "c"]
    assert rejected["reason"].str.split(":").str[0].tolist() == ["missing", "unreadable"]
    assert pd.read_parquet(raw.out / "cxr.parquet")["dicom_id"].tolist() == ["a"]
    images = Store.open(raw.out).cxr
    assert len(images) == 1 and images[0].min() > 40
    assert listfile(raw.out, "phenotyping")["cxr_row"].tolist() == [0]  # the last that can be read
    output = capsys.readouterr().out
    assert "1 in the store, 2 rejected" in output and "missing: 1" in output and "unreadable: 1" in output


def test_release_one_gives_the_same_store(raw: ExtractConfig, tmp_path: Path) -> None:
    """1.0 has core/ for the patients and their admissions, and calls race ethnicity; here, plain text."""
    extract_with_samples(raw)
    old = tmp_path / "old"
    for path in raw.mimic_iv.rglob("*.csv.gz"):
        name = path.name.removesuffix(".csv.gz")
        folder = "core" if name in ("patients", "admissions") else path.parent.name
        (old / folder).mkdir(parents=True, exist_ok=True)
        text = gzip.decompress(path.read_bytes()).replace(b",race,", b",ethnicity,")
        (old / folder / f"{name}.csv").write_bytes(text)
    extract_with_samples(replace(raw, mimic_iv=old, out=tmp_path / "again"))
    one, other = (contents(out) for out in (raw.out, tmp_path / "again"))
    assert {name for name in one if one[name] != other[name]} == {name for name in one if "manifest" in name}


def test_attrition_and_the_conditions_of_both_protocols_are_told(
    raw: ExtractConfig, capsys: pytest.CaptureFixture
) -> None:
    stays = [stay(), stay(2, 22, 222, last_careunit="SICU"), stay(3, 33, 333)]
    codes = [{"subject_id": 1, "hadm_id": 11, "seq_num": 1, "icd_code": "I219", "icd_version": 10}]
    write_mimic_iv(
        raw.mimic_iv,
        icustays=stays,
        admissions=[admission(), admission(2, 22), admission(3, 33)],
        patients=[patient(), patient(2), patient(3)],
        diagnoses_icd=codes,
        chartevents=[chart(220045, 80)],
    )
    extract_with_samples(raw)
    table = pd.read_csv(raw.out / "attrition.csv")
    assert table["stays"].tolist() == [3, 2, 2, 2, 2, 2, 1]
    assert table["removed_stays"].tolist() == [0, 1, 0, 0, 0, 0, 1]
    assert table["removed_subjects"].tolist() == table["removed_admissions"].tolist() == [0, 1, 0, 0, 0, 0, 1]
    output = " ".join(capsys.readouterr().out.split())
    assert "medmod 0 corrected 1 Acute myocardial infarction" in output
    assert "2 / 2 / 2 -1 / 1 / 1 no transfer between units" in output


def test_a_list_of_stays_makes_a_store_of_its_own(
    raw: ExtractConfig, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    tables = {
        "icustays": [stay(), stay(2, 22, 222), stay(3, 33, 333, last_careunit="SICU")],
        "admissions": [admission(), admission(2, 22), admission(3, 33)],
        "patients": [patient(), patient(2), patient(3)],
    }
    write_mimic_iv(raw.mimic_iv, chartevents=[chart(220045, 80)], **tables)
    own = replace(raw, stays=tmp_path / "stays.csv")
    own.stays.write_text("stay_id\n111\n333\n444\n")
    extract_with_samples(own)
    assert pd.read_parquet(raw.out / "stays.parquet")["stay_id"].tolist() == [111]
    rules = pd.read_csv(raw.out / "attrition.csv").set_index("rule")
    assert rules.loc["in the list of --stays", ["stays", "removed_stays"]].tolist() == [1, 1]
    output = "".join(capsys.readouterr())
    assert "2 of its 3 stays are not in the cohort; the release does not have 1 of them" in output
    with pytest.raises(ValueError, match="made of other input or options"):
        extract_with_samples(raw)
    own.stays.write_text("444\n")
    for folder in ("new", "empty"):
        if folder == "empty":
            (tmp_path / folder).mkdir()
        with pytest.raises(ValueError, match="passes the rules of the cohort"):
            extract_with_samples(replace(own, out=tmp_path / folder))
    assert not (tmp_path / "new").exists() and list((tmp_path / "empty").iterdir()) == []
    own.stays.write_text("stay_id;\n")
    with pytest.raises(ValueError, match="line 1: 'stay_id;' is no stay_id"):
        extract_with_samples(replace(own, out=tmp_path / "other"))
    assert not (tmp_path / "other").exists()


def test_without_xrays_every_task_but_radiology_has_samples(raw: ExtractConfig) -> None:
    extract_with_samples(replace(raw, mimic_cxr=None))
    assert len(listfile(raw.out, "radiology")) == 0
    assert (listfile(raw.out, "phenotyping")["cxr_row"] == -1).all()


def test_a_finished_store_is_left_alone_and_another_one_is_not_overwritten(raw: ExtractConfig) -> None:
    extract_with_samples(raw)
    before = contents(raw.out)
    extract_with_samples(raw)
    with pytest.raises(ValueError, match="made of other input or options"):
        extract_with_samples(replace(raw, protocol="corrected"))
    assert contents(raw.out) == before


def test_what_a_kill_behind_the_manifest_left_is_cleared_away(raw: ExtractConfig) -> None:
    extract_with_samples(raw)
    before = contents(raw.out)
    (raw.out / ".work").mkdir()
    (raw.out / ".work" / "manifest.done").touch()
    extract_with_samples(raw)
    assert contents(raw.out) == before and not (raw.out / ".work").exists()


def test_killed_while_it_wrote_the_manifest_a_store_can_be_opened(raw: ExtractConfig) -> None:
    (raw.out / ".work").mkdir(parents=True)
    (raw.out / "manifest.yaml.partial").write_text("store_ver")
    extract_with_samples(raw)
    of_the_store = {path.name for path in raw.out.iterdir() if path.is_file()}
    assert set(Store.open(raw.out).manifest.files) == of_the_store - {"manifest.yaml"}


def test_a_half_made_store_of_other_options_is_not_continued(
    raw: ExtractConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(config: ExtractConfig) -> None:
        raise ValueError("a damaged table")

    with monkeypatch.context() as patched, pytest.raises(ValueError, match="a damaged table"):
        patched.setitem(STEPS, "xrays", Step(fail, STEPS["xrays"].tables))
        extract_with_samples(raw)
    with pytest.raises(ValueError, match="half-made store"):
        extract_with_samples(replace(raw, timestep=2.0))


def test_a_folder_with_other_files_is_left_alone(raw: ExtractConfig) -> None:
    raw.out.mkdir()
    (raw.out / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds files and is no store"):
        extract_with_samples(raw)
    assert [path.name for path in raw.out.iterdir()] == ["thesis.txt"]


def test_a_timestep_of_nothing_is_an_error(raw: ExtractConfig) -> None:
    with pytest.raises(ValueError, match="positive number of hours"):
        extract_with_samples(replace(raw, timestep=0.0))


def command(raw: ExtractConfig, *more: str) -> list[str]:
    paths = ["--mimic_iv", str(raw.mimic_iv), "--mimic_cxr", str(raw.mimic_cxr), "--out", str(raw.out)]
    return [sys.executable, "-m", "datasets.extract", *paths, *more]


def test_the_command_reports_one_line_and_fails(raw: ExtractConfig) -> None:
    (raw.mimic_iv / "icu/chartevents.csv.gz").unlink()
    done = subprocess.run(command(raw), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "table chartevents not found; looked for icu/chartevents.csv.gz" in done.stderr


def test_a_damaged_event_table_is_named(raw: ExtractConfig) -> None:
    path = raw.mimic_iv / "icu/chartevents.csv.gz"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ValueError, match=r"icu/chartevents\.csv\.gz: not a readable .*download it again"):
        extract_with_samples(raw)


@pytest.mark.parametrize(
    ("table", "column"), [("iv/icu/chartevents", "itemid"), ("cxr/mimic-cxr-2.0.0-chexpert", "Edema")]
)
def test_a_missing_column_is_told_before_anything_is_done(
    raw: ExtractConfig, table: str, column: str
) -> None:
    path = raw.out.parent / f"{table}.csv.gz"
    text = gzip.decompress(path.read_bytes()).replace(column.encode(), b"other", 1)
    path.write_bytes(gzip.compress(text))
    releases = r"\(MIMIC-\S+ \d.* have it\); of the columns that are read, "
    with pytest.raises(ValueError, match=rf"{path.name}: column {column} is missing {releases}"):
        extract_with_samples(raw)
    assert not raw.out.exists()


@pytest.mark.parametrize("line", ["12", "1,1"])
def test_a_bad_split_list_leaves_nothing_half_made(raw: ExtractConfig, line: str, tmp_path: Path) -> None:
    good, bad = tmp_path / "good.csv", tmp_path / "bad.csv"
    good.write_text("1,1\n")
    bad.write_text(f"{line}\n")
    with pytest.raises(ValueError, match=r"bad\.csv, line 1: '12'|in both lists"):
        extract_with_samples(replace(raw, test_subjects=good, val_subjects=bad))
    assert not raw.out.exists()


def test_lists_of_subjects_that_the_release_lacks_are_refused(
    raw: ExtractConfig, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    test, val = tmp_path / "test.csv", tmp_path / "val.csv"
    lists = replace(raw, test_subjects=test, val_subjects=val)
    test.write_text("1,1\n8,1\n9,0\n")
    val.write_text("1,0\n7,1\n6,1\n")
    with pytest.raises(
        ValueError, match=r"--val_subjects \S+val\.csv: 0 of 2 listed subjects have an ICU stay"
    ):
        extract_with_samples(lists)
    line = "test.csv: 1 of 2 listed subjects have an ICU stay in the release; it does not have the others"
    assert line in capsys.readouterr().out and not (raw.out / "manifest.yaml").exists()
    tables = {"icustays": [stay(), stay(2, 22, 222)], "admissions": [admission(), admission(2, 22)]}
    write_mimic_iv(raw.mimic_iv, patients=[patient(), patient(2)], chartevents=[chart(220045, 80)], **tables)
    val.write_text("2,1\n")
    extract_with_samples(lists)
    assert pd.read_parquet(raw.out / "stays.parquet")["split"].tolist() == ["test", "val"]


def test_a_list_that_is_not_there_is_called_so(raw: ExtractConfig, tmp_path: Path) -> None:
    missing = tmp_path / "missing.csv"
    with pytest.raises(ValueError, match=r"missing\.csv: no such file; check the path$"):
        extract_with_samples(replace(raw, test_subjects=missing, val_subjects=missing))


def test_an_unknown_flag_names_the_nearest(raw: ExtractConfig) -> None:
    done = subprocess.run(command(raw, "--protocoll", "medmod"), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.splitlines() == [
        "error: unknown flag --protocoll; did you mean --protocol?",
        "All flags: python -m datasets.extract --help",
    ]


def test_a_full_disk_says_so_and_leaves_no_store(raw: ExtractConfig) -> None:
    small = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
    small += "resource.setrlimit(resource.RLIMIT_FSIZE, (16384, 16384));"
    small += "import runpy, sys; sys.argv = sys.argv[1:];"
    small += "runpy.run_module('datasets.extract', run_name='__main__')"
    line = [sys.executable, "-c", small, *command(raw)[2:]]
    uncounted = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    done = subprocess.run(line, cwd=ROOT, env=uncounted, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    text = r"error: .*no space left to write \S+\.npy \(File too large\); free space there and run the same"
    assert re.search(text, done.stderr) and "Traceback" not in done.stderr
    assert not (raw.out / "manifest.yaml").exists()
    extract_with_samples(raw)
    assert (raw.out / "manifest.yaml").exists()


def test_killed_in_every_step_the_store_is_the_same_to_the_byte(raw: ExtractConfig) -> None:
    whole = replace(raw, out=raw.out.with_name("whole"))
    extract_with_samples(whole)
    killed = []
    for name in (None, *list(STEPS)[:-1]):
        run = subprocess.Popen(command(raw), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        written = raw.out / ".work" / ("identity.json" if name is None else f"{name}.done")
        while not written.exists() and run.poll() is None:
            time.sleep(0.0005)
        if run.poll() is None:
            os.kill(run.pid, signal.SIGKILL)
        killed.append(run.wait())
    assert killed.count(-signal.SIGKILL) >= 4, killed
    assert not (raw.out / "manifest.yaml").exists() or killed[-1] == 0
    extract_with_samples(raw)
    assert contents(raw.out) == contents(whole.out)


@pytest.mark.parametrize("protocol", ["medmod", "corrected"])
def test_one_absurd_value_is_counted_and_hardly_moves_the_normaliser(
    raw: ExtractConfig, tmp_path: Path, protocol: str, capsys: pytest.CaptureFixture
) -> None:
    rows = [chart(220045, 60 + 7 * h % 50, f"2150-01-0{1 + h // 24} {h % 24:02d}:30:00") for h in range(70)]
    absurd = chart(220045, 10_000_000, "2150-01-02 03:59:59")
    fitted = {}
    for name, more in (("clean", []), ("dirty", [absurd])):
        write_mimic_iv(tmp_path / name, chartevents=[*rows, *more])
        config = replace(raw, mimic_iv=tmp_path / name, out=tmp_path / f"{name}_store", protocol=protocol)
        extract_with_samples(config)
        content = json.loads((config.out / "normalizer.json").read_text())
        fitted[name] = content["std"][content["channels"].index("Heart Rate")]
        counts = pd.read_csv(config.out / "value_counts.csv").set_index("variable")["implausible"]
        assert counts["Heart Rate"] == len(more)
    assert fitted["dirty"] == pytest.approx(fitted["clean"], rel=0.01)
    assert "value_counts.csv): Heart Rate 1" in capsys.readouterr().out
    kept = np.load(tmp_path / "dirty_store/hourly.npy").max() == 10_000_000
    assert kept == (protocol == "medmod")


def test_a_path_is_no_pattern(raw: ExtractConfig, tmp_path: Path) -> None:
    extract_with_samples(raw)
    odd = tmp_path / "mimic [v2.2] *?{a,b}"
    for name in ("iv", "cxr"):
        shutil.copytree(tmp_path / name, odd / name)
    extract_with_samples(replace(raw, mimic_iv=odd / "iv", mimic_cxr=odd / "cxr", out=odd / "store [1]"))
    assert contents(odd / "store [1]") == contents(raw.out)


def picture(path: Path, grey: int = 50) -> None:
    """Write a JPEG of one grey."""
    Image.new("L", (64, 64), grey).save(path, "JPEG")


@pytest.mark.parametrize("killed_in", [None, "xrays", "manifest"])
def test_images_that_arrive_later_are_taken_up_by_the_same_command(
    raw: ExtractConfig, monkeypatch: pytest.MonkeyPatch, killed_in: str | None
) -> None:
    folder = raw.mimic_cxr / "files/p1/p1"
    arriving = (folder / "s7/b.jpg").read_bytes()
    (folder / "s7/b.jpg").unlink()
    extract_with_samples(raw)
    assert len(pd.read_csv(raw.out / "cxr_rejected.csv")) == 2
    (folder / "s7/b.jpg").write_bytes(arriving)
    picture(folder / "s8/c.jpg")
    extract_with_samples(replace(raw, out=raw.out.with_name("fresh")))
    (folder / "s7/a.jpg").write_bytes(b"read before, and not read again")
    if killed_in:
        with monkeypatch.context() as patch:
            patch.setitem(STEPS, killed_in, Step(killed, STEPS[killed_in].tables))
            with pytest.raises(RuntimeError, match="killed"):
                extract_with_samples(raw)
        assert not (raw.out / "manifest.yaml").exists()
    extract_with_samples(raw)
    assert contents(raw.out) == contents(raw.out.with_name("fresh"))
    assert pd.read_csv(raw.out / "cxr_rejected.csv").empty


def killed(config: ExtractConfig) -> None:
    raise RuntimeError("killed")


def test_images_that_arrive_before_a_store_is_finished_are_in_it(
    raw: ExtractConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("xrays", "events"):
        with monkeypatch.context() as patch:
            if name == "xrays":  # after its parts were written
                patch.setattr(
                    "datasets.extraction._write_images", lambda out, images, parts, reasons: killed(raw)
                )
            else:
                patch.setitem(STEPS, name, Step(killed, STEPS[name].tables))
            with pytest.raises(RuntimeError, match="killed"):
                extract_with_samples(raw)
        picture(raw.mimic_cxr / "files/p1/p1/s8/c.jpg") if name == "events" else None
    extract_with_samples(raw)
    assert pd.read_parquet(raw.out / "cxr.parquet")["dicom_id"].tolist() == ["a", "b", "c"]
    extract_with_samples(replace(raw, out=raw.out.with_name("fresh")))
    assert contents(raw.out) == contents(raw.out.with_name("fresh"))


def mend(path: Path, old: str, new: str) -> None:
    """Replace text of a gzipped table."""
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()).replace(old.encode(), new.encode())))


@pytest.mark.parametrize(
    ("table", "good", "bad", "kept"),
    [
        ("iv/icu/chartevents", "2150-01-01 03:30:00", "2150-01-01 03:30:60", {"cohort", "xrays"}),
        ("iv/icu/chartevents", ",11,111,", ",x1,111,", {"cohort", "xrays"}),
        ("cxr/mimic-cxr-2.0.0-chexpert", "1,7,", "1,7x,", {"cohort"}),
        ("iv/hosp/diagnoses_icd", "99592,9", "99592,11", set()),
    ],
)
def test_a_table_that_was_mended_is_taken_up_and_the_steps_before_are_kept(
    raw: ExtractConfig, table: str, good: str, bad: str, kept: set[str], capsys: pytest.CaptureFixture
) -> None:
    path = raw.out.parent / f"{table}.csv.gz"
    content = path.read_bytes()
    extract_with_samples(replace(raw, out=raw.out.with_name("whole")))
    right = contents(raw.out.with_name("whole"))
    mend(path, good, bad)
    with pytest.raises(ValueError, match=path.name.split(".csv")[0].split("-")[-1]):
        extract_with_samples(raw)
    path.write_bytes(content)
    capsys.readouterr()
    extract_with_samples(raw)
    assert set(re.findall(r"\[(\w+)\] done before", capsys.readouterr().out)) == kept
    assert contents(raw.out) == right


def test_a_table_that_a_finished_step_has_read_is_read_again_when_it_has_changed(
    raw: ExtractConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(STEPS, "grid", Step(killed, STEPS["grid"].tables))
        with pytest.raises(RuntimeError, match="killed"):
            extract_with_samples(raw)
    path = raw.mimic_iv / "hosp/patients.csv.gz"
    mend(path, ",60,2150", ",61,2150")  # of the same size
    extract_with_samples(raw)
    assert pd.read_parquet(raw.out / "stays.parquet")["age"].tolist() == [61]
    extract_with_samples(replace(raw, out=raw.out.with_name("fresh")))
    assert contents(raw.out) == contents(raw.out.with_name("fresh"))


@pytest.mark.parametrize("views", [("ap",), ("AP,PA",), (" AP ", "pa"), ("AP", "PA")])
def test_views_are_names_in_any_letters_with_commas_or_blanks(
    raw: ExtractConfig, views: tuple[str, ...]
) -> None:
    mend(raw.mimic_cxr / "mimic-cxr-2.0.0-metadata.csv.gz", "b,1,7,AP", "b,1,7,pa")
    extract_with_samples(replace(raw, views=views))
    wanted = ["AP"] if views == ("ap",) else ["AP", "PA"]
    assert pd.read_parquet(raw.out / "cxr.parquet")["view"].tolist() == wanted


def arrange(raw: ExtractConfig, how: str) -> None:
    """Copy the X-rays to other places, as other people keep them."""
    root = raw.mimic_cxr
    for path in sorted((root / "files").rglob("*.jpg")):
        place = {
            "flat": root / "files" / path.name,
            "resized": root / "resized" / path.name,
            "beside the tables": root / path.name,
            "without files/": root / path.relative_to(root / "files"),
            "JPEG": path.with_suffix(".JPEG"),
            "PNG": path.with_suffix(".png"),
            "JPEG called PNG": path.with_suffix(".png"),
            "flat PNG": root / "images" / f"{path.stem}.png",
        }[how]
        place.parent.mkdir(parents=True, exist_ok=True)
        if "PNG" in how and "JPEG" not in how and path.stem != "c":
            Image.open(path).save(place)
            path.unlink()
        else:
            path.rename(place)


@pytest.mark.parametrize(
    "how",
    ["flat", "resized", "beside the tables", "without files/", "JPEG", "PNG", "JPEG called PNG", "flat PNG"],
)
def test_xrays_in_other_places_are_found_by_their_names(raw: ExtractConfig, tmp_path: Path, how: str) -> None:
    extract_with_samples(replace(raw, out=tmp_path / "right"))
    arrange(raw, how)
    extract_with_samples(raw)
    ours, right = contents(raw.out), contents(tmp_path / "right")
    assert {name for name in right if ours[name] != right[name]} <= {"cxr_rejected.csv", "manifest.yaml"} | {
        name for name in right if name.endswith("/manifest.yaml")
    }


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ("views", r"--views FRONTAL, LL: mimic-cxr-\*-metadata has AP \(3\)"),
        ("subjects", "no X-ray belongs to a stay: .* has 3 images, 0 of the cohort's subjects"),
        ("studies", "3 of these have a view of --views, 0 of these a row in mimic-cxr"),
        (
            "dates",
            "3 of these a row in .*, and none was taken during one of the .* stays .* of icustays; use",
        ),
        ("files", r"none of the 3 X-rays can be used \(first: \S+/files/p1/p1/s7/a.jpg: missing\)"),
        (
            "16 bits",
            r"none of the 3 X-rays can be used \(first: \S+/a.png: more than 8 bits a pixel: convert",
        ),
    ],
)
def test_a_store_without_an_xray_although_they_were_given_is_an_error(
    raw: ExtractConfig, change: str, fault: str
) -> None:
    tables = {name: raw.mimic_cxr / f"mimic-cxr-2.0.0-{name}.csv.gz" for name in ("metadata", "chexpert")}
    if change == "views":
        raw = replace(raw, views=("AP", "frontal", "LL"))
    elif change in ("subjects", "studies", "dates"):
        old, new = {"subjects": (",1,", ",2,"), "studies": (",1,", ",1,1"), "dates": ("2150", "2160")}[change]
        mend(tables["metadata"], old, new)
        if change == "subjects":
            mend(tables["chexpert"], "\n1,", "\n2,")
    else:
        shutil.rmtree(raw.mimic_cxr / "files")
        if change == "16 bits":
            for name in "abc":
                Image.fromarray(np.full((64, 64), 300, np.uint16)).save(raw.mimic_cxr / f"{name}.png")
    with pytest.raises(ValueError, match=fault):
        extract_with_samples(raw)
    assert not (raw.out / "manifest.yaml").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="Polars has another allocator there")
@pytest.mark.parametrize("own", [None, "dirty_decay_ms:700"])
def test_the_allocator_of_polars_is_told_before_it_is_loaded(own: str | None) -> None:
    def loaded(program: str, own: str | None) -> str:
        others = {name: value for name, value in os.environ.items() if name != VARIABLE}
        environment = others | ({VARIABLE: own} if own else {})
        ended = subprocess.run(
            [sys.executable, "-c", program], env=environment, cwd=ROOT, capture_output=True, text=True
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout + ended.stderr

    assert "Invalid conf pair: nonsense:1" in loaded("import polars", "nonsense:1")  # so it is read
    setting = f"import os, datasets.extract, polars; print(os.environ['{VARIABLE}'])"
    said = loaded(setting, own).strip()  # Polars writes its own setting before; of two the later one counts
    assert said.endswith(own or MEMORY_OF_POLARS) and "jemalloc" not in said
    early = "import sys, datasets.extract; print('polars' in sys.modules)"
    assert loaded(early, own).strip() == "False"
