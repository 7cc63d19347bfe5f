"""What all fusions share: the encoders they hold, and what they answer to a batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

from torch import Tensor, nn

from datasets.schema import Batch
from models.encoders import Encoder


class BranchLogits(NamedTuple):
    """Logits of M classifiers side by side, [M, B, outputs], and which samples each can judge, bool [M, B].

    Every sample has at least one judge. Each classifier learns from its own logits alone, and the probability
    of a sample is the mean of those of its valid.
    """

    logits: Tensor
    valid: Tensor


class Fusion(nn.Module, ABC):
    """From a batch to logits, by the encoders of the `modalities` it needs.

    The encoders are the attributes `ehr_encoder` and `cxr_encoder`: under these names their weights are saved
    and loaded as parts of a checkpoint. Weights of its own belong to modules, which are parts too.

    modalities: what it reads of a batch; settings: the fields of FusionConfig that its constructor takes;
    intermediate: whether it acts between the encoders' layers, so that no heads can stand on top of them;
    freezes_encoders: whether it leaves the encoders as they are, so that they must have been trained before.
    """

    modalities: ClassVar[tuple[str, ...]] = ("ehr", "cxr")
    settings: ClassVar[tuple[str, ...]] = ()
    intermediate: ClassVar[bool] = False
    freezes_encoders: ClassVar[bool] = False
    ehr_encoder: Encoder
    cxr_encoder: Encoder

    def __init__(self, encoders: Mapping[str, Encoder]) -> None:
        super().__init__()
        for name in self.modalities:
            self.add_module(f"{name}_encoder", encoders[name])

    @abstractmethod
    def forward(self, batch: Batch) -> Tensor | BranchLogits:
        """Batch of B samples -> logits [B, outputs], or those of several classifiers."""
