"""The board in a real Chromium, from disk: nothing asked of the network, usable by keyboard and on a phone."""

import json
import os
import shutil
import tempfile

import pytest
from board_site import ATTACK, build

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
PHONE = 360


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
    driver.set_page_load_timeout(60)
    yield driver
    driver.quit()
    shutil.rmtree(profile, ignore_errors=True)


@pytest.fixture(scope="module")
def board(tmp_path_factory):
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


ROWS = "section.board:not([hidden]) tbody.sorted tr"


def test_sorting_puts_rows_in_order_and_says_so(show):
    driver = show()
    rows = "Array.from(document.querySelectorAll('section.board tbody.sorted')[0].rows"
    value = f"return {rows}, r => r.children[{{}}].dataset.value)"
    before = list(map(float, driver.execute_script(value.format(1))))
    assert before == sorted(before, reverse=True)
    head = "section.board thead th:nth-child(2)"
    click(driver, f"{head} button")
    assert driver.execute_script("return document.querySelector(arguments[0]).ariaSort", head) == "ascending"
    assert list(map(float, driver.execute_script(value.format(1)))) == sorted(before)
    click(driver, "section.board thead th:first-child button")
    names = driver.execute_script(value.format(0))
    assert names == sorted(names)
    assert visible(driver, "section.board:first-of-type th[aria-sort]") == 1
    gain = all_text(driver, "section.board:first-of-type thead th").index("Over baseline")
    click(driver, f"section.board thead th:nth-child({gain + 1}) button")
    gains = driver.execute_script(value.format(gain))
    assert gains[-1] == "" and "" not in gains[:-1]  # what sft gains over itself comes last


def test_filters_leave_what_they_name(show):
    driver = show()
    assert visible(driver, "section.board") == 5 and visible(driver, "tr.board") == 1  # two of them at equal compute
    for name, value, tables, reported in (
        ("by-task", "humaneval@micro", 2, 0),
        ("by-family", "maths", 3, 1),
        ("by-world", "micro", 2, 0),
        ("by-world", "real", 3, 1),
        ("by-kind", "reported", 0, 1),
        ("by-kind", "measured", 5, 0),
    ):
        choose(driver, name, value)
        assert (visible(driver, "section.board"), visible(driver, "tr.board")) == (tables, reported), value
        choose(driver, name, "")
    protocols = driver.execute_script("return Array.from(document.getElementById('by-protocol').options, o => o.value)")
    assert len(protocols) == 4
    choose(driver, "by-protocol", protocols[1])
    assert visible(driver, "section.board") == 2 and visible(driver, "#pareto figure") == 1
    choose(driver, "by-method", "kd")
    assert all_text(driver, f"{ROWS}:not([hidden]) th") in (["kd", "kd"], [])
    driver.find_element("css selector", "button[type=reset]").click()
    wait(driver, "document.getElementById('shown').textContent.startsWith('5 tables')")
    assert visible(driver, "section.board") == 5


def test_the_keyboard_reaches_and_does_everything(show):
    from selenium.webdriver.common.keys import Keys

    driver = show()
    press = lambda *keys: driver.switch_to.active_element.send_keys(*keys)  # noqa: E731
    driver.find_element("tag name", "body").send_keys(Keys.TAB)
    assert driver.switch_to.active_element.get_attribute("class") == "skip"
    press(Keys.ENTER)
    wait(driver, "document.activeElement.id === 'main'")
    outlines, seen = [], []
    for _ in range(60):
        press(Keys.TAB)
        seen.append(
            driver.execute_script("const e = document.activeElement; return e.tagName + '.' + (e.id || e.className)")
        )
        outlines.append(driver.execute_script("return getComputedStyle(document.activeElement).outlineStyle"))
        if driver.execute_script("return document.activeElement.matches('section.board thead button[data-kind=text]')"):
            break
    assert "SELECT.by-task" in seen and "INPUT.by-method" in seen and seen[-1].startswith("BUTTON")
    assert "none" not in outlines  # where the focus is can be seen
    press(Keys.ENTER)
    assert driver.execute_script("return document.activeElement.closest('th').ariaSort") == "ascending"
    press(Keys.SPACE)
    assert driver.execute_script("return document.activeElement.closest('th').ariaSort") == "descending"


def test_parts_are_named_for_those_who_cannot_see_them(show):
    for page in ("index.html", "compare.html", "runs/vcrd-*.html"):
        driver = show(page)
        faults = driver.execute_script(
            """const faults = [];
            for (const t of document.querySelectorAll('table')) if (!t.caption) faults.push('table without caption');
            for (const f of document.querySelectorAll('select,input')) if (!f.labels.length) faults.push('no label');
            for (const b of document.querySelectorAll('button')) if (!b.textContent.trim()) faults.push('empty button');
            for (const s of document.querySelectorAll('svg'))
                if (s.getAttribute('role') !== 'img' || !s.getAttribute('aria-label')) faults.push('svg');
            for (const th of document.querySelectorAll('th')) if (!th.scope) faults.push('th without scope');
            const ids = Array.from(document.querySelectorAll('[id]'), e => e.id);
            const twice = ids.filter((id, i) => ids.indexOf(id) !== i);
            if (twice.length) faults.push('ids twice: ' + twice.slice(0, 3));
            for (const one of ['h1', 'main', 'title'])
                if (document.querySelectorAll(one + ':not(svg *)').length !== 1) faults.push('not one ' + one);
            return faults"""
        )
        assert faults == [], page


def test_a_phone_needs_no_sideways_scrolling(show):
    for page in ("index.html", "compare.html", "runs/vcrd-*.html"):
        driver = show(page, width=PHONE)
        if page == "compare.html":
            wait(driver, "document.querySelectorAll('#items details').length > 0")
        driver.execute_script("for (const d of document.querySelectorAll('details')) d.open = true")
        assert driver.execute_script("return document.documentElement.scrollWidth") <= PHONE, page
        assert driver.execute_script("return parseFloat(getComputedStyle(document.body).fontSize)") >= 16


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


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_legible_in_light_and_dark(show, scheme):
    grounds = []
    for page in ("index.html", "compare.html", "runs/vcrd-*.html"):
        driver = show(page, scheme=scheme)
        if page == "compare.html":
            wait(driver, "document.querySelectorAll('#items details').length > 0")
        assert driver.execute_script(CONTRAST) == [], page
        grounds.append(driver.execute_script("return getComputedStyle(document.body).backgroundColor"))
    assert set(grounds) == {"rgb(253, 252, 250)" if scheme == "light" else "rgb(21, 24, 28)"}


def test_figures_switch_and_curves_can_be_silenced(show):
    driver = show()
    assert visible(driver, "#pareto figure") == 3
    assert visible(driver, "#pareto figure[data-cost=seconds]") == 3
    click(driver, "#pareto button[value=teacher_tokens]")
    assert visible(driver, "#pareto figure[data-cost=teacher_tokens]") == 3 == visible(driver, "#pareto figure")
    assert "vcrd" in "".join(all_text(driver, "#pareto figure title"))
    assert visible(driver, "#curves figure") == 1
    click(driver, "#curves button[value=on_policy]")
    assert visible(driver, "#curves figure[data-metric=on_policy]") == 1 == visible(driver, "#curves figure")
    click(driver, ".legend button")
    assert driver.execute_script("return document.querySelectorAll('#curves g.dim').length") >= 2
    assert driver.execute_script("return document.querySelector('.legend button').ariaPressed") == "false"


def test_a_run_shows_its_prompt_and_completions_to_the_letter(show):
    driver = show("runs/vcrd-humaneval*s0*.html")
    assert driver.execute_script("return document.getElementById('prompt').textContent") == "\n  Exactly <this>\n"
    texts = driver.execute_script(
        "return Array.from(document.querySelectorAll('#completions pre'), e => e.textContent)"
    )
    assert texts[0] == ATTACK and texts[1] == "half a \ufffd sign" and len(texts) == 6
    assert "reconstruction from the public abstract" in driver.find_element("tag name", "main").text
    wrong = "#completions > li[data-kind=wrong]"
    click(driver, "#kinds button[value=wrong]")
    assert visible(driver, "#completions > li") == visible(driver, wrong) == 2
    driver.find_element("css selector", f"{wrong} summary").click()
    assert visible(driver, f"{wrong} pre") == 1


def test_two_methods_are_set_side_by_side_item_by_item(show):
    driver = show("compare.html")
    wait(driver, "document.getElementById('said').textContent.startsWith('On 6 problems')")
    options = all_text(driver, "#table option")
    choose(driver, "table", options.index("humaneval@micro"))
    names = all_text(driver, "#a option")
    assert sorted(names) == ["kd", "sft", "untouched", "vcrd‡"]
    choose(driver, "a", names.index("vcrd‡"))
    choose(driver, "b", names.index("sft"))
    wait(driver, "document.getElementById('said').textContent.includes('B (sft, 2 seeds)')")
    # Two seeds, the second shifted by one problem: vcrd 1,0,1,1,0,1 and 0,1,1,0,1,1; sft 0,0,1,1,0,0 and 0,1,1,0,0,0.
    assert all_text(driver, "#which button") == ["A better 3", "B better 0", "equal 3", "all 6"]
    assert "points" in driver.find_element("id", "said").text
    assert "B − A: −33.3 points" in driver.find_element("id", "said").text
    assert all_text(driver, "#command") == ["harness compare vcrd sft --task humaneval@micro"]
    click(driver, "#which button[value=all]")
    assert visible(driver, "#items > li") == 6
    driver.find_element("css selector", "#items summary").click()
    wait(driver, "document.querySelectorAll('#items .pair > div').length === 2")
    assert all_text(driver, "#items .pair h4")[0].startswith("A · vcrd‡")
    shown = driver.execute_script("return Array.from(document.querySelectorAll('#items pre'), e => e.textContent)")
    assert shown == [ATTACK, ATTACK]
    place = driver.execute_script("return location.hash")
    driver.find_element("id", "swap").click()
    wait(driver, "document.getElementById('said').textContent.includes('A (sft')")
    assert "+33.3" in driver.find_element("id", "said").text
    show(f"compare.html{place}")  # a link to a comparison opens it
    wait(driver, "document.getElementById('said').textContent.includes('A (vcrd')")
