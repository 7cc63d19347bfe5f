"""Cleaning of charted rows, against the rules of the two protocols."""

import gzip
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from datasets.events.buckets import (
    GLASGOW_TOTAL,
    deduplicate,
    read_bucket,
    with_glasgow_total,
    write_buckets,
)
from datasets.events.cleaning import (
    EVENT_DTYPE,
    ValueCounts,
    item_map,
    plausible_ranges,
    tie_break_of_numbers,
)
from datasets.events.reporting import print_value_counts
from datasets.events.streaming import stream_observations
from datasets.schema import variables
from tests.raw_tables import chart, lab, write_mimic_iv
from tests.training.toy import room_for

NAMES = [variable.name for variable in variables()]


def collected(
    folder: Path,
    protocol: str = "medmod",
    los_hours: float = 72.0,
    counts: ValueCounts | None = None,
    **tables: list,
) -> dict[str, list]:
    """The first stay's observations: variable -> [(hour, value or category)], after deduplication."""
    root = write_mimic_iv(folder, **tables)
    stays = pl.DataFrame(
        {
            "stay_row": [0],
            "hadm_id": [11],
            "stay_id": [111],
            "intime": ["2150-01-01 00:00:00"],
            "los_hours": [los_hours],
        }
    ).with_columns(pl.col("intime").str.to_datetime(time_unit="us"), pl.col("stay_row").cast(pl.Int32))
    first_second = np.full(1, 10**9, np.int32)
    for table in ("chartevents", "labevents"):
        rows = stream_observations(root, table, stays, protocol, counts or ValueCounts())
        write_buckets(rows, root, first_second)
    values: dict[str, list] = {}
    for record in read_bucket(root, 0, protocol):
        variable = variables()[record["variable"]]
        value = variable.categories[int(record["value"])] if variable.categories else float(record["value"])
        values.setdefault(variable.name, []).append((float(record["second"] / 3600), value))
    return values


def value_of(folder: Path, row: dict, protocol: str = "medmod", table: str = "chartevents") -> object:
    values = collected(folder, protocol, **{table: [row]})
    return next(iter(values.values()))[0][1] if values else None


@pytest.mark.parametrize(
    ("itemid", "text", "medmod", "corrected"),
    [
        (220045, "86", 86.0, 86.0),
        (220045, "9000", 9000.0, None),  # implausible
        (220045, "fast", None, None),
        (220045, "1e309", None, None),
        (220045, "nan", None, None),
        (220045, "1e39", None, None),  # beyond float32
        (220045, "-3.5e38", None, None),
        (220045, "1_000", None, None),
        (220050, "120/80", 120.0, 120.0),
        (220051, "120/80", 80.0, 80.0),
        (220051, "75", 75.0, 75.0),
        (227242, "75", None, 75.0),
        (223835, "50", 0.5, 0.5),
        (223835, "0.5", 0.005, 0.5),
        (223835, "0", 0.0, None),
        (226707, "70", 70.0, 177.8),
        (226730, "170", 170.0, 170.0),
        (220277, "0.97", 97.0, 97.0),
        (220277, "97", 97.0, 97.0),
        (223761, "98.6", 37.0, 37.0),
        (223762, "98.6", 37.0, 37.0),
        (223762, "37", 37.0, 37.0),
        (223761, "78.8", 78.8, 26.0),
        (226531, "100", 45.3592, 45.3592),
        (226512, "100", 100.0, 100.0),
        (220739, "None", "None", "None"),
        (220739, "Unable to score", None, None),
        (223951, "Normal <3 Seconds", None, "0.0"),
        (224308, "Abnormal >3 Seconds", None, "1.0"),
        (220274, "7.31", 7.31, 7.31),
    ],
)
def test_chart_values(tmp_path: Path, itemid: int, text: str, medmod: object, corrected: object) -> None:
    for protocol, wanted in (("medmod", medmod), ("corrected", corrected)):
        value = value_of(tmp_path / protocol, chart(itemid, text), protocol)
        assert value == (pytest.approx(wanted) if isinstance(wanted, float) else wanted), protocol


@pytest.mark.parametrize(
    ("itemid", "text", "medmod", "corrected"),
    [
        (50931, "120", 120.0, 120.0),
        (50931, "___", None, None),
        (51478, "500", 500.0, None),
        (51491, "6.5", 6.5, None),
    ],
)
def test_laboratory_values(tmp_path: Path, itemid: int, text: str, medmod: object, corrected: object) -> None:
    assert value_of(tmp_path / "m", lab(itemid, text), "medmod", "labevents") == medmod
    assert value_of(tmp_path / "c", lab(itemid, text), "corrected", "labevents") == corrected


@pytest.mark.parametrize(
    "changes",
    [
        {"hadm_id": ""}, {"hadm_id": 12}, {"stay_id": 112}, {"value": ""}, {"itemid": 1},
        {"charttime": "2149-12-31 23:59:59"}, {"charttime": "2150-01-04 00:00:01"},
    ],
)  # fmt: skip
def test_a_row_outside_the_rules_is_dropped(tmp_path: Path, changes: dict) -> None:
    assert collected(tmp_path, chartevents=[chart(220045, "80") | changes]) == {}


def test_an_empty_stay_id_becomes_the_admissions_stay(tmp_path: Path) -> None:
    assert collected(tmp_path, chartevents=[chart(220045, "80", stay_id="")])["Heart Rate"] == [(1.0, 80.0)]


def test_both_ends_of_the_stay_are_inside(tmp_path: Path) -> None:
    rows = [chart(220045, "80", "2150-01-01 00:00:00"), chart(220045, "90", "2150-01-04 00:00:00")]
    assert collected(tmp_path, chartevents=rows)["Heart Rate"] == [(0.0, 80.0), (72.0, 90.0)]


def test_of_two_values_at_a_second_the_greatest_stays(tmp_path: Path) -> None:
    rows = [
        chart(220277, "100"),
        chart(220277, "97"),
        chart(220739, "To Speech"),
        chart(220739, "Spontaneously"),
    ]
    values = collected(tmp_path, chartevents=rows)
    assert values["Oxygen saturation"] == [(1.0, 100.0)]
    assert values["Glascow coma scale eye opening"] == [(1.0, "To Speech")]


def test_medmod_compares_some_numbers_as_text(tmp_path: Path) -> None:
    rows = [chart(220210, "21"), chart(224690, "9"), chart(220052, "101"), chart(220181, "98")]
    assert collected(tmp_path / "m", chartevents=rows)["Respiratory rate"] == [(1.0, 9.0)]
    assert collected(tmp_path / "m2", chartevents=rows)["Mean blood pressure"] == [(1.0, 98.0)]
    assert collected(tmp_path / "c", "corrected", chartevents=rows)["Respiratory rate"] == [(1.0, 21.0)]


def test_corrected_adds_the_glasgow_total_of_one_second(tmp_path: Path) -> None:
    rows = [chart(220739, "To Pain"), chart(223900, "Confused"), chart(223901, "Obeys Commands")]
    late = [chart(220739, "To Pain", "2150-01-01 02:00:00")]
    assert collected(tmp_path / "c", "corrected", chartevents=rows + late)["Glascow coma scale total"] == [
        (1.0, "12")
    ]
    assert "Glascow coma scale total" not in collected(tmp_path / "m", chartevents=rows)


def test_a_glasgow_total_that_is_charted_stays_as_it_is() -> None:
    total = NAMES.index(GLASGOW_TOTAL)
    texts = {"eye opening": "To Pain", "motor response": "Obeys Commands", "verbal response": "Confused"}
    parts = {NAMES.index(f"Glascow coma scale {part}"): text for part, text in texts.items()}
    rows = [
        (stay, second, variable, variables()[variable].categories.index(text))
        for stay, second in ((0, 60), (0, 3600), (3, 60), (3, 3600))
        for variable, text in [*parts.items(), *([(total, "3")] if (stay, second) == (3, 60) else [])]
    ]
    records = np.zeros(len(rows), EVENT_DTYPE)
    for name, column in zip(
        ("stay_row", "second", "variable", "value"), zip(*rows, strict=True), strict=True
    ):
        records[name] = column
    records["tie_break"] = tie_break_of_numbers(records["value"].copy())
    events = with_glasgow_total(np.random.default_rng(0).permutation(records))
    totals = events[events["variable"] == total]
    text = [variables()[total].categories[slot] for slot in totals["value"].astype(int)]
    found = list(zip(totals["stay_row"].tolist(), totals["second"].tolist(), text, strict=True))
    assert found == [(0, 60, "12"), (0, 3600, "12"), (3, 60, "3"), (3, 3600, "12")]
    assert events.tobytes() == deduplicate(events).tobytes()


def test_the_worse_side_of_capillary_refill_wins(tmp_path: Path) -> None:
    rows = [chart(223951, "Abnormal >3 Seconds"), chart(224308, "Normal <3 Seconds")]
    assert collected(tmp_path, "corrected", chartevents=rows)["Capillary refill rate"] == [(1.0, "1.0")]


def test_every_item_has_one_variable() -> None:
    for protocol in ("medmod", "corrected"):
        table = item_map(protocol)
        assert table["itemid"].is_unique().all()
        published = table.filter(pl.col("variable") < 17)  # a user's own variables come behind them
        assert len(published) == {"medmod": 36 + 8, "corrected": 39 + 4}[protocol]


def test_order_of_numbers_is_the_order_of_numbers() -> None:
    values = np.random.default_rng(0).normal(size=200) * 10.0 ** np.arange(-100, 100)
    assert (np.argsort(tie_break_of_numbers(values)) == np.argsort(values)).all()


def test_partitions_do_not_depend_on_the_order_or_size_of_batches(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    records = np.empty(4000, EVENT_DTYPE)
    for name, most in (("stay_row", 1500), ("second", 50), ("variable", 17), ("value", 2)):
        records[name] = rng.integers(0, most, 4000)
    records["tie_break"] = tie_break_of_numbers(records["value"].copy())
    for name, order, size in (("a", np.arange(4000), 4000), ("b", rng.permutation(4000), 700)):
        (tmp_path / name).mkdir()
        batches = (records[order[start : start + size]] for start in range(0, 4000, size))
        write_buckets(batches, tmp_path / name, np.full(1500, 99, np.int32))
    for number in range(3):
        one, other = (read_bucket(tmp_path / name, number, "medmod") for name in "ab")
        assert len(one) and one.dtype == EVENT_DTYPE and (one == other).all()


def test_a_full_disk_names_the_bucket_and_the_cure(tmp_path: Path) -> None:
    rows = [chart(220045, 80, f"2150-01-01 {n // 60:02d}:{n % 60:02d}:00") for n in range(200)]
    with room_for(1000), pytest.raises(OSError, match=r"no space left to write .*00000\.bin .*free space"):
        collected(tmp_path, chartevents=rows)


def cut_table(folder: Path, name: str, keep: int, gz: bool) -> None:
    """Cut a table off before it is gzipped: `keep` bytes of its last line stay."""
    path = folder / f"{name}.csv.gz"
    text = gzip.decompress(path.read_bytes())
    text = text[: text.rindex(b"\n", 0, -1) + 1 + keep]
    path.unlink()
    path.with_suffix(".gz" if gz else "").write_bytes(gzip.compress(text) if gz else text)


CHARTED = [chart(220045, 80, valuenum=80), chart(220045, 95, "2150-01-01 02:00:00", valuenum=95)]


@pytest.mark.parametrize("gz", [True, False])
def test_a_value_that_was_cut_off_is_refused_not_read_as_a_smaller_one(tmp_path: Path, gz: bool) -> None:
    write_mimic_iv(tmp_path, chartevents=CHARTED)
    cut_table(tmp_path, "icu/chartevents", len("1,11,111,2150-01-01 02:00:00,220045,9"), gz)
    with pytest.raises(ValueError, match=r"chartevents.csv.*the last line does not end in a newline"):
        list(observed(tmp_path))


@pytest.mark.parametrize("kept", ["1,11,111,2150-01-01 02:00:00", "1,11,1"])
def test_a_row_that_was_cut_off_before_its_item_is_refused(tmp_path: Path, kept: str) -> None:
    write_mimic_iv(tmp_path, chartevents=CHARTED)
    cut_table(tmp_path, "icu/chartevents", len(kept), gz=True)
    with pytest.raises(ValueError, match=r"chartevents.csv.gz.*the last line does not end in a newline"):
        list(observed(tmp_path))


def test_a_row_without_item_or_time_is_no_observation(tmp_path: Path) -> None:
    rows = [CHARTED[0], chart("", 3), chart(220045, 4, ""), CHARTED[1] | {"valuenum": ""}]
    write_mimic_iv(tmp_path, chartevents=rows)
    assert np.concatenate(list(observed(tmp_path)))["value"].tolist() == [80, 95]


def observed(folder: Path) -> Iterator[np.ndarray]:
    stays = {"stay_row": [0], "hadm_id": [11], "stay_id": [111], "los_hours": [72.0]}
    intime = pl.Series(["2150-01-01 00:00:00"]).str.to_datetime(time_unit="us")
    return stream_observations(
        folder, "chartevents", pl.DataFrame(stays | {"intime": intime}), "medmod", ValueCounts()
    )


def counts_of(folder: Path, protocol: str, **tables: list) -> dict[str, tuple[int, int]]:
    """Return the implausible and the redacted values by variable, where there are any."""
    counts = ValueCounts()
    collected(folder, protocol, counts=counts, **tables)
    table = counts.table().select("variable", "implausible", "redacted")
    rows = table.filter(pl.col("implausible") + pl.col("redacted") > 0).iter_rows()
    return {name: (implausible, redacted) for name, implausible, redacted in rows}


@pytest.mark.parametrize("protocol", ["medmod", "corrected"])
def test_values_outside_the_plausible_range_are_counted_by_variable(tmp_path: Path, protocol: str) -> None:
    rows = [(220045, 10_000_000), (220045, "-1"), (220045, 350), (220051, "120/999"), (220739, "None")]
    rows += [(220045, "1e309"), (220045, "1e39")]  # no numbers of the grid, which are not charted
    times = [f"2150-01-01 0{hour}:00:00" for hour in range(1, 8)]
    charts = [chart(item, value, time) for (item, value), time in zip(rows, times, strict=True)]
    outside = chart(220045, 9999, "2150-02-01 00:00:00")
    counted = counts_of(tmp_path, protocol, chartevents=[*charts, outside])
    assert counted == {"Heart Rate": (2, 0), "Diastolic blood pressure": (1, 0)}


def test_a_repeated_row_is_counted_again(tmp_path: Path) -> None:
    once, twice = (ValueCounts(), ValueCounts())
    rows = [chart(220045, 80), chart(220045, 9999), chart(220045, "___", valuenum=70)]
    collected(tmp_path / "once", "medmod", counts=once, chartevents=rows)
    collected(tmp_path / "twice", "medmod", counts=twice, chartevents=rows * 2)
    for name in ("values", "implausible", "redacted"):
        counts = getattr(once, name)
        assert counts.sum() == (2 if name == "values" else 1)
        assert (getattr(twice, name) == 2 * counts).all()


def test_a_redacted_value_is_its_valuenum_under_corrected_and_dropped_under_medmod(tmp_path: Path) -> None:
    cells = [("___", 193), ("170", 170), (" ___ ", "150"), ("", 140), ("___", ""), ("___", "n/a"), ("_", 9e9)]
    labs = [
        lab(50931, value, f"2150-01-01 0{hour}:00:00", valuenum=number)
        for hour, (value, number) in enumerate(cells, 1)
    ]
    charts = [chart(220739, "___", valuenum=4), chart(220045, "___", valuenum=80)]
    tables = {"labevents": labs, "chartevents": charts}
    corrected, medmod = (collected(tmp_path / name, name, **tables) for name in ("corrected", "medmod"))
    assert corrected == {"Heart Rate": [(1.0, 80.0)], "Glucose": [(1.0, 193.0), (2.0, 170.0), (3.0, 150.0)]}
    assert medmod == {"Glucose": [(2.0, 170.0)]}
    redacted = {"Glascow coma scale eye opening": (0, 1), "Heart Rate": (0, 1)}
    assert counts_of(tmp_path / "a", "medmod", **tables) == redacted | {"Glucose": (0, 5)}
    assert counts_of(tmp_path / "b", "corrected", **tables) == redacted | {"Glucose": (1, 5)}


@pytest.mark.parametrize(
    ("protocol", "meaning"),
    [
        ("medmod", "dropped; --protocol corrected takes the number beside the text, valuenum"),
        ("corrected", "taken from valuenum"),
    ],
)
def test_the_message_on_redacted_values_names_the_cure(
    protocol: str, meaning: str, capsys: pytest.CaptureFixture[str]
) -> None:
    counts = pl.DataFrame({"variable": ["Glucose"], "values": [0], "implausible": [0], "redacted": [54]})
    print_value_counts(counts, protocol)
    assert capsys.readouterr().out == f"Redacted values ({meaning}; value_counts.csv): Glucose 54\n"


def test_a_table_without_valuenum_is_read(tmp_path: Path) -> None:
    write_mimic_iv(tmp_path, gz=False)
    stays = {"stay_row": [0], "hadm_id": [11], "stay_id": [111], "los_hours": [72.0]}
    intime = pl.Series(["2150-01-01 00:00:00"]).str.to_datetime(time_unit="us")
    text = "hadm_id,charttime,itemid,value\n11,2150-01-01 01:00:00,50931,170\n"
    (tmp_path / "hosp/labevents.csv").write_text(text)
    table = pl.DataFrame(stays | {"intime": intime})
    batches = stream_observations(tmp_path, "labevents", table, "corrected", ValueCounts())
    assert [float(row["value"]) for batch in batches for row in batch] == [170.0]


def test_each_continuous_channel_has_a_range_that_holds_its_normal_value() -> None:
    low, high = plausible_ranges()
    normal = [variable.normal_code for variable in variables() if not variable.categories]
    assert (low <= normal).all() and (normal <= high).all() and (low < high).all()
