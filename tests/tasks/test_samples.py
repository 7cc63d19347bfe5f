"""Samples are made from a finished store alone, the same whenever and however often that is begun."""

import hashlib
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

from datasets.extract_config import ExtractConfig
from datasets.extraction import extract
from datasets.schema import SPLITS
from datasets.store import Store
from tasks import TASKS
from tasks.counts import count_labels, small_splits
from tasks.samples import SamplesConfig, main, make_samples
from tasks.task import Task
from tests.random_cohort import random_cohort
from tests.stores import extract_with_samples

ROOT = Path(__file__).parents[2]


def afternoons(stays: pd.DataFrame, images: pd.DataFrame, protocol: str) -> pd.DataFrame:
    """A sample a quarter of an hour after every fifth hour, which reads a partial bin."""
    ends = [
        (row, hour + 0.25) for row, los in enumerate(stays["los_hours"]) for hour in range(5, int(los), 5)
    ]
    table = pd.DataFrame(ends, columns=["stay_row", "end_hours"])
    died = stays["mortality"].to_numpy()[table["stay_row"]]
    return table.assign(period_length=table["end_hours"], y_true=died)


NEW_TASK = Task("afternoons", "binary", ("y_true",), "auroc", 2, afternoons)


@pytest.fixture(scope="module")
def extracted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store without samples; its raw release is gone."""
    folder = tmp_path_factory.mktemp("samples")
    iv, cxr = random_cohort(3, 20).write(folder / "raw")
    extract(ExtractConfig(iv, folder / "store", cxr))
    shutil.rmtree(folder / "raw")
    return folder / "store"


@pytest.fixture
def store(extracted: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(extracted, tmp_path / "store"))


def contents(store: Path) -> dict[str, str]:
    files = sorted(p for p in store.rglob("*") if p.is_file())
    return {p.relative_to(store).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def listfile(store: Path, task: str) -> pd.DataFrame:
    return pd.concat(pd.read_csv(store / task / f"{split}_listfile.csv") for split in SPLITS)


def command(store: Path, *flags: str) -> list[str]:
    return [sys.executable, "-m", "tasks.samples", "--store", str(store), *flags]


def test_a_task_added_later_has_the_samples_that_it_would_have_had_from_the_start(store: Path) -> None:
    late = Path(shutil.copytree(store, store.with_name("late")))
    make_samples(store, [*TASKS.values(), NEW_TASK])
    make_samples(late, TASKS.values())
    before = contents(late)
    make_samples(late, [NEW_TASK])
    assert contents(late) == contents(store)
    assert before.items() < contents(late).items()
    opened = Store.open(late)
    assert set(opened.tasks) == {*TASKS, "afternoons"}
    partial_bin_row = listfile(late, "afternoons")["partial_bin_row"]
    assert sorted(partial_bin_row) == list(range(len(opened.partial_bins("afternoons")))) != []


def test_one_task_can_be_written_alone(store: Path) -> None:
    main(SamplesConfig(store, "radiology"))
    assert set(Store.open(store).tasks) == {"radiology"}
    with pytest.raises(ValueError, match=f"--store {store} --task readmission"):
        Store.open(store).listfile("readmission", "train")


def test_subjects_and_counts_are_those_of_the_stays(store: Path) -> None:
    manifests = make_samples(store, TASKS.values())
    subjects = Store.open(store).stays()["subject_id"].to_numpy()
    for task, manifest in manifests.items():
        samples = listfile(store, task)
        assert (samples["subject_id"].to_numpy() == subjects[samples["stay_row"].astype(int)]).all()
        assert (samples["stay"].str.split("_").str[0].astype(int) == samples["subject_id"]).all()
        assert sum(count.samples for count in manifest.samples.values()) == len(samples)
        assert sum(count.with_xray for count in manifest.samples.values()) == (samples["cxr_row"] >= 0).sum()


@pytest.mark.parametrize("protocol", ["medmod", "corrected"])
def test_the_rules_of_a_task_leave_the_stays_that_have_samples(tmp_path: Path, protocol: str) -> None:
    iv, cxr = random_cohort(3, 20).write(tmp_path / "raw")
    extract_with_samples(ExtractConfig(iv, tmp_path / "store", cxr, protocol=protocol))
    for name in TASKS:
        rules = pd.read_csv(tmp_path / "store" / name / "attrition.csv").set_index("rule")
        samples = listfile(tmp_path / "store", name)
        assert rules["stays"].iloc[-1] == samples["stay_id"].nunique()
        assert rules["removed_stays"].iloc[-1] == 0  # each stay without a sample breaks a rule
        assert rules["removed_stays"].sum() == rules["stays"].iloc[0] - rules["stays"].iloc[-1]
        assert (rules[list(SPLITS)].sum(axis=1) == rules["stays"]).all()


def test_positives_are_those_of_the_listfiles(store: Path) -> None:
    make_samples(store, TASKS.values())
    for task in TASKS.values():
        counts = pd.read_csv(store / task.name / "labels.csv").set_index(["label", "split", "data_pairs"])
        for split in SPLITS:
            samples = pd.read_csv(store / task.name / f"{split}_listfile.csv")
            for pairs, part in (("partial", samples), ("paired", samples[samples["cxr_row"] >= 0])):
                targets = task.encode(part[list(task.labels)].to_numpy(float))
                for number, label in enumerate(task.labels if task.kind != "ordinal" else ()):
                    positive = part[targets[:, number] == 1]
                    row = counts.loc[label, split, pairs]
                    assert (row["samples"], row["positives"]) == (len(part), len(positive))
                    assert row["positive_stays"] == positive["stay_id"].nunique()
                if task.kind == "ordinal":
                    of_classes = counts.xs((split, pairs), level=("split", "data_pairs"))["positives"]
                    assert of_classes.tolist() == [(targets == k).sum() for k in range(task.classes)]


def test_an_unknown_class_is_counted_nowhere() -> None:
    samples = pd.DataFrame({"y_true": [3.0, np.nan, 30.0, 400.0], "stay_row": [0, 0, 0, 1], "cxr_row": -1})
    counts = count_labels(TASKS["length-of-stay"], samples, pd.DataFrame({"split": ["train", "val"]}))
    found = counts.xs(("train", "partial"), level=("split", "data_pairs"))
    assert (found["samples"] == 2).all() and found["positives"].tolist() == [1, 1, *[0] * 8]
    assert found["positive_stays"].tolist() == [1, 1, *[0] * 8] and (found["negative_stays"] == 1).all()
    of_val = counts.xs(("val", "partial"), level=("split", "data_pairs"))
    assert of_val["positives"].tolist() == [*[0] * 9, 1]
    assert of_val["negative_stays"].tolist() == [*[1] * 9, 0]


def label_counts(**stays: tuple[int, int]) -> pd.DataFrame:
    """Positive and negative stays by split_pairs, such as val_paired=(1, 9); 9 and 9 elsewhere."""
    keys = [(split, pairs) for split in SPLITS for pairs in ("partial", "paired")]
    rows = [("y", *key, 18, 9, *stays.get("_".join(key), (9, 9))) for key in keys]
    columns = ["label", "split", "data_pairs", "samples", "positives", "positive_stays", "negative_stays"]
    return pd.DataFrame(rows, columns=columns)


@pytest.mark.parametrize(
    ("stays", "warning"),
    [
        ({}, ""),
        (
            {"val_paired": (4, 9)},
            "the val stays with an X-ray have at most 4 of a label's rarer class",
        ),
        (
            {"val_paired": (9, 0)},
            "with an X-ray have no label of both classes: the validation loss must",
        ),
        ({"val_paired": (1, 0), "val_partial": (1, 0)}, "the val stays have no label of both classes"),
        ({"train_paired": (0, 9)}, "the train stays with an X-ray have no label .*: nothing can be learned"),
        ({"test_paired": (0, 9)}, "the test stays with an X-ray have no label .*: it has no score"),
    ],
)
def test_a_split_that_is_too_small_is_told(stays: dict[str, tuple[int, int]], warning: str) -> None:
    found = list(small_splits(label_counts(**stays)))
    assert len(found) == bool(warning) and all(re.search(warning, line) for line in found)


def test_a_store_without_xrays_is_judged_by_all_its_samples() -> None:
    labels = label_counts(val_partial=(2, 9))
    labels.loc[labels["data_pairs"] == "paired", "samples"] = 0
    assert list(small_splits(labels)) == [
        "the val stays have at most 2 of a label's rarer class: too few to choose an epoch by a score"
    ]


def test_what_stays_lack_is_told(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(SamplesConfig(store, "in-hospital-mortality"))
    rules = pd.read_csv(store / "in-hospital-mortality" / "attrition.csv").set_index("rule")
    assert list(rules.index)[:3] == ["all stays", "a length of 48 hours", "an event in the first 48 hours"]
    short = rules.loc["a length of 48 hours", "removed_stays"]
    text = (
        f"{rules['stays'].iloc[-1]} of {rules['stays'].iloc[0]} stays; {short} without a length of 48 hours"
    )
    assert short > 0 and text in capsys.readouterr().out


def test_samples_that_are_complete_are_left_alone(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(SamplesConfig(store))
    output, before = capsys.readouterr().out, contents(store)
    changed = max(path.stat().st_mtime_ns for path in store.rglob("*"))
    main(SamplesConfig(store))
    second_output = capsys.readouterr().out
    assert "are complete" in second_output and "are complete" not in output
    tables = [[line for line in text.splitlines() if line[0] == " "] for text in (output, second_output)]
    assert len(tables[0]) == 3 * len(TASKS) and tables[0] == tables[1]
    assert contents(store) == before
    assert max(p.stat().st_mtime_ns for p in store.rglob("*") if p != store and p.is_file()) <= changed


def test_samples_with_other_labels_are_not_taken_for_those_of_the_task(store: Path) -> None:
    make_samples(store, [NEW_TASK])
    with pytest.raises(ValueError, match=r"holds samples with the labels y_true, .* now has dead; remove"):
        make_samples(store, [replace(NEW_TASK, labels=("dead",))])


def test_damaged_samples_are_named_with_the_cure(store: Path) -> None:
    make_samples(store, [TASKS["readmission"]])
    before = contents(store)
    (store / "readmission" / "val_listfile.csv").unlink()
    with pytest.raises(ValueError, match=r"val_listfile.csv is missing; .*remove \S*readmission") as error:
        make_samples(store, [TASKS["readmission"]])
    assert str(error.value).endswith(f"python -m tasks.samples --store {store} --task readmission")
    shutil.rmtree(store / "readmission")
    make_samples(store, [TASKS["readmission"]])
    assert contents(store) == before


def test_a_store_of_the_former_version_is_refused(store: Path) -> None:
    path = store / "manifest.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"store_version": 1}))
    done = subprocess.run(command(store), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr == (
        f"error: {path}: the store has version 1, this code reads 3; extract again, into another folder\n"
    )


def test_an_unknown_task_names_the_nearest(store: Path) -> None:
    with pytest.raises(ValueError, match=r"unknown --task radiologie; .*radiology"):
        main(SamplesConfig(store, "radiologie"))


def test_one_process_writes_at_a_time(store: Path) -> None:
    other = (
        "import pathlib, time; from datasets.store_writer import work_folder\n"
        f"with work_folder(pathlib.Path({str(store)!r})): print('in', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", other], cwd=ROOT, stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"in\n"
    with pytest.raises(
        ValueError, match=rf"another process is writing there, process {process.pid} on .*; wait"
    ):
        make_samples(store, TASKS.values())
    process.kill()
    process.wait()
    make_samples(store, TASKS.values())
    assert not (store / ".work").exists()


KILLED = """
import os, pathlib, signal, sys
from tasks import TASKS
from tasks.counts import small_splits
from tasks.samples import make_samples
replace, store, files = pathlib.Path.replace, pathlib.Path(sys.argv[1]), 0
def replace_or_die(self, target):
    global files
    files -= 1
    if files < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return replace(self, target)
for written in map(int, sys.argv[2:]):
    if (child := os.fork()) == 0:  # before Polars has started threads
        pathlib.Path.replace, files = replace_or_die, written
        make_samples(store, [TASKS["radiology"], TASKS["readmission"]])
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    print(status, *sorted(path.parent.name for path in store.glob("*/manifest.yaml")))
"""
FILES = 7  # of a task: three listfiles, two tables of counts, the partial bins and the manifest


def test_killed_before_each_file_appears_the_samples_are_the_same_to_the_byte(store: Path) -> None:
    whole = Path(shutil.copytree(store, store.with_name("whole")))
    make_samples(whole, [TASKS["radiology"], TASKS["readmission"]])
    written = [*range(FILES), FILES, *range(1, FILES), FILES]  # files of the first task, and of the second
    line = [sys.executable, "-c", KILLED, str(store), *map(str, written)]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=True)
    ends = [line.split() for line in done.stdout.splitlines()]
    first_is_complete = [["9", "readmission"]] * FILES
    assert ends == [["9"]] * FILES + first_is_complete + [["0", "radiology", "readmission"]]
    assert contents(store) == contents(whole)


def test_the_extraction_ends_with_the_samples_of_all_tasks(tmp_path: Path) -> None:
    iv, cxr = random_cohort(3, 6).write(tmp_path / "raw")
    config = ExtractConfig(iv, tmp_path / "store", cxr)
    extract(config)
    paths = ["--mimic_iv", str(iv), "--mimic_cxr", str(cxr), "--out", str(config.out)]
    line = [sys.executable, "-m", "datasets.extract", *paths]
    output = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert output.startswith(f"{config.out} is complete; nothing to do\nSamples (of these with an X-ray):\n")
    extract_with_samples(replace(config, out=tmp_path / "other"))
    assert contents(config.out) == contents(tmp_path / "other")
