"""Epoch selection while a pretraining runs: what `select_epoch` does, on the weights in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import nn

from datasets.batches import check_batch_size
from datasets.data_config import SPLIT_SETTINGS, DataConfig
from datasets.store import Store
from models.classifier import ClassifierConfig, build_classifier
from models.encoders import EncoderConfig
from models.fusion import LinearFusion
from tasks import get_task
from training.epoch_table import remove_epochs
from training.features import SharedFeatures
from training.select_epoch import (
    EpochSelection,
    check_table,
    find_checkpoints,
    hold_tables,
    load_sample_sets,
    missing_rows,
    probe_epochs,
    probe_task,
    report,
    unique_inputs,
)
from training.select_epoch_config import EpochSelectionConfig, ProbeConfig
from training.selection import SelectionConfig
from utils import distributed
from utils.run import Run


class EpochProbes:
    """Linear probes of the encoders of a run after each epoch, with the tables of `select_epoch`.

    A probe reads the pretraining's store at its --image_size, --transforms_cxr, --cxr_shape and
    --every_hours; all else are the defaults of epoch_evaluation.py. Its weights and its order of samples come
    from the run's seed. In a run that is resumed, checkpoints without a row are probed first.

    Raises:
        ValueError: A table is of another pretraining, or was made with other settings.
    """

    def __init__(
        self,
        selection: SelectionConfig,
        data: DataConfig,
        encoder_config: EncoderConfig,
        encoders: Mapping[str, nn.Module],
        store: Store,
        run: Run,
    ) -> None:
        default = EpochSelectionConfig()
        views = ("image_size", "transforms_cxr", "cxr_shape")
        names = ("store", *SPLIT_SETTINGS, *views, "every_hours", "data_device")
        reading = {name: getattr(data, name) for name in names}
        config = replace(
            default,
            run_dir=run.folder,
            task=selection.probe,
            seed=run.seed,
            device=run.config.device,
            probe=ProbeConfig(epochs=selection.probe_epochs),
            data=replace(default.data, **reading),
        )
        check_batch_size(config.data.batch_size, run.process.world)
        resumes = run.config.resume and (run.folder / "last.ckpt").is_file()
        checkpoints = find_checkpoints(run.folder) if resumes else {}
        tasks = [get_task(name) for name in selection.tasks]
        self.job = EpochSelection(config, tasks, checkpoints, store, run.process)
        distributed.raise_together(lambda: self._open_tables(resumes))
        if missing := missing_rows(self.job):
            probe_epochs(self.job, missing)
        self.samples = load_sample_sets(self.job, self.job.tasks)
        self.inputs = unique_inputs(self.job, self.samples, encoder_config)
        self.encoders = encoders
        built = ClassifierConfig(config.fusion, "binary", 1, encoder_config, config.fusion_layer)
        classifier = build_classifier(built, download=False)
        self.parts = classifier.parts()
        fusion = classifier.fusion.to(run.process.device)
        assert isinstance(fusion, LinearFusion), "--fusion offers no other"
        self.fusion = fusion

    def _open_tables(self, resumes: bool) -> None:
        """Hold the tables; a run that starts anew replaces those of one that left no last.ckpt."""
        hold_tables(self.job)
        for task in self.job.tasks:
            if resumes:
                check_table(self.job, task)
            else:
                remove_epochs(self.job.table(task), task, 0)

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of what `score` returns, such as phenotyping_auroc."""
        return tuple(f"{task.name}_{task.monitor}" for task in self.job.tasks)

    def score(self, epoch: int) -> dict[str, float]:
        """Probe the weights in memory, on all processes together; return the validation score of each task.

        The main process trains the probes and writes the rows. A row of this epoch, which a run that was
        stopped wrote before its last.ckpt, is replaced.
        """
        for modality, encoder in self.encoders.items():
            self.parts[f"{modality}_encoder"].load_state_dict(encoder.state_dict())
        features = SharedFeatures(self.fusion, self.inputs, self.job.process.device)
        scores = [0.0] * len(self.job.tasks)

        def probe() -> None:
            for index, task in enumerate(self.job.tasks):
                remove_epochs(self.job.table(task), task, epoch)
                row = probe_task(self.job, task, epoch, features, self.samples)
                scores[index] = row[f"val_{task.monitor}"]

        distributed.raise_together(probe)
        return dict(zip(self.columns, map(distributed.broadcast_value, scores), strict=True))

    def report(self) -> None:
        """Draw the curves and print the best epochs."""
        report(replace(self.job, checkpoints=find_checkpoints(self.job.config.run_dir)))
