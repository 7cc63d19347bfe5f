"""Made-up runs with names that look like markup, for the tests of the page."""

from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from evaluation.results import append, write_settings
from evaluation.scoring import ScoringContext, write_report
from evaluation.summaries import RESAMPLE_SEED
from tasks import TASKS
from tests.samples import make_samples
from utils.config import digest

# Names of runs and labels are text, whatever they look like. All of them are harmless.
NAMES = (
    "<b>bold</b>",
    "<script>window.injected = 1</script>",
    '"><i title="injected">',
    "' onclick='window.injected = 1' x='",
    "</style><u>injected</u>",
    "</script><u>injected</u>",
    "<!-- injected",
    "]]><u>injected</u>",
    "{{ 7 * 7 }} {% raw %} {# injected #}",
    "&lt;u&gt;injected&lt;/u&gt; &amp; &#60;u&#62;",
    "<svg><title>injected</title></svg>",
    "javascript:window.injected=1",
    "#task-1",
    "a\tb  c",
    "名前 😀 ‮rtl",
    "001",
    "nan",
)


def score_run(
    folder: Path,
    name: str,
    seed: int,
    skill: float = 1.0,
    task: str = "in-hospital-mortality",
    **changes: object,
) -> None:
    """Test a made-up run on the same 120 samples; `skill` makes its scores better."""
    truth = np.random.default_rng(0).integers(0, 2, (120, len(TASKS[task].labels))).astype(float)
    noise = np.random.default_rng((seed, len(name))).normal(size=truth.shape)
    guess = 1 / (1 + np.exp(-(skill * (truth - 0.5) + noise)))
    settings = {"fusion": changes.get("fusion", "ehr"), "optim.lr": 0.1}
    settings["label_fraction"] = changes.get("label_fraction", 1.0)
    write_settings(folder / "results", settings)
    started = str(changes.pop("started", f"2030-01-01T00:00:{seed:02d}+00:00"))
    run = {
        "run": name, "mode": "train", "task": task, "protocol": "finetune", "fusion": "ehr",
        "objective": "simclr", "checkpoint": "runs/none/best.ckpt", "checkpoint_hash": f"c{seed}",
        "classifier_hash": f"{name}{seed}", "epoch": 3, "seed": seed, "data": "synthetic", "store": "5a5a",
        "data_pairs": "paired", "label_fraction": 1.0, "settings": digest(settings), "split": "test",
        "commit": "0123",
        "started": started, "seconds": 1.0, **changes,
    }  # fmt: skip
    path = folder / "runs" / name / "predictions_test.csv"
    context = ScoringContext(pd.DataFrame({"sex": np.array(["F", "M"] * 60)}), 200, RESAMPLE_SEED)
    write_report(TASKS[task], make_samples(truth), guess, context, path, folder / "results", run)
    record = {"started": started, "settings": run["settings"], "store": run["store"]}
    record |= {"data": "synthetic data", "packages": {"torch": "2.12.1"}}
    (path.parent / "environment.yaml").write_text(yaml.safe_dump(record, sort_keys=False))
    (path.parent / "log.csv").write_text("epoch,auroc\n1,0.5\n2,0.6\n")


def named_runs(folder: Path) -> None:
    """Write results in which every text that a user may choose is one of NAMES."""
    table = folder / "results" / "phenotyping.csv"
    for number, name in enumerate(NAMES):
        row = {
            "run": name, "mode": "train", "task": "phenotyping", "protocol": name, "fusion": name,
            "objective": name, "checkpoint": name, "seed": 0, "data": "synthetic", "store": name,
            "data_pairs": name, "settings": name.replace("/", ""), "split": "test", "n": 9, "positives": 4,
            "commit": name, "started": f"2030-01-01T00:00:{number:02d}+00:00",
        }  # fmt: skip
        scores = {
            "macro": "auroc",
            f"macro[{name}={name}]": "auroc",
            f"macro[{name}]": "auroc_gap",
            name: "auroc",
        }
        append(table, [row | {"label": label, "metric": metric, "value": 0.7, "low": 0.6, "high": 0.8}
                       for label, metric in scores.items()])  # fmt: skip
