"""The board in a real Chromium, from disk: nothing asked of the network, usable by keyboard and on a phone."""

import json
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from board_site import ATTACK, build

from harness.evaluation import questions
from harness.records.store import Store
from harness.stats import intervals
from harness.types import Problem, Prompt

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage"
)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="no Chromium with chromedriver here: apt-get install chromium chromium-driver"
)
PHONE = 390
AXE = Path(__file__).parent.parent / ".venv/axe/node_modules/axe-core/axe.min.js"  # make axe fetches it from npm
PAGES = ("index.html", "tasks/humaneval*.html", "runs/vcrd-humaneval*s0*.html", "compare.html", "papers.html")
QUESTION = "The question <b>of p0</b>"


@pytest.fixture(scope="module")
def driver():
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    options.binary_location = CHROMIUM
    profile = tempfile.mkdtemp(prefix="chromium-")
    for flag in (*FLAGS.split(), f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    os.environ["SE_OFFLINE"] = "true"  # the driver is here: selenium need not look for one
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    driver.set_page_load_timeout(120)
    driver.set_script_timeout(120)
    yield driver
    driver.quit()
    shutil.rmtree(profile, ignore_errors=True)


@pytest.fixture(scope="module")
def board(tmp_path_factory):
    asked = {"p0": Problem("p0", Prompt(QUESTION, QUESTION), "The reference")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(questions, "of", lambda record, fetch=True: (asked, ""))
        return build(tmp_path_factory.mktemp("site"))


@pytest.fixture
def show(driver, board):
    """Opens a page of the board afresh; afterwards neither the console nor the network may have anything to tell."""

    def show(page="index.html", width=1200, scheme="light"):
        driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600},
        )
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        path, mark, place = page.partition("#")
        driver.get("about:blank")
        driver.get(next(board.glob(path)).as_uri() + mark + place)
        if path.startswith(("runs", "compare")):
            wait(driver, "document.querySelectorAll('#list > li').length > 0")
        if path.startswith("tasks"):
            wait(driver, "document.querySelectorAll('#legend button').length > 0")
        return driver

    driver.get_log("browser"), driver.get_log("performance")
    yield show
    assert driver.execute_script("return window.pwned") is None
    assert driver.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    asked = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert any(url.startswith("file://") for url in asked)
    assert [url for url in asked if not url.startswith(("file://", "about:", "data:"))] == []


def all_text(driver, selector):
    return driver.execute_script(
        "return Array.from(document.querySelectorAll(arguments[0]), e => e.textContent.trim())", selector
    )


def visible(driver, selector):
    return driver.execute_script(
        "return Array.from(document.querySelectorAll(arguments[0])).filter(e => e.checkVisibility()).length", selector
    )


def click(driver, selector):
    driver.execute_script("document.querySelector(arguments[0]).click()", selector)


def choose(driver, name, value):
    driver.execute_script(
        "const e = document.getElementById(arguments[0]); e.value = arguments[1];"
        "e.dispatchEvent(new Event('input', {bubbles: true})); e.dispatchEvent(new Event('change', {bubbles: true}));",
        name,
        value,
    )


def wait(driver, script):
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(driver, 30).until(lambda d: d.execute_script(f"return {script}"))


@pytest.mark.slow
def test_the_grid_switches_sorts_and_leads_to_the_row(show):
    driver = show()
    assert visible(driver, "h1") == 1 and "at equal compute" in driver.find_element("css selector", "h1").text
    click(driver, "#views button[value=all]")
    assert visible(driver, "h1") == 1 == visible(driver, "table.grid")
    place = driver.execute_script("return location.hash")
    head = ".view[data-view=all] thead th:nth-child(3)"
    values = (
        "return Array.from(document.querySelector('.view[data-view=all] tbody.sorted').rows,"
        " r => r.children[2].dataset.value)"
    )
    click(driver, f"{head} button")
    assert driver.execute_script("return document.querySelector(arguments[0]).ariaSort", head) == "descending"
    scores = list(map(float, driver.execute_script(values)))
    assert scores == sorted(scores, reverse=True) and len(set(scores)) > 1
    click(driver, f"{head} button")
    assert list(map(float, driver.execute_script(values))) == sorted(scores)
    click(driver, ".view[data-view=all] thead th button")
    names = all_text(driver, ".view[data-view=all] tbody.sorted th")
    assert names == sorted(names)
    driver = show(f"index.html{place}")  # a link to a view opens it
    assert visible(driver, ".view[data-view=all] table") == 1
    cell = ".view[data-view=all] tbody.sorted td.cell a"
    run = driver.execute_script("return document.querySelector(arguments[0]).href", cell).rpartition("/")[2]
    click(driver, cell)
    wait(driver, "document.querySelectorAll('tr.here').length === 1")
    assert visible(driver, "tr.here") == 1
    assert driver.execute_script("return document.querySelector('tr.here').id").endswith(run)


def test_a_task_has_columns_costs_and_curves(show):
    driver = show("tasks/humaneval*.html#all")
    assert visible(driver, ".more") == 0
    click(driver, "#columns")
    assert visible(driver, "th.more") > 3
    choose(driver, "by-method", "kd")
    assert visible(driver, "table.sortable tbody tr") == 1
    driver.execute_script("navigator.clipboard.writeText = async text => { window.copied = text; }")
    click(driver, ".view[data-view=all] [data-copy=CSV]")
    wait(driver, "window.copied")
    assert driver.execute_script("return window.copied").startswith("task,")
    assert visible(driver, "#pareto figure[data-cost=flops]") == 1 == visible(driver, "#pareto figure")
    click(driver, "#pareto button[value=seconds]")
    assert visible(driver, "#pareto figure[data-cost=seconds]") == 1 == visible(driver, "#pareto figure")
    assert visible(driver, "#chart g[data-label]") == 3 and "tokens" in all_text(driver, "#chart text.name")[0]
    choose(driver, "metric", "on_policy")
    click(driver, "#against button[value=steps]")
    assert all_text(driver, "#chart text.name") == ["optimizer step"]
    click(driver, "#legend button")
    assert visible(driver, "#chart g[data-label]") == 2
    assert driver.execute_script("return document.querySelector('#legend button').ariaPressed") == "false"


def test_a_run_shows_question_answer_and_verdict_to_the_letter(show):
    driver = show("runs/vcrd-humaneval*s0*.html")
    assert driver.execute_script("return document.getElementById('prompt').textContent") == "\n  Exactly <this>\n"
    assert all_text(driver, "#kinds button") == ["all 6", "wrong 2", "right 4"]
    assert visible(driver, "nav.seeds a") == 2 and visible(driver, "#figures svg") == 2
    click(driver, "#list summary")
    wait(driver, "document.querySelectorAll('#list dl.parts').length === 1")
    parts = dict(zip(all_text(driver, "#list dt"), all_text(driver, "#list dd"), strict=True))
    assert list(parts) == ["Prompt", "Reference", "Answer", "Verdict"]  # what is extracted equals the answer here
    assert parts["Prompt"] == QUESTION and parts["Reference"] == "The reference"
    assert parts["Answer"] == ATTACK.strip() and parts["Verdict"].startswith("right")
    place = driver.execute_script("return location.hash")
    choose(driver, "search", "half A")
    assert visible(driver, "#list > li") == 1
    choose(driver, "search", "of P0")  # a word of the question
    assert visible(driver, "#list > li") == 1
    choose(driver, "search", "")
    click(driver, "#kinds button[value=wrong]")
    assert visible(driver, "#list > li") == visible(driver, "#list > li[data-kind=wrong]") == 2
    driver = show(f"runs/vcrd-humaneval*s0*.html{place}")  # a link to a problem opens it
    wait(driver, "document.querySelectorAll('#list details[open]').length === 1")


def test_two_methods_are_set_side_by_side_with_their_test(show, board):
    driver = show("compare.html")
    tables = all_text(driver, "#table option")
    choose(
        driver,
        "table",
        driver.execute_script(
            "return document.getElementById('table').options[arguments[0]].value", tables.index("humaneval@micro")
        ),
    )
    wait(
        driver,
        "document.querySelector('#a option').textContent.length > 0 && "
        "document.getElementById('how').textContent.includes('humaneval@micro')",
    )
    value = "return Array.from(document.querySelectorAll('#a option')).find(o => o.textContent === arguments[0]).value"
    choose(driver, "a", driver.execute_script(value, "vcrd‡, 2 seeds"))
    choose(driver, "b", driver.execute_script(value, "sft, 2 seeds"))
    wait(driver, "document.getElementById('said').textContent.includes('B, sft,')")
    # Two seeds, the second shifted by one problem: vcrd 1,0,1,1,0,1 and 0,1,1,0,1,1; sft 0,0,1,1,0,0 and 0,1,1,0,0,0.
    assert all_text(driver, "#kinds button") == ["all 6", "A better 3", "B better 0", "equal 3"]
    assert driver.find_element("id", "gap").text.startswith("−33.3")
    assert "p = " in driver.find_element("id", "gap-words").text
    assert all_text(driver, "#how") == ["The same in a terminal: harness compare vcrd sft --task humaneval@micro"]
    click(driver, "#kinds button[value=all]")
    assert visible(driver, "#list > li") == 6
    click(driver, "#list summary")
    wait(driver, "document.querySelectorAll('#list .pair > div').length === 2")
    assert driver.execute_script("return document.querySelector('#list .pair pre').textContent") == ATTACK
    assert driver.execute_script(
        "return differing('a = 1 + 2', 'a = 1 * 2').map("
        "pre => Array.from(pre.querySelectorAll('mark'), m => m.textContent))"
    ) == [["+"], ["*"]]
    place = driver.execute_script("return location.hash")
    click(driver, "#swap")
    wait(driver, "document.getElementById('gap').textContent.startsWith('+33.3')")
    driver = show(f"compare.html{place}")  # a link to a comparison, by run ids, opens it
    wait(driver, "document.getElementById('said').textContent.includes('A, vcrd‡')")
    # Single runs are tested by the page: as the harness does.
    a, b = (
        next(
            r
            for r in Store(board.parent / "results").all()[0]
            if (r["method"]["name"], r["task"], r["seed"]) == (name, "humaneval@micro", 0)
        )
        for name in ("vcrd", "sft")
    )
    assert a["run_id"] in place.replace("%40", "@")
    driver = show(f"compare.html#a={a['run_id']}&b={b['run_id']}&seeds=one")
    wait(driver, "document.getElementById('said').textContent.includes('seed 0')")
    expected = intervals.compare([[1, 0, 1, 1, 0, 1]], [[0, 0, 1, 1, 0, 0]])
    assert f"p = {expected.p:.2g} (exact McNemar" in driver.find_element("id", "gap-words").text
    found = driver.execute_script("return single([-1, 0, 0, 0, 0, -1], true)")
    assert [found["low"], found["high"]] == pytest.approx(list(expected.interval), abs=0.03)


def test_the_keyboard_reaches_and_does_everything(show):
    from selenium.webdriver.common.keys import Keys

    driver = show("tasks/humaneval*.html")
    press = lambda *keys: driver.switch_to.active_element.send_keys(*keys)  # noqa: E731
    driver.find_element("tag name", "body").send_keys(Keys.TAB)
    assert driver.switch_to.active_element.get_attribute("class") == "skip"
    press(Keys.ENTER)
    wait(driver, "document.activeElement.id === 'main'")
    outlines, seen = [], []
    for _ in range(30):
        press(Keys.TAB)
        seen.append(driver.execute_script("const e = document.activeElement; return e.value || e.id || e.tagName"))
        outlines.append(driver.execute_script("return getComputedStyle(document.activeElement).outlineStyle"))
        if driver.execute_script("return document.activeElement.matches('thead button[data-kind=text]')"):
            break
    assert {"compute", "all", "by-method", "columns"} <= set(seen)
    assert "none" not in outlines  # where the focus is can be seen
    press(Keys.ENTER)
    assert driver.execute_script("return document.activeElement.closest('th').ariaSort") == "ascending"
    press(Keys.SPACE)
    assert driver.execute_script("return document.activeElement.closest('th').ariaSort") == "descending"
    press("/")
    assert driver.execute_script("return document.activeElement.id") == "by-method"


def test_arrow_keys_go_from_problem_to_problem(show):
    from selenium.webdriver.common.keys import Keys

    driver = show("runs/vcrd-humaneval*s0*.html")
    press = lambda *keys: driver.switch_to.active_element.send_keys(*keys)  # noqa: E731
    state = """const all = Array.from(document.querySelectorAll('#list > li'));
        return [all.indexOf(document.activeElement.closest('li')), all.map((one) => one.firstChild.open)]"""
    count = driver.execute_script("document.querySelector('#list summary').focus(); " + state)[1].count(False)
    opened = lambda number: [number, [place == number for place in range(count)]]  # noqa: E731
    press(Keys.ARROW_DOWN)
    assert count > 2 and driver.execute_script(state) == [1, [False] * count]
    press(Keys.ENTER)
    press(Keys.ARROW_DOWN)
    assert driver.execute_script(state) == opened(2)  # the open one closes
    press(Keys.ARROW_UP)
    press(Keys.ARROW_UP)
    press(Keys.ARROW_UP)
    assert driver.execute_script(state) == opened(0)  # and stays at the first


CONTRAST = """
const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
function rgb(color) { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
  return Array.from(canvas.getImageData(0, 0, 1, 1).data); }
function light([r, g, b]) {
  const f = (v) => { v /= 255; return v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4; };
  return .2126 * f(r) + .7152 * f(g) + .0722 * f(b); }
function ground(e) {
  for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor); if (c[3] === 255) return c; }
  return rgb(getComputedStyle(document.documentElement).backgroundColor); }
const poor = [];
for (const e of document.querySelectorAll('main *')) {
  const own = Array.from(e.childNodes).some((n) => n.nodeType === 3 && n.textContent.trim());
  if (!own || !e.checkVisibility() || e.matches('option')) continue;
  const svg = e.closest('svg'), style = getComputedStyle(e);
  const a = light(rgb(svg ? style.fill : style.color)), b = light(ground(e));
  const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
  if (ratio < 4.5) poor.push(e.tagName + ' ' + e.textContent.trim().slice(0, 20) + ' ' + ratio.toFixed(2));
}
return poor;
"""


@pytest.mark.slow
@pytest.mark.parametrize(("scheme", "width"), [("light", 1400), ("dark", PHONE)])
def test_pages_fit_are_legible_and_pass_axe(show, scheme, width):
    for page in PAGES:
        driver = show(page, width=width, scheme=scheme)
        driver.execute_script(
            "const c = document.getElementById('columns'); if (c) c.click();"
            "for (const d of document.querySelectorAll('details')) d.open = true"
        )
        assert driver.execute_script("return document.documentElement.scrollWidth") <= width, page
        wide = driver.execute_script(
            "return Array.from(document.querySelectorAll('table')).filter(t => t.checkVisibility() &&"
            " t.scrollWidth > t.parentElement.clientWidth + 1).map(t => t.caption.textContent)"
        )
        assert width < 1000 or not wide, f"{page}: a table is wider than its page: {wide}"
        assert driver.execute_script(CONTRAST) == [], page
        ground = driver.execute_script("return getComputedStyle(document.body).backgroundColor")
        assert ground == ("rgb(253, 252, 250)" if scheme == "light" else "rgb(21, 24, 28)")
        if AXE.is_file():
            driver.execute_script(AXE.read_text("utf-8"))
            found = driver.execute_async_script(
                "const done = arguments[0]; axe.run({preload: false}).then(r => done(r.violations.map("
                "v => v.id + ': ' + v.nodes.slice(0, 3).map(n => n.target.join(' ')).join(', '))))"
            )
            assert found == [], page
