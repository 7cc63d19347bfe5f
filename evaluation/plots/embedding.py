"""Embeddings in two dimensions, coloured by a label."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tyro
from matplotlib.figure import Figure
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from evaluation.plots.figures import Picture, label_titles, make_panels, make_title
from evaluation.plots.palette import look
from evaluation.plots.style import SMALL_TEXT, legend_below, wrap
from evaluation.predictions import EMBEDDINGS, read_embeddings

MAX_TSNE_SAMPLES = 3000  # t-SNE of as many takes about a minute


class Projection(NamedTuple):
    """Points [n, 2] with a title, and their labels [n], NaN if unknown; None if there are none."""

    title: str
    points: np.ndarray
    labels: np.ndarray | None


@dataclass(frozen=True)
class Embedding(Picture):
    """Plot embeddings in two dimensions: the first two principal components, or t-SNE."""

    source: tyro.conf.Positional[Path]
    """Folder of a run with --protocol lineareval; or an .npz file with embeddings [n, D] and, optionally,
    labels [n]."""
    label: str = ""
    """Label to colour by; empty if there is only one."""
    before: Path | None = None
    """Run to show beside it, such as one with --load_state random: the embeddings before pretraining."""
    tsne: bool = False
    """Use t-SNE, which keeps neighbours together, instead of principal components."""
    seed: int = 0
    """Seed of t-SNE, and of the samples that it shows if there are many."""

    def draw(self) -> tuple[Figure, Path]:
        """Return the figure, and the path to write it to."""
        sources = [path for path in (self.before, self.source) if path is not None]
        paths = [path / EMBEDDINGS if path.is_dir() else path for path in sources]
        projections = [self.project(path) for path in paths]
        axis_names = ("t-SNE 1", "t-SNE 2") if self.tsne else ("first component", "second component")
        label = self.label and label_titles(self.source, [self.label])[self.label]
        title = make_title(self.source, f", {label}" if label else "")
        figure = draw_projections(projections, axis_names, title, label or "label")
        return figure, paths[-1].with_name(f"{paths[-1].stem}_{'tsne' if self.tsne else 'pca'}.png")

    def project(self, path: Path) -> Projection:
        """Read embeddings and project them to two dimensions."""
        embeddings, labels = read_embeddings(path, self.label)
        count = len(embeddings)
        if self.tsne:
            sample = np.sort(np.random.default_rng(self.seed).permutation(count)[:MAX_TSNE_SAMPLES])
            embeddings = embeddings[sample]
            labels = None if labels is None else labels[sample]
            points = tsne(embeddings, self.seed)
        else:
            points = principal_components(embeddings)
        name = path.resolve().parent.name if path.name == EMBEDDINGS else path.stem
        return Projection(f"{name}: {len(points)} of {count} samples", points, labels)


def principal_components(embeddings: np.ndarray) -> np.ndarray:
    """Project embeddings [n, D] on their first two principal components: [n, 2].

    >>> principal_components(np.array([[0.0, 0.0], [2.0, 0.0], [4.0, 0.0]])).round(6).tolist()
    [[-2.0, 0.0], [0.0, 0.0], [2.0, 0.0]]
    """
    return np.asarray(PCA(2, svd_solver="full").fit_transform(embeddings))


def tsne(embeddings: np.ndarray, seed: int) -> np.ndarray:
    """Project embeddings [n, D] by t-SNE, which starts from the principal components: [n, 2]."""
    perplexity = min(30.0, (len(embeddings) - 1) / 3)
    model = TSNE(2, perplexity=perplexity, init="pca", random_state=seed)
    return np.asarray(model.fit_transform(embeddings))


def label_masks(labels: np.ndarray) -> dict[str, np.ndarray]:
    """Return {value: mask [n]} of labels [n], the unknown ones last.

    >>> {name: mask.tolist() for name, mask in label_masks(np.array([1.0, np.nan, 1.0])).items()}
    {'1': [True, False, True], 'unknown': [False, True, False]}
    """
    numeric = np.issubdtype(labels.dtype, np.number)
    unknown = np.isnan(labels) if numeric else np.zeros(len(labels), bool)
    masks = {f"{v:g}" if numeric else str(v): labels == v for v in np.unique(labels[~unknown])}
    return masks | ({"unknown": unknown} if unknown.any() else {})


def draw_projections(
    projections: Sequence[Projection], axis_names: Sequence[str], title: str, label: str = ""
) -> Figure:
    """Draw a panel per projection; the labels of its points are colours and marks."""
    width = 4.8 * len(projections)
    figure, axes = make_panels(len(projections), title, width, legend_lines=1)
    for axis, projection in zip(axes, projections, strict=True):
        x, y = projection.points.T
        if projection.labels is None:
            axis.scatter(x, y, s=8, alpha=0.6, color=look(0).color)
        else:
            for number, (name, mask) in enumerate(label_masks(projection.labels).items()):
                color, _, marker, _ = look(number)
                axis.scatter(
                    x[mask], y[mask], s=8, c=color, marker=marker, alpha=0.6, linewidths=0, label=name
                )
        axis.set_title(wrap(projection.title, 50), fontsize=SMALL_TEXT)
        axis.set(xlabel=axis_names[0], ylabel=axis_names[1])
    legend_below(figure, columns=6, markerscale=2, title=label or None)
    return figure
