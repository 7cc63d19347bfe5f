#!/usr/bin/env bash
# Is the store of a MEDS dataset that of the raw tables it was made from, and do the field's tools read what we write?
# Makes MEDS datasets of the MIMIC-IV demo with the field's own tools, extracts them and the raw tables, and compares the
# stores (python -m tools.compare_stores). Then validates the exported store with the package meds, opens it with
# meds_reader, and has meds-evaluation score the predictions of a short run.
#
#   bash tools/meds_demo.sh RAW OUT      RAW: folder of the demo, with hosp/ and icu/; OUT: a new folder
#
# Needs the network once, for the field's tools, which get an environment of their own in OUT/env. The rules are those of
# MIMIC_IV_MEDS 0.2.0 for the tables that are there, without the dictionaries of codes that are not. `storetime` has them
# as they are; `charttime` has the laboratory and admission rules of 0.0.7, in the syntax of MEDS_extract 0.7. Exits with
# status 1 if a store differs in more than the ages, which a MEDS dataset does not hold as MIMIC-IV does.
set -euo pipefail
raw=$(realpath "$1")
mkdir -p "$2"
out=$(realpath "$2")
cd "$(dirname "$0")/.."
python=${PYTHON:-python}

if [ ! -x "$out/env/bin/meds_reader_convert" ]; then
  python3.11 -m venv "$out/env"
  "$out/env/bin/python" -m pip install -q --disable-pip-version-check MEDS_extract==0.7.1 MIMIC_IV_MEDS==0.2.0 \
    meds==0.4.1 meds-evaluation==0.0.6 meds_reader==0.2.0
fi

# The MEDS datasets.
"$out/env/bin/python" - "$raw" "$out" <<'PY'
import importlib.resources
import sys
from pathlib import Path

import yaml

raw, out = map(Path, sys.argv[1:])
packaged = importlib.resources.files("MIMIC_IV_MEDS") / "event_configs.yaml"
rules = yaml.safe_load(packaged.read_text())
del rules["sources"]


def is_there(table):
    return any(raw.glob(f"{table}.csv*")) or table == "_self"


for table in [name for name in rules if "/" in name]:
    if not is_there(table):
        del rules[table]
        continue
    for event in rules[table].values():
        if "_metadata" in event:
            event["_metadata"] = {name: block for name, block in event["_metadata"].items() if is_there(name)}
            if not event["_metadata"]:
                del event["_metadata"]
rules["etl"]["n_subjects_per_shard"] = 30  # several shards a split
(out / "storetime.yaml").write_text(yaml.safe_dump(rules, sort_keys=False))

admissions = rules["hosp/admissions"]
for name in ("insurance", "language", "marital_status", "race"):  # columns up to 0.0.7, events since 0.2.0
    del admissions[name]
    admissions["admission"][name] = f"${name}"
rules["hosp/labevents"] = {
    "lab": {
        "code": "f\"LAB//{$itemid}//{$valueuom ?? 'UNK'}\"",
        "time": '$charttime::"%Y-%m-%d %H:%M:%S"',
        "hadm_id": "$hadm_id",
        "numeric_value": "$valuenum",
        "text_value": "$value",
        "priority": "$priority",
    }
}
(out / "charttime.yaml").write_text(yaml.safe_dump(rules, sort_keys=False))
PY

for lab_time in charttime storetime; do
  meds="$out/meds_$lab_time"
  if [ ! -d "$meds/data" ]; then # its pipeline looks for the command of each stage on the path
    PATH="$out/env/bin:$PATH" meds-extract-run spec="$out/$lab_time.yaml" output_dir="$meds" do_download=false \
      input_dir="$raw" dataset_version=2.2
  fi
  "$out/env/bin/python" - "$meds" "$out" <<'PY'
import sys
from pathlib import Path

import polars as pl

meds, out = map(Path, sys.argv[1:])
splits = pl.read_parquet(meds / "metadata" / "subject_splits.parquet")
for name, split in (("test", "held_out"), ("val", "tuning")):
    flags = splits.select("subject_id", (pl.col("split") == split).cast(pl.Int8))
    flags.write_csv(out / f"{meds.name}_{name}.csv", include_header=False)
PY
  for protocol in medmod corrected; do
    stores="$out/${protocol}_$lab_time"
    "$python" -m datasets.extract --meds "$meds" --protocol $protocol --out "${stores}_meds"
    "$python" -m datasets.extract --mimic_iv "$raw" --protocol $protocol --lab_time $lab_time \
      --test_subjects "${meds}_test.csv" --val_subjects "${meds}_val.csv" --out "${stores}_raw"
    echo "== protocol $protocol, laboratory values at their $lab_time: raw tables, MEDS"
    "$python" -m tools.compare_stores "${stores}_raw" "${stores}_meds" --may_differ age anchor_age anchor_year_group
  done
done

# What we write.
store="$out/medmod_charttime_raw"
rm -rf "$out/reader" "$out/export" "$out/predictions" "$out/runs" "$out/scores"
"$python" -m datasets.export --layout meds --store "$store" --out "$out/export"
"$python" run_gpu.py --task phenotyping --mode train --protocol supervised --fusion ehr --data_pairs ehr_all \
  --store "$store" --epochs 2 --batch_size 16 --device cpu --save_dir "$out/runs" --name demo \
  --results_dir "$out/scores"
"$python" -m evaluation.meds --source "$out/runs/demo" --store "$store" --out "$out/predictions"
"$out/env/bin/python" - "$out" <<'PY'
import json
import sys
from pathlib import Path

import meds
import polars as pl
import pyarrow.parquet as pq
from meds_evaluation.evaluate import evaluate_binary_classification

out = Path(sys.argv[1])
export = out / "export"
for folder, schema in (("data", meds.DataSchema), ("task_labels", meds.LabelSchema)):
    paths = sorted((export / folder).rglob("*.parquet"))
    for path in paths:
        schema.validate(pq.read_table(path, partitioning=None))
    print(f"meds {meds.__version__}: {len(paths)} files of {folder} are valid")
meds.SubjectSplitSchema.validate(pq.read_table(export / meds.subject_splits_filepath))
meds.CodeMetadataSchema.validate(pq.read_table(export / meds.code_metadata_filepath))
meds.DatasetMetadataSchema.validate(json.loads((export / meds.dataset_metadata_filepath).read_text()))
print("metadata are valid")

tables = {path.stem: pl.read_parquet(path) for path in sorted((out / "predictions").iterdir())}
both = {name: table for name, table in tables.items() if table["boolean_value"].n_unique() == 2}
scores = [evaluate_binary_classification(table)["samples_equally_weighted"] for table in both.values()]
print(f"meds-evaluation: {len(scores)} of {len(tables)} labels have both classes in the test split, and have scores:")
print(", ".join(scores[0]))
PY
"$out/env/bin/meds_reader_convert" "$out/export" "$out/reader"
"$out/env/bin/python" - "$out" <<'PY'
import sys

import meds_reader

with meds_reader.SubjectDatabase(f"{sys.argv[1]}/reader") as database:
    events = sum(len(subject.events) for subject in (database[number] for number in database))
    print(f"meds_reader: {len(database)} subjects, {events} events")
PY
