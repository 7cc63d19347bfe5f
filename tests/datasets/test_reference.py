"""Our extraction of the open MIMIC-IV demo against what the published extraction made of it."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from datasets.export import ExportConfig, export
from datasets.extract import ExtractConfig
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
def test_readmission_labels_are_the_published_ones(exported: Path) -> None:
    published = pd.read_csv(SHARED / "reference/readmission_listfile.csv.gz").set_index("stay_id")["y_true"]
    files = (exported / "readmission" / f"{split}_listfile.csv" for split in ("train", "val", "test"))
    ours = pd.concat(map(pd.read_csv, files)).set_index("stay_id")["y_true"]
    assert ours[published.index].to_dict() == published.to_dict()
