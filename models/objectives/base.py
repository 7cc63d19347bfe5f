"""What all objectives share: the embeddings of the pairs of a batch."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from datasets.schema import Batch
from models import losses
from models.embeddings import sphere_metrics
from models.encoders import Encoder
from models.objectives.settings import ObjectiveSettings
from utils.distributed import gather_with_gradient


class PairObjective(nn.Module):
    """Encoders and heads ("ehr", "cxr"); a subclass computes a loss from their embeddings of pairs.

    Samples without an image are not pairs and are left out. With several processes the embeddings of all are
    gathered with their gradients, so that loss and gradient are those of one process with the whole batch.
    """

    settings: ObjectiveSettings

    def __init__(
        self, encoders: Mapping[str, nn.Module], heads: Mapping[str, nn.Module], settings: ObjectiveSettings
    ) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict(encoders)
        self.heads = nn.ModuleDict(heads)
        self.settings = settings

    def embed(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the image and EHR embeddings, [P, D] each, of this process's pairs."""
        encoder = self.encoders["ehr"]
        assert isinstance(encoder, Encoder)
        image = self.heads["cxr"](self.encoders["cxr"](batch.cxr))
        ehr = self.heads["ehr"](encoder.sample_features(batch))
        return image, ehr.index_select(0, batch.paired)

    def pairs(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the image and EHR embeddings, [N, D] each, of all processes' pairs, in rank order.

        They are float32 or better, so that the sum over processes of their gradients is, too.
        """
        image, ehr = losses.upcast(*self.embed(batch))
        return gather_with_gradient(image), gather_with_gradient(ehr)

    @staticmethod
    def metrics(image: Tensor, ehr: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Return what to log of all pairs, [N, D] each: accuracy, sphere_metrics and this process's count."""
        accuracy = losses.retrieval_accuracy(image, ehr)
        return {"accuracy": accuracy, **sphere_metrics(image, ehr), "count": batch.has_cxr.sum()}
