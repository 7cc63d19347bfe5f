"""What all objectives share: their settings, and the embeddings of the pairs of a batch."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from datasets.schema import Batch
from models import losses
from models.embeddings import sphere_metrics
from utils.distributed import gather_with_gradient


class PairObjective(nn.Module):
    """Encoders and heads ("ehr", "cxr"); subclasses compute a loss from the embeddings of pairs.

    Samples without an image are not pairs and are left out. With several processes the embeddings of all are
    gathered with their gradients, so that loss and gradient are those of one process with the whole batch.
    """

    def __init__(self, encoders: Mapping[str, nn.Module], heads: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict(encoders)
        self.heads = nn.ModuleDict(heads)

    def embed(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the image and EHR embeddings, [P, D] each, of this process's batch with P pairs."""
        image = self.heads["cxr"](self.encoders["cxr"](batch.cxr))
        ehr = self.heads["ehr"](self.encoders["ehr"](batch.ehr))
        return image, ehr if len(image) == len(ehr) else ehr[batch.has_cxr]

    def pairs(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the image and EHR embeddings, [N, D] each, of all processes' pairs, in rank order."""
        image, ehr = self.embed(batch)
        return gather_with_gradient(image), gather_with_gradient(ehr)

    @staticmethod
    def metrics(image: Tensor, ehr: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Return what every objective logs of its pairs, [N, D] each.

        accuracy: how often a pair's embeddings are each other's most similar; count: pairs of this process;
        and models.embeddings.sphere_metrics.
        """
        accuracy = losses.retrieval_accuracy(image, ehr)
        return {"accuracy": accuracy, **sphere_metrics(image, ehr), "count": batch.has_cxr.sum()}


@dataclass(frozen=True)
class PublishedOptim:
    """Published settings of an objective's optimizer, named as in training.optim.OptimConfig."""

    optimizer: str
    lr: float
    warmup_epochs: float
    weight_decay: float = 1e-4
    epochs: int = 300
    schedule: str = "cosine"


@dataclass(frozen=True)
class ObjectiveSettings(ABC):
    """The settings of an objective. The fields are flags, explained to users by the docstring below each.

    Attributes:
        name: Name of the objective in flags, checkpoints and results.
        title: Name of the objective in text.
        published_optim: Default settings of the optimizer.
        published_ehr_dim: Default width of the EHR encoder.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    published_optim: ClassVar[PublishedOptim]
    published_ehr_dim: ClassVar[int] = 128

    width: int = 1
    """The layers of the projection heads have 128 x width units; 0: one linear layer to 512, as in ALIGN."""

    @abstractmethod
    def build(self, encoders: Mapping[str, nn.Module], heads: Mapping[str, nn.Module]) -> PairObjective:
        """Build the objective around encoders and heads, by modality."""

    def check(self, optimizer: str) -> None:  # noqa: B027  # most objectives work with every optimizer
        """Raise ValueError if the objective cannot be trained with an optimizer."""
