"""What all fusions share: the encoders that they hold, and what they return for a batch."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from datasets.schema import Batch
from models.encoders import Encoder
from models.fusion.settings import FusionSettings
from models.rows import take_rows
from utils.device import to_device


class BranchLogits(NamedTuple):
    """Logits [M, B, outputs] of M independent classifiers (branches), and which samples each can classify.

    Each branch learns from its own logits alone. The probability of a sample is the mean over the branches
    that are valid for it, at least one; `valid` is bool [M, B].
    """

    logits: Tensor
    valid: Tensor


class Supervision(NamedTuple):
    """What a fusion makes of a batch to learn from it.

    Attributes:
        logits: What `forward` returns.
        losses: Losses of its own, scalars by name. They are weighted already; the classifier adds them to the
            cross-entropy. Each is a mean over all processes (models.fusion.losses.global_mean).
        learns: The logits of which the cross-entropy is computed, if not those.
    """

    logits: Tensor | BranchLogits
    losses: Mapping[str, Tensor]
    learns: Tensor | BranchLogits | None = None

    def learning_logits(self) -> Tensor | BranchLogits:
        """Return the logits of which the cross-entropy is computed."""
        return self.logits if self.learns is None else self.learns


class Fusion(nn.Module, ABC):
    """A module from batches to logits, around the encoders of the modalities that it reads.

    The encoders are the attributes `ehr_encoder` and `cxr_encoder`, the names of their parts in a checkpoint.
    All other weights must belong to submodules, which are the other parts. In training, `supervise` takes the
    place of `forward`; the loop calls `after_backward` when the gradients of a step are there, and
    `end_epoch` after the last step of an epoch.

    Attributes:
        title: What scripts call it in their first line.
        modalities: What it reads of a batch.
        encoded: The modalities that it reads through their encoders; it reads others raw.
        settings: The dataclass of its own settings, if any; its constructor takes one as `settings`.
        learns_from_labels: Whether it has losses of labels; its constructor takes the task's `kind` then.
        intermediate: Whether it acts between the layers of the encoders, which then can have no heads.
        freezes_encoders: Whether it leaves the encoders as they are, so that they must be trained before.
        data_pairs: The value of --data_pairs in its scripts.
        published_like: The fusion whose published learning rates its scripts use, if it has none itself.
    """

    title: ClassVar[str]
    modalities: ClassVar[tuple[str, ...]] = ("ehr", "cxr")
    encoded: ClassVar[tuple[str, ...]] = ("ehr", "cxr")
    settings: ClassVar[type[FusionSettings]] = FusionSettings
    learns_from_labels: ClassVar[bool] = False
    intermediate: ClassVar[bool] = False
    freezes_encoders: ClassVar[bool] = False
    data_pairs: ClassVar[str] = "paired"
    published_like: ClassVar[str] = "joint"
    ehr_encoder: Encoder
    cxr_encoder: Encoder

    def __init__(self, encoders: Mapping[str, Encoder]) -> None:
        super().__init__()
        for name in self.encoder_names():
            self.add_module(f"{name}_encoder", encoders[name])

    @classmethod
    def encoder_names(cls) -> tuple[str, ...]:
        """Return the modalities that have an encoder."""
        return tuple(name for name in cls.modalities if name in cls.encoded)

    def encode_ehr(self, batch: Batch) -> Tensor:
        """Return the EHR features of B samples, [B, feature_dim]."""
        return self.ehr_encoder.sample_features(batch)

    def encode_cxr(self, batch: Batch, then: nn.Module | None = None) -> Tensor:
        """Return the image features of B samples, [B, D], zeros without an image; each image is encoded once.

        `then` is applied to the features of the images, such as a projection. A batch may hold features of
        the frozen encoder in place of images.
        """
        assert batch.cxr is not None, "a batch has the modalities of its fusion"
        features = batch.cxr if batch.cxr.ndim == 2 else self.cxr_encoder(batch.cxr)
        return take_rows(features if then is None else then(features), batch.image)

    @abstractmethod
    def forward(self, batch: Batch) -> Tensor | BranchLogits:
        """Map a batch of B samples to logits [B, outputs], or to the logits of several branches."""

    def supervise(self, batch: Batch) -> Supervision:
        """Return what to learn from a batch: by default, its logits."""
        return Supervision(self(batch), {})

    def after_backward(self) -> None:
        """Change the gradients of a step, which are those of all processes."""

    def end_epoch(self, epoch: int) -> None:
        """Prepare the next epoch; `epoch` counts from 0."""


class Hours(NamedTuple):
    """The hours of B samples, [B, T, channels], 0 where padded, and how many each has, int64 [B]."""

    values: Tensor
    lengths: Tensor

    def present(self) -> Tensor:
        """Return which hours are no padding, bool [B, T]."""
        hours = torch.arange(self.values.shape[1], device=self.lengths.device)
        return hours < self.lengths[:, None]


def raw_hours(batch: Batch) -> Hours:
    """Return the hours of each sample; samples of one stay share nothing here."""
    assert batch.ehr is not None, "a batch has the modalities of its fusion"
    # Without its order, since to order the lengths too, the host would wait for the device.
    stays, _ = pad_packed_sequence(PackedSequence(batch.ehr.data, batch.ehr.batch_sizes), batch_first=True)
    order = batch.ehr.unsorted_indices
    stay = batch.stay if order is None else order[batch.stay]
    hours = Hours(stays.index_select(0, stay), to_device(batch.hours, stays.device))
    return hours._replace(values=hours.values.masked_fill(~hours.present()[..., None], 0.0))
