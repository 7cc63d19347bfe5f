"""The page in a real browser: it sorts and filters, loads nothing, fits a phone, and can be printed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.report_page import make_runs
from evaluation.report.__main__ import ReportConfig
from evaluation.report.page import write_report
from tests.evaluation.report_pages import NAMES, named_runs

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = playwright.expect
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium: apt-get install chromium")


@pytest.fixture(scope="module")
def browser() -> Iterator[playwright.Browser]:
    flags = ["--disable-dev-shm-usage"]  # other tests may fill the shared memory of a small machine
    flags += ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium has no sandbox for root
    with playwright.sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page on 36 runs."""
    folder = tmp_path_factory.mktemp("page")
    make_runs(folder, 36, resamples=50)
    write_report(ReportConfig((folder / "results",), (folder / "runs",), out=folder / "report.html"))
    return folder / "report.html"


def opened(browser: playwright.Browser, report: Path, width: int = 1280) -> tuple[playwright.Page, list[str]]:
    """Open a page; the list gets what it says on the console, and what it asks for besides itself."""
    page, heard = browser.new_page(viewport={"width": width, "height": 900}), []
    page.set_default_timeout(120_000)  # ms, for a busy machine
    page.on("console", lambda message: heard.append(message.text))
    page.on("pageerror", lambda error: heard.append(str(error)))
    page.on("request", lambda request: heard.append(request.url) if request.url != report.as_uri() else None)
    page.goto(report.as_uri())
    return page, heard


def column(page: playwright.Page, table: str, number: int) -> list[str]:
    return page.locator(f"{table} tbody tr:visible td:nth-child({number})").all_inner_texts()


def test_a_click_on_a_header_sorts_its_table(browser: playwright.Browser, report: Path) -> None:
    page, heard = opened(browser, report)
    header = page.locator("#runs th").nth(6)
    for state in ("ascending", "descending"):
        header.locator("button").click()
        values = [float(text.split()[0]) for text in column(page, "#runs", 7)]
        assert header.get_attribute("aria-sort") == state and len(values) == 36
        assert values == sorted(values, reverse=state == "descending")
    page.locator("#runs th button").first.focus()
    page.keyboard.press("Enter")
    names = column(page, "#runs", 1)
    assert names == sorted(names) and header.get_attribute("aria-sort") is None
    assert heard == []


def test_filters_leave_what_fits(browser: playwright.Browser, report: Path) -> None:
    page, heard = opened(browser, report)
    page.select_option("#f-task", "radiology")
    assert page.locator("section.task:visible").count() == 1
    assert set(column(page, "#runs", 2)) == {"radiology"} and page.inner_text("#count") == "6 of 36 runs"
    page.select_option("#f-seed", "1")
    assert column(page, "#runs", 4) == ["1", "1"] and page.locator(".passport:visible").count() == 2
    method = column(page, "#runs", 3)[0]
    page.select_option("#f-method", method)
    assert column(page, "#runs", 3) == [method] and column(page, "section.task", 1)[0] == method
    page.fill("#f-words", "no such words")
    assert page.inner_text("#count") == "0 of 36 runs"
    page.click("text=Show all")
    expect(page.locator("#count")).to_have_text("36 of 36 runs")  # a function needs eval, forbidden here
    assert page.locator("section.task:visible").count() == 6 and heard == []


def test_a_name_of_a_run_leads_to_its_passport(browser: playwright.Browser, report: Path) -> None:
    page, heard = opened(browser, report)
    page.locator("#runs td a").nth(4).click()
    passport = page.locator(page.locator("#runs td a").nth(4).get_attribute("href"))
    assert passport.locator("dl").is_visible() and "0123456789ab" in passport.inner_text()
    passport.locator("dd a").last.click()
    page.locator("#packages-1[open]").wait_for()
    assert heard == []


def test_it_fits_a_phone_and_can_be_printed(browser: playwright.Browser, report: Path) -> None:
    page, heard = opened(browser, report, width=360)
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    assert page.locator("figure svg.chart").first.bounding_box()["width"] > 250
    assert page.pdf(format="A4").startswith(b"%PDF-") and heard == []


def test_names_are_text_in_a_browser(browser: playwright.Browser, tmp_path: Path) -> None:
    named_runs(tmp_path)
    report = tmp_path / "report.html"
    write_report(ReportConfig((tmp_path / "results",), (tmp_path / "runs",), out=report))
    page, heard = opened(browser, report)
    shown = {text.strip() for text in page.locator("#runs tbody td:first-child").all_text_contents()}
    assert {name.strip() for name in NAMES} <= shown
    page.locator("#runs td").first.click()
    assert page.evaluate("window.injected") is None and page.locator("i, b, u").count() == 0
    assert heard == []
    plain = browser.new_context(java_script_enabled=False).new_page()
    plain.goto(report.as_uri())
    assert plain.locator("noscript p").count() == 1 and plain.locator("#runs tbody tr").count() == len(NAMES)
