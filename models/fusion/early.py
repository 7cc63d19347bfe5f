"""Early fusion: joint fusion on encoders that are trained before and stay frozen."""

from collections.abc import Mapping
from typing import Self

from models.encoders import Encoder
from models.fusion.joint import Joint


class Early(Joint):
    """Joint fusion whose encoders are frozen: no gradient, and always in eval mode."""

    title = "early fusion"
    freezes_encoders = True

    def __init__(self, encoders: Mapping[str, Encoder], outputs: int) -> None:
        super().__init__(encoders, outputs)
        for encoder in self._frozen():
            encoder.requires_grad_(False)
        self.train()

    def train(self, mode: bool = True) -> Self:
        """Set the mode of all layers but the encoders, whose running statistics would change."""
        super().train(mode)
        for encoder in self._frozen():
            encoder.eval()
        return self

    def _frozen(self) -> tuple[Encoder, Encoder]:
        return self.ehr_encoder, self.cxr_encoder
