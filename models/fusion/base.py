"""What all fusions share: the encoders that they hold, and what they return for a batch."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

from torch import Tensor, nn

from datasets.schema import Batch
from models.encoders import Encoder
from models.rows import take_rows


class BranchLogits(NamedTuple):
    """Logits [M, B, outputs] of M independent classifiers (branches), and which samples each can classify.

    Each branch learns from its own logits alone. The probability of a sample is the mean over the branches
    that are valid for it, at least one; `valid` is bool [M, B].
    """

    logits: Tensor
    valid: Tensor


class Fusion(nn.Module, ABC):
    """A module from batches to logits, around the encoders of the modalities that it reads.

    The encoders are the attributes `ehr_encoder` and `cxr_encoder`, the names of their parts in a checkpoint.
    All other weights must belong to submodules, which are the other parts.

    Attributes:
        title: What scripts call it in their first line.
        modalities: What it reads of a batch.
        settings: The fields of FusionConfig that its constructor takes.
        intermediate: Whether it acts between the layers of the encoders, which then can have no heads.
        freezes_encoders: Whether it leaves the encoders as they are, so that they must be trained before.
        data_pairs: The value of --data_pairs in its scripts.
        published_like: The fusion whose published learning rates its scripts use, if it has none itself.
    """

    title: ClassVar[str]
    modalities: ClassVar[tuple[str, ...]] = ("ehr", "cxr")
    settings: ClassVar[tuple[str, ...]] = ()
    intermediate: ClassVar[bool] = False
    freezes_encoders: ClassVar[bool] = False
    data_pairs: ClassVar[str] = "paired"
    published_like: ClassVar[str] = "joint"
    ehr_encoder: Encoder
    cxr_encoder: Encoder

    def __init__(self, encoders: Mapping[str, Encoder]) -> None:
        super().__init__()
        for name in self.modalities:
            self.add_module(f"{name}_encoder", encoders[name])

    def encode_ehr(self, batch: Batch) -> Tensor:
        """Return the EHR features of B samples, [B, feature_dim]; each stay is encoded once."""
        assert batch.ehr is not None, "a batch has the modalities of its fusion"
        return self.ehr_encoder.prefix_features(batch.ehr, batch.stay, batch.last)

    def encode_cxr(self, batch: Batch, then: nn.Module | None = None) -> Tensor:
        """Return the image features of B samples, [B, D], zeros without an image; each image is encoded once.

        `then` is applied to the features of the images, such as a projection.
        """
        features = self.cxr_encoder(batch.cxr)
        return take_rows(features if then is None else then(features), batch.image)

    @abstractmethod
    def forward(self, batch: Batch) -> Tensor | BranchLogits:
        """Map a batch of B samples to logits [B, outputs], or to the logits of several branches."""
