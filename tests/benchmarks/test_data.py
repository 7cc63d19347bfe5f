"""The benchmarks of the data side run at a tiny size, measure the real commands, and add rows."""

from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest

from benchmarks import child, extraction, images, meds, report
from benchmarks.record import COLUMNS
from benchmarks.replicas import CHARTS, IV, LABS, READ, Pattern, write_store
from datasets.events.cleaning import item_map
from datasets.extract_config import ExtractConfig
from datasets.raw.reading import read_table
from datasets.schema import LabTime
from datasets.store import Store
from tasks import TASKS
from tests.stores import extract_with_samples
from tools.compare_stores import compare


def rows_of(path: Path) -> pd.DataFrame:
    """Return the measured rows, after checking that each is complete and none is repeated."""
    rows = pd.read_csv(path)
    assert tuple(rows.columns) == COLUMNS and rows["ours"].astype(float).notna().all()
    assert not rows.duplicated(["benchmark", "work", "against"]).any()
    return rows


@pytest.fixture(scope="module")
def pattern(tmp_path_factory: pytest.TempPathFactory) -> Pattern:
    return Pattern.draw(tmp_path_factory.mktemp("pattern") / "raw", 20, "demo", image_copies=2)


def test_copies_have_ids_of_their_own_and_the_same_stays(pattern: Pattern, tmp_path: Path) -> None:
    store, _ = write_store(pattern, tmp_path, copies=3)
    stays, linked = Store.open(store).stays(), Store.open(store).images()
    assert stays["stay_id"].is_unique and linked["stay_id"].isin(stays["stay_id"]).all()
    one, two, three = np.split(stays["events"].to_numpy(), 3)
    assert one.sum() and np.array_equal(one, two) and np.array_equal(one, three)
    assert len(linked) and not len(linked) % 6  # two of each study in each copy


def test_the_mix_is_that_of_the_demo(pattern: Pattern) -> None:
    for name in (CHARTS, LABS):
        source, share = READ[name]
        wanted = item_map("medmod").filter(pl.col("source") == source)["itemid"].cast(pl.String)
        assert pattern.tables[name]["itemid"].is_in(wanted.implode()).mean() == pytest.approx(share, rel=0.01)


def test_all_members_of_a_written_table_are_read(pattern: Pattern, tmp_path: Path) -> None:
    pattern.write(tmp_path, copies=2)
    table = pl.read_csv(tmp_path / f"{CHARTS}.csv.gz", infer_schema=False)
    assert len(table) == 2 * pattern.rows
    assert len(read_table(tmp_path / IV, "patients")) == 40


def test_the_error_of_a_failed_command_has_its_last_lines() -> None:
    with pytest.raises(ValueError, match=r"ended with status 1:\nerror: .*not found"):
        child.run_module("datasets.extract", "--mimic_iv", "/nowhere", "--out", "/nowhere/out")


def test_extraction(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = (1, 300_000)  # of which the first is one copy
    extraction.main(
        extraction.ExtractionBenchmark(rows, "demo", 20, tmp_path / "s", tmp_path / "results.csv")
    )
    measured = rows_of(tmp_path / "results.csv")
    assert measured["against"].tolist()[:4] == ["zcat", "published"] * 2 and len(measured) == 6
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("cohort", "events", "samples", "grid", "zcat core-s"))
    assert not list((tmp_path / "s").iterdir())


@pytest.mark.parametrize("lab_time", ["charttime", "storetime"])
def test_a_meds_dataset_of_the_pattern_gives_the_store_of_its_raw_tables(
    lab_time: LabTime, pattern: Pattern, tmp_path: Path
) -> None:
    pattern.write(tmp_path, copies=2)
    meds.write_meds(meds.events_of(pattern.tables, lab_time), pattern, 2, tmp_path / "meds")
    stores = tmp_path / "raw_store", tmp_path / "meds_store"
    tasks = {name: TASKS[name] for name in ("in-hospital-mortality", "phenotyping")}
    extract_with_samples(ExtractConfig(tmp_path / IV, stores[0], lab_time=lab_time), tasks)
    extract_with_samples(ExtractConfig(None, stores[1], meds=tmp_path / "meds"), tasks)
    found = list(compare(*map(Store.open, stores), may_differ=("age", "anchor_age", "anchor_year_group")))
    assert not [count for count in found if count.is_failure]
    assert next(count.both for count in found if count.what == "cells of the grid") > 100_000


def test_meds(tmp_path: Path) -> None:
    config = meds.MEDSBenchmark((20,), "storetime", "demo", 20, tmp_path / "s", tmp_path / "results.csv")
    meds.main(config)
    measured = rows_of(tmp_path / "results.csv")
    assert measured["unit"].tolist() == ["s", "core s", "MB"] and set(measured["against"]) == {"raw tables"}
    assert not list((tmp_path / "s").iterdir())
    ended = [child.Ended(seconds, seconds, memory, memory, "") for seconds, memory in ((6, 300), (4, 200))]
    sizes = [meds.Size(patients, *ended) for patients in (10, 100)]
    last = meds.figures(sizes, "storetime")[-1]
    assert (last.ours, last.other, last.against) == (300, 300, "the smallest")


def test_images(tmp_path: Path) -> None:
    images.main(
        images.ImagesBenchmark(
            images=3,
            distinct=1,
            stored=20,
            patients=20,
            scratch=tmp_path / "s",
            results=tmp_path / "results.csv",
        )
    )
    measured = rows_of(tmp_path / "results.csv")
    against = ["published", "decoding alone", "cores", "none", "the whole", "published", "none", "target"]
    assert measured["against"].tolist() == against


def test_a_report_has_the_newest_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = dict.fromkeys(COLUMNS, "x")
    pd.DataFrame([row | {"ours": "old"}, row | {"ours": "new"}]).to_csv(tmp_path / "rows.csv", index=False)
    report.main(report.ReportConfig(tmp_path / "rows.csv"))
    text = capsys.readouterr().out
    assert "| x | new |" in text and "old" not in text
