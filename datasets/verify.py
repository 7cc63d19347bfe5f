"""Whether a store still holds what its manifest says, byte for byte: `python -m datasets.verify STORE`."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import tyro

from datasets.splits import check_disjoint
from datasets.store import MANIFEST, Store, file_digest, read_manifest
from utils.cli import run_cli


@dataclass(frozen=True)
class VerifyConfig:
    """Read every file of a store and compare it with the manifest; list what differs, with status 1."""

    store: tyro.conf.Positional[Path]
    """Folder of the store."""


def differences(folder: Path) -> Iterator[str]:
    """A line for each file that is missing, changed or too many, in the order of names."""
    told = read_manifest(folder)["files"]
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    held = sorted(there & told.keys())
    with ThreadPoolExecutor() as pool:
        found = dict(zip(held, pool.map(lambda name: file_digest(folder / name), held), strict=True))
    for name in sorted((there | told.keys()) - {MANIFEST}):
        if name not in there:
            yield f"{name}: missing"
        elif name not in told:
            yield f"{name}: not in the manifest"
        elif found[name]["bytes"] != told[name]["bytes"]:
            yield f"{name}: {found[name]['bytes']} bytes, {told[name]['bytes']} in the manifest"
        elif found[name] != told[name]:
            yield f"{name}: other content of the same size"


def main(config: VerifyConfig) -> None:
    """Print what differs, or the fingerprint of a store that is whole.

    Raises:
        ValueError: something differs, the folder is no store, or a subject is in two splits.
    """
    found = list(differences(config.store))
    for line in found:
        print(line)
    if found:
        raise ValueError(
            f"{config.store}: {len(found)} files are not as its manifest says; copy them again from where it "
            "was made, or extract again"
        )
    store = Store.open(config.store)
    stays = store.stays(["subject_id", "split"])
    check_disjoint(stays["subject_id"], stays["split"], config.store)
    print(f"{config.store}: {len(store.manifest['files'])} files as written; manifest {store.fingerprint}")


if __name__ == "__main__":
    run_cli(main, VerifyConfig)
