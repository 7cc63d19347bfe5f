"""A linear layer on precomputed features of frozen encoders."""

from torch import Tensor, nn

from datasets.schema import FeatureBatch


class LinearProbe(nn.Module):
    """The linear layer of a LinearFusion, applied to precomputed features."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear

    def forward(self, batch: FeatureBatch) -> Tensor:
        """Map features of B samples to logits [B, outputs]."""
        logits: Tensor = self.linear(batch.features)
        return logits
