"""The comparison of two builds reads what their programs wrote, and runs them in turn."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from benchmarks import child, side_by_side
from simclr_trainer import SimCLRConfig
from training.classify_config import ClassifyConfig, check_config
from utils.config import parse


def test_the_medians_of_both_builds_are_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    turns = []

    def write(words: list[str], slow: int) -> None:
        """Write what a run of run_gpu.py would."""
        flags = dict(zip(words[::2], words[1::2], strict=True))
        begun = Path(flags.get("--load_state", ""))
        assert (flags["--protocol"] == "finetune") == (begun.name == "last.ckpt")
        folder = Path(flags["--save_dir"]) / flags["--name"]
        folder.mkdir(parents=True, exist_ok=True)
        assert flags.get("--epochs", "1") in ("1", "2" if slow == 10 else "4")
        rates, seconds = [1, 300 / slow, 100 / slow, 300 / slow], [9, 1 * slow, 4 * slow, 1 * slow]
        log = pd.DataFrame({"samples_per_second": rates, "seconds": seconds})
        log.to_csv(folder / "log.csv", index=False)
        count = 40 if flags["--store"].endswith("large_store") else 20
        pd.DataFrame({"probability": [0.25 + (slow == 10) / 4] * count}).to_csv(
            folder / "predictions_test.csv", index=False
        )

    def run(command: list[object], environment: object = None, cwd: Path = child.ROOT) -> child.Ended:
        """Act as a program: the other build is ten times as slow and predicts 0.25 more."""
        words = list(map(str, command))
        slow = 1 if cwd == child.ROOT else 10
        if "run_gpu.py" in words:
            turns.append(slow)
            write(words[2:], slow)
        elif "datasets.extract" in words:
            store = Path(words[words.index("--out") + 1])
            store.mkdir(parents=True)
            (store / "manifest.yaml").write_text(f"store_version: {3 if cwd == child.ROOT else 1}\n")
        elif words[1] == "-c":
            rounds, tests = int(words[3]), json.loads(words[4])
            for flags in tests:
                write(flags, slow)
            taken = [[6 + slow * count / 10] * rounds for count in (20, 40)]
            return child.Ended(1, 1, 1, 1, f"of the last test\n{json.dumps(taken)}\n")
        return child.Ended(1, 1, 50.0 * slow, 1, "")

    monkeypatch.setattr(child, "run", run)
    config = side_by_side.SideBySide(tmp_path / "other", repeats=2, our_epochs=4)
    figures = {figure.work: figure for figure in side_by_side.compare(config, tmp_path)}
    assert turns[:4] == [1, 10, 1, 10] and len(figures) == 3 * len(side_by_side.TRAININGS) + 1
    assert [figure.ratio for figure in figures.values()] == pytest.approx([10] * len(figures))
    training = next(iter(side_by_side.TRAININGS))
    assert figures[f"training: {training}"].ours == pytest.approx(180), "of 1, 3 and 1 parts of time"
    assert figures[f"an epoch and its validation: {training}"].ours == pytest.approx(2)
    assert figures[f"test: {side_by_side.TESTED}"].ours == 10.0, "20 samples more took 2 core-s more"
    printed = capsys.readouterr().out
    assert "probabilities differ by 2.5e-01 at most; the stores have versions 3 and 1" in printed


def test_rows_name_images_other_than_the_usual_ones() -> None:
    published = side_by_side.SideBySide(Path("other"), vision_backbone="resnet34", image_size=224)
    assert side_by_side.images_of(published) == ", resnet34 at 224 pixels"
    assert side_by_side.images_of(side_by_side.SideBySide(Path("other"))) == ""
    flags = side_by_side.image_flags(published, "--task decompensation --protocol supervised")
    assert flags == ["--image_size", "224", "--vision_backbone", "resnet34"]
    assert side_by_side.image_flags(published, "--protocol finetune") == ["--image_size", "224"]


@pytest.mark.parametrize("flags", side_by_side.TRAININGS.values())
def test_the_trainings_are_valid(flags: str) -> None:
    begun = ["--load_state", "last.ckpt"] if "finetune" in flags else []
    check_config(parse(ClassifyConfig, [*flags.split(), *begun]))


def test_the_pretraining_is_valid() -> None:
    parse(SimCLRConfig, side_by_side.PRETRAINING.split())


def test_tests_run_one_after_the_other_in_one_process_and_the_first_round_does_not_count(
    tmp_path: Path,
) -> None:
    (tmp_path / "run_gpu.py").write_text(
        "import sys\nfor _ in range(10**6 * int(sys.argv[1])): pass\nprint('ran', *sys.argv[1:])\n"
    )
    words = ["2", json.dumps([["0", "small"], ["5", "large"]])]
    command = [sys.executable, "-c", side_by_side.IN_ONE_PROCESS, *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    *printed, taken = done.stdout.splitlines()
    assert printed == ["ran 0 small", "ran 5 large"] * 3
    small, large = json.loads(taken)
    assert len(small) == len(large) == 2
    assert max(small) < min(large)
