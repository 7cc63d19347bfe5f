"""The comparison of pretraining with selection adds up the programs of each build and what they leave."""

from pathlib import Path

import pandas as pd
import pytest

from benchmarks import child, selection


def test_time_of_all_programs_and_what_they_leave_are_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs: dict[Path, list[str]] = {}

    def run(command: list[object], environment: object = None, cwd: Path = child.ROOT) -> child.Ended:
        """Write what a program would: a megabyte of checkpoints of our build, ten of the other."""
        words = list(map(str, command))
        if "datasets.extract" in words:
            Path(words[words.index("--out") + 1]).mkdir(parents=True)
        if not words[1].endswith(".py"):
            return child.Ended(1, 1, 1, 1, "")
        programs.setdefault(cwd, []).append(words[1])
        flags = dict(zip(words[2::2], words[3::2], strict=True))
        folder = Path(flags.get("--run_dir", Path(flags.get("--save_dir", "")) / "simclr"))
        folder.mkdir(exist_ok=True)
        if "evaluation" not in words[1]:
            (folder / "epochs.ckpt").write_bytes(bytes((1 if cwd == child.ROOT else 10) << 20))
            (folder / "best.ckpt").hardlink_to(folder / "epochs.ckpt")
        for task in flags.get("--probe", flags.get("--task", "")).split(","):
            pd.DataFrame({"epoch": range(2)}).to_csv(folder / f"results_label_{task}.csv", index=False)
        return child.Ended(3, 3, 1, 1, "")

    monkeypatch.setattr(child, "run", run)
    config = selection.SelectionConfig(tmp_path / "other", epochs=2, repeats=2)
    time, disk = selection.compare(config, tmp_path)
    assert programs[child.ROOT] == ["simclr_trainer.py"] * 2
    assert programs[config.other] == ["simclr_trainer.py", "epoch_evaluation.py"] * 2
    assert (time.ours, time.other, time.ratio) == (3, 6, 2)
    assert disk.ours == pytest.approx(1, rel=1e-3) and disk.ratio == pytest.approx(10, rel=1e-3)
