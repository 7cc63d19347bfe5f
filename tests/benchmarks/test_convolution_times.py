"""The benchmark of convolutions times both ways on the same images."""

from pathlib import Path

import pandas as pd
import pytest

from benchmarks import convolution
from benchmarks.convolution import ConvolutionBenchmark, Shape


def test_each_layer_is_compared_for_each_number_of_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convolution, "LAYERS", (Shape(4, 8, 1, 1), Shape(4, 8, 2, 2)))
    monkeypatch.setattr(convolution.torch, "set_num_threads", lambda count: None)
    convolution.main(ConvolutionBenchmark(images=(1, 20), repeats=2, results=tmp_path / "rows.csv"))
    rows = pd.read_csv(tmp_path / "rows.csv")
    assert len(rows) == 4 and set(rows["unit"]) == {"core-ms"} and (rows["ours"] > 0).all()
    assert "3 x 3 convolution, 4 to 8 channels, stride 2, 2 x 2, 20 images" in set(rows["work"])
