"""Whether a store still holds what its manifests say, byte for byte: `python -m datasets.verify STORE`."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import tyro

from datasets.splits import check_disjoint
from datasets.store import MANIFEST, FileDigest, Store, read_manifest, read_task_manifest
from utils.cli import run_cli


@dataclass(frozen=True)
class VerifyConfig:
    """Read every file of a store and compare it with the manifests; list what differs, with status 1."""

    store: tyro.conf.Positional[Path]
    """Folder of the store."""


def listed_files(folder: Path) -> dict[str, FileDigest]:
    """Return the files that the manifests of a store and of its tasks list, by their path in the store."""
    listed = dict(read_manifest(folder).files)
    for path in folder.glob(f"*/{MANIFEST}"):
        task = path.parent.name
        listed |= {f"{task}/{name}": digest for name, digest in read_task_manifest(path).files.items()}
    return listed


def differences(folder: Path) -> Iterator[str]:
    """Yield a line for each file that is missing, changed or in no manifest, in the order of names."""
    listed = listed_files(folder)
    present = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    both = sorted(present & listed.keys())
    with ThreadPoolExecutor() as pool:
        digests = dict(zip(both, pool.map(lambda name: FileDigest.of(folder / name), both), strict=True))
    for name in sorted(present | listed.keys()):
        if name not in present:
            yield f"{name}: missing"
        elif name not in listed:
            if Path(name).name != MANIFEST:
                yield f"{name}: not in the manifest"
        elif digests[name].bytes != listed[name].bytes:
            yield f"{name}: {digests[name].bytes} bytes, {listed[name].bytes} in the manifest"
        elif digests[name] != listed[name]:
            yield f"{name}: other content of the same size"


def main(config: VerifyConfig) -> None:
    """Print what differs, or the fingerprint of a store that is as it was written.

    Raises:
        ValueError: Something differs, the folder is no store, or a subject is in two splits.
    """
    lines = list(differences(config.store))
    for line in lines:
        print(line)
    if lines:
        remake = f"remove the task's folder and run python -m tasks.samples --store {config.store}"
        fault = f"{len(lines)} files are not as its manifests say"
        raise ValueError(f"{config.store}: {fault}; copy them again, or extract again (samples: {remake})")
    store = Store.open(config.store)
    stays = store.stay_columns(["subject_id", "split"])
    check_disjoint(stays["subject_id"], stays["split"], config.store)
    count = len(listed_files(config.store))
    print(f"{config.store}: {count} files as written; manifest {store.fingerprint}")


if __name__ == "__main__":
    run_cli(main, VerifyConfig)
