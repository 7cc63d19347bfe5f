"""A variable of one's own: its channels and widths follow from two YAML files, and mistakes are named."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from datasets.events.cleaning import item_map
from datasets.extract_config import ExtractConfig
from datasets.schema import channel_count, continuous_channels, variables
from datasets.store import Store
from models.encoders import EncoderConfig, build_encoders
from models.pretraining import Pretraining, load_pretrained, pretraining_checkpoint
from tests.own_variables import files_in_use, own_variable_in_use, read_files
from tests.raw_tables import chart, lab, write_mimic_iv, write_table
from tests.stores import extract_with_samples


@pytest.fixture
def raw(tmp_path: Path) -> ExtractConfig:
    """One stay with a heart rate at hour 1 and two values of an own variable, at hours 2 and 4."""
    labs = [lab(999_001, 2.5, "2150-01-01 02:30:00"), lab(999_001, "4", "2150-01-01 04:30:00")]
    write_mimic_iv(tmp_path / "iv", chartevents=[chart(220045, 80, "2150-01-01 01:30:00")], labevents=labs)
    return ExtractConfig(tmp_path / "iv", tmp_path / "store")


@pytest.mark.parametrize("protocol", ["medmod", "corrected"])
def test_it_has_a_value_and_a_mask_in_every_hour(raw: ExtractConfig, tmp_path: Path, protocol: str) -> None:
    published = channel_count()
    with own_variable_in_use(tmp_path / "resources"):
        extract_with_samples(replace(raw, protocol=protocol))
        own = variables()[-1]
        store = Store.open(raw.out)
        values, masks = (store.hourly[:6, c] for c in (own.first_channel, own.mask_channel))
        mean, deviation = store.normalizer()
        fitted = json.loads((raw.out / "normalizer.json").read_text())
        assert store.hourly.shape[1] == len(mean) == len(deviation) == channel_count() == published + 2
        assert store.manifest.variables[-1] == {"name": "Own", "normal": 1.5, "categories": []}
        assert fitted["channels"][-1] == "Own"
    assert values.tolist() == [1.5, 1.5, 2.5, 2.5, 4, 4] and masks.tolist() == [0, 0, 1, 0, 1, 0]
    assert channel_count() == published


def test_a_store_of_other_variables_is_refused_by_name(raw: ExtractConfig, tmp_path: Path) -> None:
    with own_variable_in_use(tmp_path / "resources"):
        extract_with_samples(raw)
    message = "manifest.yaml: the store was extracted with Own, unlike .*channels.yaml; restore that file"
    with pytest.raises(ValueError, match=message):
        Store.open(raw.out)
    extract_with_samples(replace(raw, out=tmp_path / "published"))
    with (
        own_variable_in_use(tmp_path / "resources"),
        pytest.raises(ValueError, match="extracted without Own"),
    ):
        Store.open(tmp_path / "published")


@pytest.mark.parametrize("part", ["normal", "categories"])
def test_other_values_of_the_same_variable_are_other_variables(
    raw: ExtractConfig, tmp_path: Path, part: str
) -> None:
    extract_with_samples(raw)
    channels, entries = read_files()
    changed = {"normal": "1.0", "categories": ["1.0", "0.0"]}[part]
    in_use = files_in_use(tmp_path / "resources", [{**channels[0], part: changed}, *channels[1:]], entries)
    with in_use, pytest.raises(ValueError, match="with another order, categories or normal values"):
        Store.open(raw.out)


def test_a_changed_item_or_range_is_another_store(raw: ExtractConfig, tmp_path: Path) -> None:
    extract_with_samples(raw)
    channels, entries = read_files()
    entries["Heart Rate"]["range"] = [0, 300]
    in_use = files_in_use(tmp_path / "resources", channels, entries)
    with in_use, pytest.raises(ValueError, match="made of other input or options"):
        extract_with_samples(raw)


def test_an_encoder_trained_on_other_variables_is_refused_by_name(tmp_path: Path) -> None:
    encoders = build_encoders(EncoderConfig(), ["ehr"])
    content = pretraining_checkpoint(Pretraining("simclr", EncoderConfig()), encoders, {})
    assert load_pretrained({"ehr_encoder": encoders["ehr"]}, content) == ["ehr_encoder: 4/4 tensors"]
    with own_variable_in_use(tmp_path / "resources"):
        wider = build_encoders(EncoderConfig(), ["ehr"])["ehr"]
        with pytest.raises(ValueError, match="it was trained without Own, unlike"):
            load_pretrained({"ehr_encoder": wider}, content)


@pytest.mark.parametrize("protocol", ["medmod", "corrected"])
def test_a_grid_of_one_variable_works(raw: ExtractConfig, tmp_path: Path, protocol: str) -> None:
    with files_in_use(tmp_path / "resources", *single("Heart Rate")):
        extract_with_samples(replace(raw, protocol=protocol))
        assert Store.open(raw.out).hourly[:3].tolist() == [[86, 0], [80, 1], [80, 0]]
        assert continuous_channels() == (0,)


def single(name: str) -> tuple[list, dict]:
    """Both files with one variable alone."""
    channels, entries = read_files()
    return [entry for entry in channels if entry["name"] == name], {name: entries[name]}


@pytest.mark.parametrize(
    ("channel", "entry", "message"),
    [
        ({"normal": None}, {}, r"variable \d+ \(Own\) needs a number as its normal value, not None"),
        ({"name": 5}, {}, r"variable \d+ needs a name"),
        ({"mean": 2}, {}, "has the unknown key mean"),
        ({"name": "pH"}, {}, "pH is there twice"),
        ({"categories": [1, 2], "normal": 1}, {}, "needs a list of texts as its categories"),
        ({"categories": ["low", "high"]}, {}, "has no category 1.5, its normal value"),
        ({"name": "Own acid"}, {}, "differ in Own, Own acid; give each in both"),
        ({}, {"rule": "numeric"}, "Own needs a rule, one of number, systolic"),
        ({}, {"rule": "category"}, "Own needs a rule, one of number, systolic"),
        ({}, {"range": [30]}, "needs a range of plausible values"),
        ({}, {"range": [30, 0]}, "needs a range of plausible values"),
        ({}, {"lab": 999_001}, r"must list its items as whole numbers: \[50813\]"),
        ({}, {"lab": ["999_001"]}, "must list its items as whole numbers"),
        ({}, {"labs": [999_001]}, "has the unknown key labs"),
        ({}, {"lab": [220045]}, "Heart Rate and Own share item 220045; remove it from one"),
    ],
)
def test_a_mistake_in_either_file_is_told(tmp_path: Path, channel: dict, entry: dict, message: str) -> None:
    channels, entries = read_files()
    channel_entry = {"name": "Own", "normal": 1.5} | channel
    cleaning = {"rule": "number", "lab": [999_001], "range": [0, 30]} | entry
    in_use = files_in_use(tmp_path / "resources", [*channels, channel_entry], entries | {"Own": cleaning})
    with in_use, pytest.raises(ValueError, match=message):
        item_map("corrected")


def test_more_variables_than_the_tables_can_number_are_an_error(tmp_path: Path) -> None:
    many = [{"name": f"v{number}", "normal": 0} for number in range(128)]
    in_use = files_in_use(tmp_path / "resources", many, {})
    with in_use, pytest.raises(ValueError, match="must be a list of 1 to 127 variables"):
        variables()


def test_a_variable_without_a_value_is_named_with_its_unknown_items(
    raw: ExtractConfig, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    channels, entries = read_files()
    mistyped = {"rule": "number", "chart": [888_002], "lab": [999_001, 508_130], "range": [0, 30]}
    ours = [entry for entry in channels if entry["name"] == "Heart Rate"]
    both = [*ours, {"name": "Own", "normal": 1.5}], {"Heart Rate": entries["Heart Rate"], "Own": mistyped}
    write_mimic_iv(tmp_path / "iv", chartevents=[chart(220045, 80)])
    with files_in_use(tmp_path / "resources", *both):
        extract_with_samples(raw)
        line = "warning: no value was read of 1 variables: Own (items 888002, 508130, 999001)"
        assert line in capsys.readouterr().out
        write_table(tmp_path / "iv/hosp/d_labitems.csv.gz", ["itemid"], [{"itemid": 999_001}])
        write_table(tmp_path / "iv/icu/d_items.csv", ["itemid"], [{"itemid": 220_045}])
        extract_with_samples(replace(raw, out=tmp_path / "described"))
    assert "Own (not in d_items: 888002; not in d_labitems: 508130)" in capsys.readouterr().out
    counts = (raw.out / "value_counts.csv").read_text().splitlines()
    assert counts == ["variable,values,implausible,redacted", "Heart Rate,1,0,0", "Own,0,0,0"]


@pytest.mark.parametrize(("protocol", "kept"), [("medmod", 3), ("corrected", 2)])
def test_values_that_are_read_are_counted(
    raw: ExtractConfig, tmp_path: Path, protocol: str, kept: int, capsys: pytest.CaptureFixture
) -> None:
    rows = [
        chart(220045, value, f"2150-01-01 0{hour}:30:00") for hour, value in enumerate((80, "x", 9e6, 81))
    ]
    write_mimic_iv(tmp_path / "iv", chartevents=rows)
    with files_in_use(tmp_path / "resources", *single("Heart Rate")):
        extract_with_samples(replace(raw, protocol=protocol))
    counts = (raw.out / "value_counts.csv").read_text().splitlines()
    assert counts[1] == f"Heart Rate,{kept},1,0" and "no value was read" not in capsys.readouterr().out
