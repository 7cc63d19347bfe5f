"""A linear layer on features that frozen encoders have computed."""

from torch import Tensor, nn

from datasets.schema import FeatureBatch


class LinearProbe(nn.Module):
    """The linear layer of a fusion, fed with its features: FeatureBatch -> logits [B, outputs]."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear

    def forward(self, batch: FeatureBatch) -> Tensor:
        """FeatureBatch of B samples -> logits [B, outputs]."""
        logits: Tensor = self.linear(batch.features)
        return logits
