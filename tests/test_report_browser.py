"""Reports in headless Chromium: nothing runs, nothing is loaded, everything can be used. ``make test-browser``.

Screenshots at two widths and in both schemes go to ``$REPORT_SCREENSHOTS`` where it is set; look at them after a change.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
from pathlib import Path

import pytest
from report_kit import HOSTILE, hostile_page, write_comparison, write_run, write_search

from recbole_hnlm.experiments.report.build import write_report
from recbole_hnlm.experiments.report.page import render
from recbole_hnlm.experiments.report.samples import SampleOptions

pytestmark = pytest.mark.browser
METHODS = {
    "BPR + uniform": ("baseline", 0.0),
    "LightGCN + dns": ("baseline", 0.02),
    "TextGCN": ("rival", 0.03),
    "HNLMLightGCN + dns": ("hnlm", 0.05),
}


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("no chromium and chromedriver (Debian: apt-get install chromium chromium-driver)")
    webdriver = pytest.importorskip("selenium.webdriver", reason="no selenium: pip install 'recbole-hnlm[browser]'")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.add_experimental_option("prefs", {"download.default_directory": str(tmp_path_factory.mktemp("downloads"))})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    started = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield started
    started.quit()


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    root = tmp_path_factory.mktemp("reports")
    for name in ("comparison", "search"):
        (root / name).mkdir()
    places = {
        "run": write_run(root),
        "comparison": write_comparison(root / "comparison", METHODS),
        "search": write_search(root / "search"),
    }
    for name, place in places.items():
        write_report(place, root / f"{name}.html", SampleOptions(users=0))
    (root / "hostile.html").write_text(render(hostile_page()), encoding="utf-8")
    return {name: root / f"{name}.html" for name in (*places, "hostile")}


def show(browser, file, width=1280, scheme="light"):
    mobile = width < 600
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": mobile}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    wanted = {"prefers-color-scheme": scheme, "prefers-reduced-motion": "reduce"}
    features = [{"name": name, "value": value} for name, value in wanted.items()]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.get_log("browser"), browser.get_log("performance")
    browser.get(file.as_uri())


def requests(browser):
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return {each["params"]["request"]["url"] for each in messages if each["method"] == "Network.requestWillBeSent"}


@pytest.mark.parametrize("name", ["run", "comparison", "search", "hostile"])
def test_a_page_is_quiet_loads_nothing_and_fits_its_window(browser, pages, name):
    backgrounds = set()
    for width in (1280, 390):
        for scheme in ("light", "dark"):
            show(browser, pages[name], width, scheme)
            assert browser.get_log("browser") == []
            assert requests(browser) <= {pages[name].as_uri(), "data:,"}
            assert browser.execute_script("return document.documentElement.scrollWidth") == width
            assert browser.execute_script("return performance.timing.loadEventEnd - performance.timing.navigationStart") < 1000
            backgrounds.add(browser.execute_script("return getComputedStyle(document.body).backgroundColor"))
            _keep_screenshot(browser, f"{name}-{width}-{scheme}", width)
    assert len(backgrounds) == 2


def _keep_screenshot(browser, name, width):
    folder = os.environ.get("REPORT_SCREENSHOTS")
    if folder:
        height = min(12_000, browser.execute_script("return document.documentElement.scrollHeight"))
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        shot = browser.execute_cdp_cmd("Page.captureScreenshot", {"format": "png", "captureBeyondViewport": True, "clip": clip})
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / f"{name}.png").write_bytes(base64.b64decode(shot["data"]))


def test_hostile_text_stays_text(browser, pages):
    show(browser, pages["hostile"])
    assert browser.execute_script("return document.querySelectorAll('main img, main script, main iframe').length") == 0
    assert browser.execute_script("return document.scripts.length") == 2
    shown = browser.execute_script("return document.querySelector('main').textContent")
    assert shown.count(HOSTILE.replace("\u202e", "\ufffd")) > 20
    assert "more characters" in shown


def test_what_is_injected_later_does_not_run(browser, pages):
    show(browser, pages["run"])
    browser.execute_script(
        "document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.ran = 1'}))"
    )
    browser.execute_script("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.ran = 1\">')")
    assert browser.execute_script("return window.ran === undefined")
    assert any("Content Security Policy" in entry["message"] for entry in browser.get_log("browser"))


def test_tables_sort_filter_and_download(browser, pages):
    show(browser, pages["hostile"])
    rows = "Array.from(document.querySelectorAll('tbody tr')).filter(row => !row.hidden)"
    numbers = f"return {rows}.map(row => parseInt(row.cells[1].textContent))"
    assert browser.execute_script(numbers) == [2, 10, 1]
    sort = browser.find_elements("css selector", "thead .sort")[1]
    sort.click()
    assert browser.execute_script(numbers) == [10, 2, 1]
    sort.click()
    assert browser.execute_script(numbers) == [1, 2, 10]
    assert browser.execute_script("return document.querySelectorAll('th')[1].getAttribute('aria-sort')") == "ascending"
    browser.find_elements("css selector", "thead .sort")[0].click()
    assert browser.execute_script(numbers) == [1, 2, 10]
    box = browser.find_element("css selector", "input[type=search]")
    box.send_keys("10 <SCRIPT>")
    assert browser.execute_script(numbers) == [10]
    catch = "const make = URL.createObjectURL; URL.createObjectURL = (blob) => { window.caught = blob; return make(blob); }"
    browser.execute_script(catch)
    browser.find_element("css selector", "button.download").click()
    text = browser.execute_async_script("window.caught.text().then(arguments[0])")
    assert text.lstrip("\ufeff").rstrip("\n").endswith(",'=1")


def test_a_page_can_be_read_without_its_script_and_printed(browser, pages):
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        show(browser, pages["comparison"], scheme="dark")
        shown = browser.find_element("tag name", "main").text
        pdf = browser.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    for words in ("HNLMLightGCN + dns", "***", "User by user", "Repeat it", "recbole-hnlm compare"):
        assert words in shown
    assert not browser.find_elements("css selector", "button.download:not([hidden])")
    assert base64.b64decode(pdf["data"]).startswith(b"%PDF")


def test_the_keyboard_reaches_the_results_the_tables_and_their_numbers(browser, pages):
    show(browser, pages["comparison"])
    focused = []
    for _ in range(40):
        browser.switch_to.active_element.send_keys("\ue004")
        focused.append(browser.execute_script("return document.activeElement.className || document.activeElement.tagName"))
    assert focused[0] == "skip"
    assert {"A", "sort", "scroll", "stars", "download"} <= set(focused)
