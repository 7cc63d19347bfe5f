"""The command line of the figures: `python -m evaluation.plots roc RUN`."""

from evaluation.plots.calibration import Calibration
from evaluation.plots.curves import Curves, Epochs
from evaluation.plots.decision import Decision
from evaluation.plots.embedding import Embedding
from evaluation.plots.labels import Labels
from evaluation.plots.record import Record
from evaluation.plots.robustness import Robustness
from evaluation.plots.roc import Roc
from evaluation.plots.scores import Bars, Heatmap
from evaluation.plots.search import Search
from evaluation.plots.style import save
from utils.cli import run_cli

Command = (
    Curves
    | Epochs
    | Roc
    | Calibration
    | Bars
    | Heatmap
    | Embedding
    | Record
    | Robustness
    | Decision
    | Labels
    | Search
)


def main(command: Command) -> None:
    """Draw a figure, write it (most of them beside their source) and print its path."""
    figure, path = command.draw()
    path = path.with_suffix(f".{command.format}")
    save(figure, path)
    print(path)


if __name__ == "__main__":
    run_cli(main, Command)
