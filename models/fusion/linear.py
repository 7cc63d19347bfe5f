"""What the fusions share that end in one linear layer: features of a batch, then logits."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn

from datasets.schema import Batch


class LinearFusion(nn.Module, ABC):
    """Encoders of the `modalities` it needs, and one linear layer on the features it makes of them.

    The encoders are the attributes `ehr_encoder` and `cxr_encoder`: under these names their weights are saved
    and loaded as parts of a checkpoint. Linear evaluation computes `features` once and trains `linear` alone.
    """

    modalities: ClassVar[tuple[str, ...]]

    def __init__(self, encoders: Mapping[str, nn.Module], outputs: int) -> None:
        super().__init__()
        for name in self.modalities:
            self.add_module(f"{name}_encoder", encoders[name])
        self.feature_dim = sum(encoders[name].feature_dim for name in self.modalities)
        self.linear = nn.Linear(self.feature_dim, outputs)

    @abstractmethod
    def features(self, batch: Batch) -> Tensor:
        """Batch of B samples -> [B, feature_dim]."""

    def forward(self, batch: Batch) -> Tensor:
        """Batch of B samples -> logits [B, outputs]."""
        return self.linear(self.features(batch))
