"""What the fusions share that are one linear layer on the features of their encoders."""

from abc import abstractmethod
from collections.abc import Mapping

from torch import Tensor, nn

from datasets.schema import Batch
from models.encoders import Encoder
from models.fusion.base import Fusion


class LinearFusion(Fusion):
    """Encoders and one linear layer; no other weights, so that linear evaluation can take it.

    Linear evaluation computes `features` once and trains `linear` alone.
    """

    def __init__(self, encoders: Mapping[str, Encoder], outputs: int) -> None:
        super().__init__(encoders)
        self.feature_dim = sum(encoders[name].feature_dim for name in self.modalities)
        self.linear = nn.Linear(self.feature_dim, outputs)

    @abstractmethod
    def features(self, batch: Batch) -> Tensor:
        """Batch of B samples -> [B, feature_dim]."""

    def forward(self, batch: Batch) -> Tensor:
        """Batch of B samples -> logits [B, outputs]."""
        logits: Tensor = self.linear(self.features(batch))
        return logits
