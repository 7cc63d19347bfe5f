"""SimCLR across modalities: a stay's EHR and its X-ray are each other's positive."""

from collections.abc import Mapping

from torch import Tensor, nn

from datasets.schema import Batch
from models import losses
from utils.distributed import gather_with_gradient


class SimCLR(nn.Module):
    """Encoders and projection heads ("ehr", "cxr") under the contrastive loss of models.losses.simclr.

    Samples without an image are no pair and left out. On several processes the embeddings of all are gathered
    with their gradients, so that loss and gradient are those of one process with the whole batch.
    """

    def __init__(
        self,
        encoders: Mapping[str, nn.Module],
        heads: Mapping[str, nn.Module],
        temperature: float = 0.1,
        denominator: losses.Denominator = "decoupled",
    ) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict(encoders)
        self.heads = nn.ModuleDict(heads)
        self.temperature = temperature
        self.denominator = denominator

    def embed(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Batch with P images -> image and EHR embeddings of its P pairs, [P, D] each."""
        image = self.heads["cxr"](self.encoders["cxr"](batch.cxr))
        ehr = self.heads["ehr"](self.encoders["ehr"](batch.ehr))
        return image, ehr if len(image) == len(ehr) else ehr[batch.has_cxr]

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Batch -> {"loss", "accuracy", "count"}: share of pairs that find each other, number of pairs."""
        image, ehr = (gather_with_gradient(embedding) for embedding in self.embed(batch))
        return {
            "loss": losses.simclr(image, ehr, self.temperature, self.denominator),
            "accuracy": losses.retrieval_accuracy(image, ehr),
            "count": batch.has_cxr.sum(),
        }
