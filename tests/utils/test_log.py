"""Messages are plain lines, from one process."""

import pytest
from tqdm import tqdm

from utils.log import logger


def test_messages_are_lines_on_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in tqdm(range(1)):
        logger.info("run %s", "x")
        logger.warning("no label can be scored")
        logger.debug("too much detail")
    assert capsys.readouterr().out == "run x\nwarning: no label can be scored\n"


def test_one_of_several_processes_prints(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    logger.warning("hello")
    assert capsys.readouterr().out == ""
