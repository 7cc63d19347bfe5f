"""Projection heads, and encoders with a head on top."""

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from datasets.schema import Batch
from models.encoders import Encoder

UNIT = 128  # width of the published heads at --width 1
LINEAR_DIM = 512  # width of ALIGN's head


class ProjectionHead(nn.Sequential):
    """Linear, ReLU, Linear, ReLU, Linear without bias: [B, input_dim] -> [B, 128 * width]."""

    def __init__(self, input_dim: int, width: int = 1) -> None:
        if width < 1:
            raise ValueError(
                f"--width {width}: the head has 128 x width units; use 1 or more, or 0 for one linear layer"
            )
        units = UNIT * width
        super().__init__(
            nn.Linear(input_dim, units),
            nn.ReLU(),
            nn.Linear(units, units),
            nn.ReLU(),
            nn.Linear(units, units, bias=False),
        )
        self.feature_dim = units


class LinearHead(nn.Linear):
    """One linear layer, as published for ALIGN: [B, input_dim] -> [B, 512]."""

    def __init__(self, input_dim: int) -> None:
        super().__init__(input_dim, LINEAR_DIM)
        self.feature_dim = LINEAR_DIM


class HeadedEncoder(Encoder):
    """An encoder whose feature is its projection head's output (`--fusion_layer 3`)."""

    def __init__(self, encoder: nn.Module, head: ProjectionHead | LinearHead) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head
        self.feature_dim = head.feature_dim

    def forward(self, modality: PackedSequence | Tensor) -> Tensor:
        """Map the encoder's input to features [B, feature_dim]."""
        feature: Tensor = self.head(self.encoder(modality))
        return feature

    def sample_features(self, batch: Batch) -> Tensor:
        """Return the features of the records of B samples, [B, feature_dim]."""
        assert isinstance(self.encoder, Encoder)
        feature: Tensor = self.head(self.encoder.sample_features(batch))
        return feature


def build_heads(encoders: Mapping[str, Encoder], width: int) -> dict[str, ProjectionHead | LinearHead]:
    """Build a head for each encoder, by modality; `width` 0 makes it one linear layer."""
    if width == 0:
        return {name: LinearHead(encoder.feature_dim) for name, encoder in encoders.items()}
    return {name: ProjectionHead(encoder.feature_dim, width) for name, encoder in encoders.items()}
