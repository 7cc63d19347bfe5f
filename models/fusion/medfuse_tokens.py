"""MedFuse with tokens: an LSTM over EHR, separator, image and end token."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from datasets.schema import Batch
from models.encoders import Encoder, run_lstm
from models.fusion.medfuse import FUSED_DIM
from models.fusion.projected import ProjectedFusion
from models.fusion.settings import MedFuseTokensSettings


class MedFuseTokens(ProjectedFusion):
    """A linear layer on the LSTM's hidden state after four steps: EHR, SEP, CXR, CLS.

    SEP and CLS are learned vectors. Without an image, CXR is another learned vector if `missing_token` is
    "learned", and zero if it is "zero".
    """

    title = "MedFuse with tokens"
    data_pairs = "partial"
    published_like = "medfuse"
    settings = MedFuseTokensSettings

    def __init__(
        self, encoders: Mapping[str, Encoder], outputs: int, settings: MedFuseTokensSettings
    ) -> None:
        super().__init__(encoders)
        names = ("sep", "cls", "missing") if settings.missing_token == "learned" else ("sep", "cls")
        self.tokens = nn.ParameterDict({name: nn.Parameter(torch.rand(self.feature_dim)) for name in names})
        self.lstm = nn.LSTM(self.feature_dim, FUSED_DIM, batch_first=True)
        self.linear = nn.Linear(FUSED_DIM, outputs)

    def forward(self, batch: Batch) -> Tensor:
        """Map a batch of B samples to logits [B, outputs]."""
        ehr, image = self.both(batch)
        if "missing" in self.tokens:
            image = torch.where(batch.has_cxr[:, None], image, self.tokens["missing"])
        sep, end = (self.tokens[name].expand_as(ehr) for name in ("sep", "cls"))
        states, _ = run_lstm(self.lstm, torch.stack([ehr, sep, image, end], dim=1))
        logits: Tensor = self.linear(states[:, -1])
        return logits
