"""Early fusion: joint fusion on encoders that were trained before and stay as they are."""

from collections.abc import Mapping
from typing import Self

from models.encoders import Encoder
from models.fusion.joint import Joint


class Early(Joint):
    """Joint fusion whose encoders are frozen: no gradient, always in eval mode."""

    freezes_encoders = True

    def __init__(self, encoders: Mapping[str, Encoder], outputs: int) -> None:
        super().__init__(encoders, outputs)
        for encoder in self._frozen():
            encoder.requires_grad_(False)
        self.train()

    def train(self, mode: bool = True) -> Self:
        """Training mode for its own layers; never for the encoders, whose statistics would move."""
        super().train(mode)
        for encoder in self._frozen():
            encoder.eval()
        return self

    def _frozen(self) -> tuple[Encoder, Encoder]:
        return self.ehr_encoder, self.cxr_encoder
