"""What the objectives share: embeddings of a batch's pairs, those of all processes."""

from collections.abc import Mapping

from torch import Tensor, nn

from datasets.schema import Batch
from models import losses
from models.embeddings import sphere_measures
from utils.distributed import gather_with_gradient


class PairObjective(nn.Module):
    """Encoders and heads ("ehr", "cxr"); a loss on what they make of pairs is up to the objective.

    Samples without an image are no pair and left out. On several processes the embeddings of all are gathered
    with their gradients, so that loss and gradient are those of one process with the whole batch.
    """

    def __init__(self, encoders: Mapping[str, nn.Module], heads: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict(encoders)
        self.heads = nn.ModuleDict(heads)

    def embed(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Batch with P images -> image and EHR embeddings of its P pairs, [P, D] each."""
        image = self.heads["cxr"](self.encoders["cxr"](batch.cxr))
        ehr = self.heads["ehr"](self.encoders["ehr"](batch.ehr))
        return image, ehr if len(image) == len(ehr) else ehr[batch.has_cxr]

    def pairs(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Batch -> image and EHR embeddings of the N pairs of all processes, [N, D] each, in rank order."""
        image, ehr = self.embed(batch)
        return gather_with_gradient(image), gather_with_gradient(ehr)

    @staticmethod
    def measures(image: Tensor, ehr: Tensor, batch: Batch) -> dict[str, Tensor]:
        """What every objective logs: {"accuracy", "count"} and those of models.embeddings.sphere_measures.

        accuracy: share of the N pairs [N, D] that find each other; count: pairs of this process.
        """
        found = {"accuracy": losses.retrieval_accuracy(image, ehr), **sphere_measures(image, ehr)}
        return found | {"count": batch.has_cxr.sum()}
