"""Raw MIMIC files to a store: `python -m datasets.extract --mimic_iv DIR [--mimic_cxr DIR] --out DIR`."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from datasets import steps
from datasets.raw.reading import scan_table
from datasets.raw.tables import find_table
from datasets.schema import STORE_VERSION
from datasets.store import MANIFEST, read_version
from datasets.store_writer import WORK, work_folder
from utils.cli import run_cli, run_next
from utils.files import sha256, write_text
from utils.log import logger


@dataclass(frozen=True)
class ExtractConfig:
    """Read a MIMIC-IV release (and MIMIC-CXR-JPG), select the stays, and write a store for training."""

    mimic_iv: Path
    """Folder of a MIMIC-IV release (1.0, 2.x or 3.x): the one that holds hosp/ and icu/, tables as .csv.gz or
    .csv."""
    out: Path
    """Folder of the store to write. Run the same command again to go on after an interruption."""
    mimic_cxr: Path | None = None
    """Folder of MIMIC-CXR-JPG (2.0.0 or 2.1.0): metadata and chexpert tables, and files/. Without it: no
    X-rays."""
    protocol: Literal["medmod", "corrected"] = "medmod"
    """`medmod`: the published variables and labels, to compare with papers; `corrected`: their defects
    repaired."""
    timestep: float = 1.0
    """Hours in a bin of the grid."""
    views: tuple[str, ...] = ("AP",)
    """View positions of the X-rays to use."""
    uncertain: Literal["zeros", "ones", "ignore"] = "zeros"
    """What CheXpert's uncertain findings (-1) count as in the radiology task; `ignore` leaves them out."""
    test_subjects: Path | None = None
    """Published list of test subjects (lines `subject_id,0|1`); goes with --val_subjects. Default: a stable
    hash."""
    val_subjects: Path | None = None
    """Published list of validation subjects (lines `subject_id,0|1`)."""


def extract(config: ExtractConfig) -> None:
    """Make the store, but no samples of tasks; go on where an interrupted run stopped.

    Raises:
        ValueError: The input is bad, or the folder holds a store (or part of one) made in another way.
    """
    identity = identity_of(config)
    if (config.out / MANIFEST).exists():
        _check_same_store(config.out / MANIFEST, identity)
        with work_folder(config.out):  # removes what a run left that was killed while it tidied up
            logger.info(f"{config.out} is complete; nothing to do")
        return
    if config.out.exists() and any(config.out.iterdir()) and not (config.out / WORK).exists():
        raise ValueError(
            f"{config.out} holds files and is no store; give a folder that is empty or not there yet"
        )
    with work_folder(config.out) as work:
        _check_same_work(work / "identity.json", identity)
        for name, step in STEPS.items():
            _do_step(name, step, config)
    logger.info(f"store: {config.out}")


def identity_of(config: ExtractConfig) -> dict[str, object]:
    """Return all that decides what the store holds: options, and name and size of each input.

    Raises:
        ValueError: An option cannot work, or a table or a column of it is missing.
    """
    if config.timestep <= 0:
        raise ValueError(
            f"--timestep {config.timestep}: a bin has a positive number of hours; 1.0 is the published"
        )
    roots = dict.fromkeys(steps.IV_TABLES, config.mimic_iv)
    if config.mimic_cxr is not None:
        roots |= dict.fromkeys(steps.CXR_TABLES, config.mimic_cxr)
    tables = {name: find_table(root, name) for name, root in roots.items()}
    for name, root in roots.items():
        scan_table(root, name)  # reports a missing column now, not after hours of images
    lists = {"test_subjects": config.test_subjects, "val_subjects": config.val_subjects}
    return {
        "store_version": STORE_VERSION,
        "protocol": config.protocol,
        "timestep": config.timestep,
        "views": list(config.views),
        "uncertain": config.uncertain,
        **{name: sha256(path) if path else None for name, path in lists.items()},
        "inputs": {name: {"file": path.name, "bytes": path.stat().st_size} for name, path in tables.items()},
    }


def _check_same_store(manifest: Path, identity: Mapping[str, object]) -> None:
    """Check that a finished store is the one that would be made now.

    Raises:
        ValueError: It is not.
    """
    content = read_version(manifest)
    if {key: content.get(key) for key in identity} != identity:
        raise ValueError(
            f"{manifest.parent} holds a store made of other input or options; give another --out or remove it"
        )


def _check_same_work(path: Path, identity: Mapping[str, object]) -> None:
    """Check that the store that was begun in a folder, if any, is the one to make; note what is begun.

    Raises:
        ValueError: It is not.
    """
    text = json.dumps(identity, indent=1)
    if path.exists() and path.read_text() != text:
        raise ValueError(
            f"{path.parent.parent} holds a half-made store of other input or options; remove it, or change "
            "--out"
        )
    write_text(path, text)


def _write_manifest(config: ExtractConfig) -> None:
    steps.write_store_manifest(config, identity_of(config))


STEPS: dict[str, Callable[[ExtractConfig], None]] = {
    "cohort": steps.select_cohort,
    "xrays": steps.cache_xrays,
    "events": steps.collect_events,
    "grid": steps.write_grid,
    "attrition": steps.write_attrition,
    "manifest": _write_manifest,
}


def _do_step(name: str, step: Callable[[ExtractConfig], None], config: ExtractConfig) -> None:
    """Do a step and note that it is done, unless it was done before."""
    done = config.out / WORK / f"{name}.done"
    if done.exists():
        logger.info(f"[{name}] done before")
        return
    started = time.monotonic()
    step(config)
    write_text(done, f"{asdict(config)}\n")
    logger.info(f"[{name}] {time.monotonic() - started:.1f} s")


def main(config: ExtractConfig) -> None:
    """Make the store, and the samples of all tasks in it."""
    extract(config)
    run_next("tasks.samples", "--store", str(config.out))


if __name__ == "__main__":
    run_cli(main, ExtractConfig)
