"""Diagnosis codes: how they are spelled, which ones HCUP's tables know, and the condition labels."""

from collections.abc import Iterable

import polars as pl

from datasets.conditions import conditions, find_group, groups_of, icd9_groups

CODE_COLUMNS = ("icd_code", "icd_version")
NAMED_CODES = 10  # in a line of the report
ICD9_LENGTH = 5  # characters of the longest ICD-9 code


def normalize_codes(diagnoses: pl.DataFrame) -> pl.DataFrame:
    """Bring codes to the spelling of the release: no dots or blanks, capitals, leading zeros of ICD-9.

    A numeric ICD-9 code that lost its leading zeros (8.45 for 008.45) gets them back from its dot. Without a
    dot it does if no table knows it as it is, and exactly one code with zeros. Rows without a code are left
    out. `zeros_restored` is added.

    Raises:
        ValueError: A code is of an unknown ICD version.
    """
    text = pl.col("icd_code").str.replace_all(r"\s", "").str.to_uppercase()
    diagnoses = diagnoses.with_columns(icd_code=text).filter(pl.col("icd_code") != "")
    other = diagnoses.filter(~pl.col("icd_version").is_in([9, 10]).fill_null(False))
    if len(other):
        raise ValueError(
            f"diagnoses_icd: {len(other)} codes are neither ICD-9 nor ICD-10 (first: admission "
            f"{other['hadm_id'][0]}); use the release's file"
        )
    spellings = diagnoses.select(CODE_COLUMNS).unique(maintain_order=True)
    spelled = [_spell(code, version) for code, version in spellings.iter_rows()]
    spellings = spellings.with_columns(
        spelled=pl.Series([code for code, _ in spelled], dtype=pl.String),
        zeros_restored=pl.Series([restored for _, restored in spelled], dtype=pl.Boolean),
    )
    diagnoses = diagnoses.join(spellings, on=CODE_COLUMNS, how="left", maintain_order="left")
    return diagnoses.with_columns(icd_code="spelled").drop("spelled")


def _spell(code: str, version: int) -> tuple[str, bool]:
    """Return a code in the release's spelling, and whether leading zeros were restored.

    >>> _spell("I50.9", 10), _spell("8.45", 9), _spell("389", 9), _spell("4280", 9)
    (('I509', False), ('00845', True), ('0389', True), ('4280', False))
    """
    category, _, detail = code.partition(".")
    stripped = code.replace(".", "")
    if version == 10 or not stripped.isdecimal():
        return stripped, False
    if detail and len(category) < 3:
        return category.zfill(3) + detail, True
    known = icd9_groups()
    if stripped in known:
        return stripped, False
    padded = [stripped.zfill(length) for length in range(len(stripped) + 1, ICD9_LENGTH + 1)]
    matches = [code for code in padded if code in known]
    return (matches[0], True) if len(matches) == 1 else (stripped, False)


def unmatched_codes(diagnoses: pl.DataFrame) -> pl.DataFrame:
    """Return the codes that HCUP's tables do not hold as they were spelled, with the use made of each.

    Args:
        diagnoses: As `normalize_codes` returns them.

    Returns:
        icd_code, icd_version, the number of diagnoses, `source` (`zeros restored`, or as in CodeGroup) and
        the CCS category that `corrected` takes, the most frequent source and code first.

    Raises:
        ValueError: No table knows most of the codes.
    """
    counts = diagnoses.group_by(*CODE_COLUMNS, "zeros_restored").agg(diagnoses=pl.len())
    groups = [find_group(code, version) for code, version in counts.select(CODE_COLUMNS).iter_rows()]
    source = pl.Series([group.source for group in groups], dtype=pl.String)
    restored = pl.col("zeros_restored") & (pl.lit(source) == "table")
    counts = counts.with_columns(
        source=pl.when(restored).then(pl.lit("zeros restored")).otherwise(pl.lit(source)),
        ccs=pl.Series([group.ccs for group in groups], dtype=pl.String),
    )
    unmatched = counts.filter(pl.col("source") != "table").drop("zeros_restored")
    unmatched = unmatched.sort("source", -pl.col("diagnoses").cast(pl.Int64), *CODE_COLUMNS)
    unknown = unmatched.filter(pl.col("source") == "unknown")
    if 2 * unknown["diagnoses"].sum() > len(diagnoses):
        raise ValueError(
            f"diagnoses_icd: {unknown['diagnoses'].sum()} of {len(diagnoses)} codes are in no table of ICD-9 "
            f"or ICD-10 codes ({_name_codes(unknown)}), unlike 4280 (icd_version 9) and I509 (10); use "
            "the release's file"
        )
    return unmatched


def _name_codes(codes: pl.DataFrame) -> str:
    more = f" and {len(codes) - NAMED_CODES} more" if len(codes) > NAMED_CODES else ""
    return ", ".join(codes["icd_code"].head(NAMED_CODES)) + more


def describe_unmatched(unmatched: pl.DataFrame) -> list[str]:
    """Return a line of the report for each source of codes in `unmatched_codes`."""
    meaning = {
        "ambiguous": "are not in HCUP's table, and related codes have several categories: no condition",
        "prefix": "are not in HCUP's table, and placed by the longest prefix that it knows",
        "unknown": "are in no table: no condition",
        "zeros restored": "lost leading zeros, which are restored; others may have become different codes "
        "in the same way, so use the release's file",
    }
    lines = []
    for (source,), codes in unmatched.group_by("source", maintain_order=True):
        count, names = codes["diagnoses"].sum(), _name_codes(codes)
        lines.append(f"Diagnosis codes: {count} rows ({names}) {meaning[str(source)]}")
    return lines


def _titles_of_codes(diagnoses: pl.DataFrame, protocol: str) -> pl.DataFrame:
    """Return icd_code, icd_version and the title of each condition that a code counts for."""
    titles = {condition.ccs: condition.title for condition in conditions()}
    rows = [
        (code, version, titles[ccs])
        for code, version in diagnoses.select(CODE_COLUMNS).unique(maintain_order=True).iter_rows()
        for ccs in sorted(groups_of(code, version, protocol) & titles.keys())
    ]
    schema = {"icd_code": pl.String, "icd_version": pl.Int64, "condition": pl.String}
    return pl.DataFrame(rows, schema, orient="row")


def condition_labels(diagnoses: pl.DataFrame, admissions: Iterable[int], protocol: str) -> pl.DataFrame:
    """Return one row per admission: hadm_id, and an Int8 column (0 or 1) per condition.

    Args:
        diagnoses: hadm_id, icd_code and icd_version, as `normalize_codes` returns them.
        admissions: hadm_id of each row.
        protocol: `medmod` or `corrected`.
    """
    grouped = diagnoses.join(_titles_of_codes(diagnoses, protocol), on=CODE_COLUMNS)
    present = grouped.group_by("hadm_id").agg(
        [(pl.col("condition") == c.title).any().cast(pl.Int8).alias(c.title) for c in conditions()]
    )
    rows = pl.DataFrame({"hadm_id": list(admissions)}, schema={"hadm_id": pl.Int64})
    labels = rows.join(present, on="hadm_id", how="left")
    return labels.with_columns(pl.col([c.title for c in conditions()]).fill_null(0))


def diagnoses_of_stays(diagnoses: pl.DataFrame, stays: pl.DataFrame, protocol: str) -> pl.DataFrame:
    """Return stay_id, seq_num, icd_code, icd_version and condition (null for none), by stay and seq_num.

    Args:
        diagnoses: As `normalize_codes` returns them; without seq_num, their order numbers them.
        stays: hadm_id and stay_id of the cohort, in the order of the result.
        protocol: `medmod` or `corrected`.
    """
    place = pl.int_range(1, pl.len() + 1).over("hadm_id")
    numbered = diagnoses.with_columns(seq_num=pl.col("seq_num").fill_null(place))
    codes = stays.select("hadm_id", "stay_id").with_row_index("row").join(numbered, on="hadm_id")
    titles = _titles_of_codes(codes, protocol).unique(CODE_COLUMNS, keep="first", maintain_order=True)
    codes = codes.unique(["row", "seq_num", *CODE_COLUMNS])  # a repeated row counts once
    codes = codes.join(titles, on=CODE_COLUMNS, how="left").sort("row", "seq_num", *CODE_COLUMNS)
    return codes.select("stay_id", "seq_num", *CODE_COLUMNS, "condition")
