"""Our extraction of the open MIMIC-IV demo against what the published extraction made of it."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from datasets.export import ExportConfig, export
from datasets.extract_config import ExtractConfig
from tests.stores import extract_with_samples

SHARED = Path(__file__).parents[3] / "shared"
needs_demo = pytest.mark.skipif(
    not (SHARED / "mimic-iv-demo").exists(), reason="the MIMIC-IV demo (../shared/mimic-iv-demo) is not here"
)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    extract_with_samples(ExtractConfig(SHARED / "mimic-iv-demo", folder / "store"))
    export(ExportConfig(folder / "store", folder / "export"))
    return folder / "export"


@needs_demo
def test_stays_samples_labels_and_cells_are_the_published_ones(exported: Path) -> None:
    tool = [
        sys.executable,
        str(SHARED / "tools/compare_extraction.py"),
        str(exported),
        str(SHARED / "reference"),
    ]
    done = subprocess.run(tool, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert done.stdout.splitlines()[-1] == "same: 0 differences"


@needs_demo
def test_all_stays_has_the_published_columns_and_values(exported: Path) -> None:
    published = pd.read_csv(SHARED / "reference/stays.csv").set_index("stay_id").sort_index()
    ours = pd.read_csv(exported / "root/all_stays.csv").set_index("stay_id").loc[published.index]
    pd.testing.assert_frame_equal(ours[published.columns], published, rtol=1e-12, check_dtype=False)


@needs_demo
def test_height_weight_and_diagnoses_of_the_episodes_are_those_of_the_raw_tables(exported: Path) -> None:
    stays = pd.read_csv(exported / "root/all_stays.csv").set_index("hadm_id")["stay_id"]
    rows = (
        pd.concat(map(pd.read_csv, exported.glob("root/*/*/episode?.csv"))).set_index("Icustay").sort_index()
    )
    events = pd.read_csv(SHARED / "mimic-iv-demo/icu/chartevents.csv.gz", dtype={"value": str},
                         usecols=["hadm_id", "stay_id", "charttime", "itemid", "value"])  # fmt: skip
    events = events[events["stay_id"] == events["hadm_id"].map(stays)]
    for name, factors in {
        "Height": {226707: 1, 226730: 1},
        "Weight": {224639: 1, 226512: 1, 226531: 0.453592},
    }.items():
        own = events[events["itemid"].isin(factors)]
        own = own.assign(value=own["value"].astype(float) * own["itemid"].map(factors))
        first = (
            own.sort_values(["charttime", "value"], ascending=[True, False])
            .groupby("stay_id")["value"]
            .first()
        )
        pd.testing.assert_series_equal(rows[name].dropna(), first, check_names=False)
    assert rows["Height"].notna().sum() == 62
    codes = pd.read_csv(SHARED / "mimic-iv-demo/hosp/diagnoses_icd.csv.gz", dtype={"icd_code": str})
    codes = codes.assign(stay_id=codes["hadm_id"].map(stays), code="Diagnosis " + codes["icd_code"])
    present = pd.crosstab(codes["stay_id"], codes["code"]).clip(upper=1).reindex(rows.index, fill_value=0)
    named = [name for name in rows if name.startswith("Diagnosis ") and not name.endswith(".1")]
    wanted = present.reindex(columns=named, fill_value=0)
    assert (rows[named].to_numpy() == wanted.to_numpy()).all()


@needs_demo
def test_readmission_labels_are_the_published_ones(exported: Path) -> None:
    published = pd.read_csv(SHARED / "reference/readmission_listfile.csv.gz").set_index("stay_id")["y_true"]
    files = (exported / "readmission" / f"{split}_listfile.csv" for split in ("train", "val", "test"))
    ours = pd.concat(map(pd.read_csv, files)).set_index("stay_id")["y_true"]
    assert ours[published.index].to_dict() == published.to_dict()
