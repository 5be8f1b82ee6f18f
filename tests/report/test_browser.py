"""The page in a real browser: it runs, it sorts, it fits, it can be read, it asks for nothing."""

import base64
import io
import itertools
import json
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from secateurs.report import figures
from secateurs.report.heatmaps import heatmaps, matrix
from secateurs.report.page import Axis, Facts, Figure, Scrubber, Section, Table, Text, render
from secateurs.report.roc import roc
from secateurs.report.runs import store_page

pytestmark = pytest.mark.slow

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

# [text, ratio] of every text whose contrast with what is behind it is too low.
CONTRAST = """
const parse = (c) => (c.match(/[\\d.]+/g) || []).map(Number);
const light = (c) => c.slice(0, 3).map((v) => v / 255)
  .map((v) => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
  .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
const bad = [];
let seen = 0;
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const element = walker.currentNode.parentElement, words = walker.currentNode.data.trim();
  if (!words || element.closest("script, .watermark, .sr, .skip")) continue;
  if (!element.checkVisibility()) continue;
  const style = getComputedStyle(element);
  const ink = parse(element instanceof SVGElement ? style.fill : style.color);
  let ground = null;
  for (let up = element; up && !ground; up = up.parentElement) {
    const colour = parse(getComputedStyle(up).backgroundColor);
    if (colour.length === 3 || colour[3] === 1) ground = colour;
  }
  const [low, high] = [light(ink), light(ground)].sort((a, b) => a - b);
  const ratio = (high + .05) / (low + .05);
  seen += 1;
  if (!(ratio >= 4.5)) bad.push([words, ratio]);
}
return [seen, bad];
"""

# Boxes of everything that must not lie on anything else: [what, left, top, right, bottom].
BOXES = """
const query = "h1, h2, h3, .subtitle, .intro, .plot, .scroll, .caption, .how, dl, .controls, "
  + ".text p, #theme, .toc, body > .stamp, footer p";
return [...document.querySelectorAll(query)].filter((e) => e.checkVisibility()).map((e) => {
  const b = e.getBoundingClientRect();
  return [e.className + " " + e.textContent.slice(0, 30), b.left, b.top, b.right, b.bottom];
});
"""

# Boxes of the words of every picture, with that of the picture first.
WORDS = """
return [...document.querySelectorAll("svg")].map((svg) =>
  [svg, ...svg.querySelectorAll("text")].map((e) => {
    const b = e.getBoundingClientRect();
    return [e.textContent.slice(0, 30), b.left, b.top, b.right, b.bottom];
  }));
"""


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    """A headless Chromium that starts with nothing and downloads nothing."""
    browser, server = shutil.which("chromium"), shutil.which("chromedriver")
    if not browser or not server:
        pytest.skip("needs chromium and chromedriver on the PATH")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    started = webdriver.Chrome(options=options, service=Service(executable_path=server))
    yield started
    started.quit()


@pytest.fixture(scope="module")
def address(tmp_path_factory, page):
    path = tmp_path_factory.mktemp("page") / "page.html"
    path.write_text(page, encoding="utf-8")
    return path.as_uri()


@pytest.fixture(scope="module")
def real(tmp_path_factory, store):
    """The page of a store of real cells."""
    path = tmp_path_factory.mktemp("real") / "page.html"
    path.write_text(store_page(store), encoding="utf-8")
    return path.as_uri()


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A page of names too long, too many and too close."""
    word = "Donaudampfschifffahrtsgesellschaftskapitän_"
    arms = [f"arm {i}: {'W' * i} {word * (i % 3)}" for i in range(14)]
    frame = pd.DataFrame(
        [
            {"arm": arm, "compression": 2**k, "epoch": k, "v": 1 + 1e-4 * i, "layer": f"{word}{k}"}
            for i, arm in enumerate(arms)
            for k in range(12)
        ]
    )
    names = [f"{word}{i}" for i in range(30)]
    ones = np.ones((30, 30))
    counts = {name: np.ones((2, 5)) for name in arms[:6]}
    svgs = [
        figures.accuracy_by_compression(frame, value="v", ylabel=word),
        figures.curves(frame, y="v", by="arm", ylabel=word, logy=True),
        figures.layer_density(frame.assign(density=frame.v / 100)),
        figures.weight_map(ones, row_label=word, column_label=word, columns=names),
        figures.weight_map(ones[:, :3], row_label=word, column_label=word, columns=names[:3]),
        figures.column_bars(names, np.full(30, 1 / 30), chance=0.03, xlabel=word),
        figures.pair_matrix(names, ones),
        figures.weight_histograms(counts, np.linspace(-9, 1, 6), [0, 1])[0],
        figures.weight_histograms({word: [[1, 2]]}, [-2, -1, 0], [0])[0],
    ]
    blocks = [Figure(title=word * 3, svg=s, alt="a", caption=word * 9, command=word) for s in svgs]
    blocks += [
        Table(title=word, columns=[word] * 9, rows=[[word * 2] * 9] * 3, note=word * 9),
        Facts(title=word, items={word: word * 4}),
        Text(title=word, paragraphs=word * 9),
    ]
    path = tmp_path_factory.mktemp("hostile") / "page.html"
    section = Section(title=word * 2, blocks=blocks, intro=word * 9)
    html = render(word * 3, [section], subtitle=word * 9, stamp=word * 4, footer=word * 9)
    path.write_text(html, encoding="utf-8")
    return path.as_uri()


ALPHAS, STEPS = ["0.05", "0.2", "1", "5", "25"], ["0", "20", "200", "2000"]


@pytest.fixture(scope="module")
def sliders(tmp_path_factory):
    """A page of one picture with two sliders, each frame with a word of its own."""
    frames = "".join(
        f'<g data-frame="{4 * i + j}"><text x="5" y="50">frame {i}, {j}</text></g>'
        for i in range(5)
        for j in range(4)
    )
    svg = f'<svg viewBox="0 0 960 100"><text x="5" y="20">always</text>{frames}</svg>'
    axes = [Axis("alpha", ALPHAS), Axis("step", STEPS)]
    block = Scrubber(title="Features", frames_svg=svg, axes=axes, alt="a")
    path = tmp_path_factory.mktemp("sliders") / "page.html"
    path.write_text(render("t", [Section(title="s", blocks=[block])]), encoding="utf-8")
    return path.as_uri()


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A page of the regime lab's pictures; the first is of panels of one colour each."""
    generator = np.random.default_rng(0)
    ones = np.ones((2, 4, 6))
    flat = {"up": ones * [[[0]], [[1]]], "down": -ones / [[[1.0]], [[1.0]]]}
    flat["down"][0] = np.nan
    H = generator.normal(size=(3, 2, 32, 64))
    arms = ["dense", "ticket", "no rewind", "re-init, matched", "shuffled"]
    framed = heatmaps(dict.fromkeys(arms, H), ylabel="probes, by y", xlabel="neurons")
    errors = generator.lognormal(size=(5, 5))
    long = [f"Donaudampfschifffahrtsgesellschaftskapitän {i}" for i in range(16)]
    rates = np.linspace(0, 1, 40)
    rocs = {name: (rates, rates ** (0.2 + 0.1 * i)) for i, name in enumerate(long[:9])}
    epochs = Axis("epoch", ["0", "1"])
    blocks = [
        Scrubber(title="Flat", alt="a", axes=[epochs], frames_svg=heatmaps(
            flat, ylabel="probe", xlabel="neuron")),
        Scrubber(title="Features", frames_svg=framed, alt="a", caption="words",
                 axes=[Axis("alpha", ["0.05", "1", "25"]), Axis(long[0] * 2, ["0", long[1] * 3])]),
    ]  # fmt: skip
    svgs = [
        matrix(errors, rows=ALPHAS, columns=ALPHAS, ylabel="alpha that finds", xlabel="trains"),
        matrix(np.geomspace(1e-5, 1e6, 256).reshape(16, 16), rows=long, columns=long,
               ylabel=long[0] * 3, xlabel=long[1] * 3, log=True),
        matrix([[-1e5]], rows=[long[0]], columns=["a"], ylabel="y", xlabel=long[0]),
        roc({"movement": (rates, rates**0.3)}),
        roc(rocs),
        heatmaps({name: H[0, 0] for name in long[:7]}, ylabel=long[0] * 3, xlabel=long[0] * 3),
    ]  # fmt: skip
    blocks += [Figure(title=f"Picture {i}", svg=svg, alt="a", caption="words",
                      command="secateurs") for i, svg in enumerate(svgs)]  # fmt: skip
    text = [Text(title=f"Text {i}", paragraphs="words") for i in range(3)]
    path = tmp_path_factory.mktemp("lab") / "page.html"
    sections = [Section(title="Lab", blocks=[*blocks, *text])]
    path.write_text(render("Lab", sections, footer="words"), encoding="utf-8")
    return path.as_uri()


@pytest.fixture
def view(driver, address):
    """Return what opens the page anew: at a width, in a theme, for a medium."""

    def opened(width=1280, theme="light", media="", scripts=True, at=address):
        command = driver.execute_cdp_cmd
        command("Emulation.setScriptExecutionDisabled", {"value": not scripts})
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        command("Emulation.setDeviceMetricsOverride", size)
        features = [
            {"name": "prefers-color-scheme", "value": theme},
            {"name": "prefers-reduced-motion", "value": "reduce"},  # clicks land where they aim
        ]
        command("Emulation.setEmulatedMedia", {"media": media, "features": features})
        driver.get(at)
        return driver

    yield opened
    driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def rows_of(table):
    return [row.text for row in table.find_elements(By.CSS_SELECTOR, "tbody tr")]


def visible_frames(driver):
    return driver.execute_script(
        "return [...document.querySelectorAll('[data-frame]')].filter((e) =>"
        " getComputedStyle(e).display !== 'none').map((e) => Number(e.dataset.frame))"
    )


def meet(one, two, slack):
    """Return whether two boxes lie on each other by more than `slack` pixels both ways."""
    across = min(one[3], two[3]) - max(one[1], two[1])
    down = min(one[4], two[4]) - max(one[2], two[2])
    return across > slack and down > slack


def test_it_runs_without_a_complaint_or_a_request(view, address):
    driver = view()
    driver.get_log("performance")
    driver.get_log("browser")
    view()
    driver.find_element(By.ID, "theme").click()
    messages = [json.loads(line["message"])["message"] for line in driver.get_log("performance")]
    asked = [
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    ]
    assert asked[0] == address
    assert {url.partition(":")[0] for url in asked} <= {"file", "data"}
    assert [url for url in asked if url.startswith("file:")] == [address]
    assert driver.get_log("browser") == []


def test_a_request_would_be_seen_and_forbidden(view):
    driver = view()
    driver.get_log("browser")
    driver.execute_script(
        "const i = new Image(); i.src = 'https://example.invalid/x.png'; document.body.append(i)"
    )
    (complaint,) = driver.get_log("browser")
    assert "Content Security Policy" in complaint["message"]


@pytest.mark.parametrize("key", ["click", Keys.ENTER, Keys.SPACE])
def test_a_column_sorts_up_then_down(view, key):
    driver = view()
    table = driver.find_element(By.TAG_NAME, "table")
    first = rows_of(table)
    head = table.find_elements(By.CSS_SELECTOR, "thead th")[2]
    button = head.find_element(By.TAG_NAME, "button")

    def press():
        if key == "click":
            button.click()
        else:
            button.send_keys(key)
        values = driver.execute_script(
            "return [...arguments[0].tBodies[0].rows].map((r) => Number(r.cells[2].dataset.v))",
            table,
        )
        return values, head.get_attribute("aria-sort")

    assert head.get_attribute("aria-sort") is None
    up, said_up = press()
    assert (up, said_up) == (sorted(up), "ascending")
    down, said_down = press()
    assert (down, said_down) == (up[::-1], "descending")
    assert sorted(rows_of(table)) == sorted(first)
    assert rows_of(table) != first


def test_missing_cells_are_last_in_both_directions_and_text_sorts_naturally(view):
    driver = view()
    table = driver.find_element(By.TAG_NAME, "table")
    arm, r, _, against, *_ = table.find_elements(By.CSS_SELECTOR, "thead button")
    for _ in range(2):
        against.click()
        rows = rows_of(table)
        assert rows[-1].startswith("dense")
        assert not any(row.startswith("dense") for row in rows[:-1])
    r.click()
    arm.click()
    assert arm.find_element(By.XPATH, "..").get_attribute("aria-sort") == "ascending"
    assert r.find_element(By.XPATH, "..").get_attribute("aria-sort") is None
    rows = rows_of(table)
    assert [row.split()[0] for row in rows] == sorted((r.split()[0] for r in rows), key=str.lower)
    assert [row.split()[1] for row in rows if row.startswith("IUNet")] == [
        "2",
        "4",
        "8",
        "16",
        "32",
    ]


def test_the_slider_chooses_the_frame(view):
    driver = view()
    slider = driver.find_element(By.CSS_SELECTOR, "input[type=range]")
    out = driver.find_element(By.TAG_NAME, "output")
    assert visible_frames(driver) == [39]
    slider.send_keys(Keys.ARROW_LEFT)
    assert visible_frames(driver) == [38]
    slider.send_keys(Keys.HOME)
    assert visible_frames(driver) == [0]
    assert out.text == slider.get_attribute("aria-valuetext") == "0"
    slider.send_keys(Keys.END)
    assert visible_frames(driver) == [39]
    assert out.text == "104"


def showing(driver):
    """Return the frames that show: by what they are marked as, and by the one word in each."""
    words = driver.execute_script(
        "return [...document.querySelectorAll('[data-frame] text')]"
        ".filter((e) => e.getBoundingClientRect().width > 0).map((e) => e.textContent)"
    )
    return visible_frames(driver), words


def test_each_slider_moves_along_its_axis_and_nothing_else_shows(view, sliders):
    driver = view(at=sliders)
    alpha, step = driver.find_elements(By.CSS_SELECTOR, "input[type=range]")
    told, when = driver.find_elements(By.TAG_NAME, "output")
    assert showing(driver) == ([19], ["frame 4, 3"])
    for i, j in [(4, 0), (0, 0), (0, 3), (2, 1), (1, 2), (3, 2)]:
        for slider, place in ((alpha, i), (step, j)):
            slider.send_keys(Keys.HOME, *[Keys.ARROW_RIGHT] * place)
        assert showing(driver) == ([4 * i + j], [f"frame {i}, {j}"])
        assert (told.text, when.text) == (ALPHAS[i], STEPS[j])
        assert alpha.get_attribute("aria-valuetext") == ALPHAS[i]
        assert step.get_attribute("aria-valuetext") == STEPS[j]
    names = [driver.execute_script("return arguments[0].labels[0].textContent", s)
             for s in (alpha, step)]  # fmt: skip
    assert names == ["alpha", "step"]


def test_the_keyboard_reaches_both_sliders(view, sliders):
    driver = view(at=sliders)
    driver.execute_script("document.querySelector('.play').focus()")
    met = []
    for _ in range(3):
        driver.switch_to.active_element.send_keys(Keys.TAB)
        met.append(driver.switch_to.active_element.tag_name)
    assert met == ["input", "button", "input"]


def test_one_axis_plays_at_a_time_and_leaves_the_other_where_it_is(view, sliders):
    driver = view(at=sliders)
    alpha, step = driver.find_elements(By.CSS_SELECTOR, "input[type=range]")
    first, second = driver.find_elements(By.CLASS_NAME, "play")
    step.send_keys(Keys.HOME)
    first.click()
    second.click()
    assert first.get_attribute("aria-pressed") == "false"
    driver.set_script_timeout(20)
    driver.execute_async_script(
        "const done = arguments[0], t = setInterval(() => {"
        "  if (!document.querySelector('.play[aria-pressed=true]')) {"
        "    clearInterval(t); done(); } }, 30)"
    )
    assert step.get_attribute("value") == "3"
    at = int(alpha.get_attribute("value"))
    assert at < 4  # stopped by the other, soon after it had begun anew
    assert visible_frames(driver) == [4 * at + 3]


@pytest.mark.parametrize(("scripts", "media"), [(False, ""), (False, "print"), (True, "print")])
def test_without_scripts_and_on_paper_the_last_of_all_axes_shows(view, sliders, scripts, media):
    driver = view(at=sliders, scripts=scripts, media=media)
    if scripts:
        driver.execute_script(
            "for (const s of document.querySelectorAll('input')) {"
            " s.value = 1; s.dispatchEvent(new Event('input')); }"
        )
    assert showing(driver) == ([19], ["frame 4, 3"])
    assert driver.find_element(By.CLASS_NAME, "still").text == "alpha 25, step 2000"
    assert not driver.find_element(By.CLASS_NAME, "controls").is_displayed()


def test_heatmaps_are_drawn_in_their_colours(view, lab):
    """Pixels of the screen: what the sanitiser and the policy let through is really shown."""
    driver = view(at=lab, width=1280)
    slider = driver.find_element(By.CSS_SELECTOR, "input[type=range]")

    def middle_of_panels():
        picture = driver.find_element(By.CSS_SELECTOR, ".scrubber svg")
        shot = Image.open(io.BytesIO(picture.screenshot_as_png)).convert("RGB")
        boxes = driver.execute_script(
            "const b = arguments[0].getBoundingClientRect();"
            "return [...arguments[0].querySelectorAll('.on image')].map((e) => {"
            " const a = e.getBoundingClientRect();"
            " return [a.x - b.x + a.width / 2, a.y - b.y + a.height / 2]; })",
            picture,
        )
        return [shot.getpixel((round(x), round(y))) for x, y in boxes]

    assert middle_of_panels() == [(213, 94, 0), (0, 114, 178)]
    slider.send_keys(Keys.HOME)
    (zero, grey) = middle_of_panels()
    assert zero == (255, 255, 255)
    assert max(grey) - min(grey) < 8
    assert 150 < grey[0] < 210
    assert driver.get_log("browser") == []


def test_play_runs_through_the_frames_and_pauses(view):
    driver = view()
    play = driver.find_element(By.CLASS_NAME, "play")
    play.click()
    assert play.get_attribute("aria-pressed") == "true"
    driver.set_script_timeout(20)
    seen = driver.execute_async_script(
        "const done = arguments[0], seen = new Set();"
        "const t = setInterval(() => {"
        "  seen.add(document.querySelector('[data-frame].on').dataset.frame);"
        "  if (seen.size > 3) { clearInterval(t); done([...seen].map(Number)); } }, 30)"
    )
    assert seen == sorted(seen)
    assert seen[0] < 10
    play.click()
    assert play.get_attribute("aria-pressed") == "false"
    (at,) = visible_frames(driver)
    driver.execute_async_script("setTimeout(arguments[0], 400)")
    assert visible_frames(driver) == [at]


def test_the_keyboard_reaches_everything_in_order(view):
    driver = view(width=400)
    body = driver.find_element(By.TAG_NAME, "body")
    body.send_keys(Keys.TAB)
    skip = driver.switch_to.active_element
    assert skip.get_attribute("class") == "skip"
    assert skip.rect["x"] >= 0  # focused, it is on the screen
    met = []
    for _ in range(80):
        driver.switch_to.active_element.send_keys(Keys.TAB)
        active = driver.switch_to.active_element
        if active.tag_name == "body":
            break
        met.append(active.get_attribute("id") or active.get_attribute("class") or active.tag_name)
    assert met[0] == "theme"
    assert {"scroll", "play", "summary", "button", "a", "plot"} <= set(met)
    assert sum("--at" in one for one in met) == 1


def test_the_skip_link_moves_the_focus(view):
    driver = view()
    driver.find_element(By.TAG_NAME, "body").send_keys(Keys.TAB, Keys.ENTER)
    assert driver.execute_script("return document.activeElement.id") == "main"


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("switched", [False, True])
def test_every_word_can_be_read(view, theme, switched):
    driver = view(theme=theme)
    if switched:
        driver.find_element(By.ID, "theme").click()
    is_dark = (theme == "dark") != switched
    ground = driver.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(20, 23, 26)" if is_dark else "rgb(255, 255, 255)")
    driver.execute_script("for (const d of document.querySelectorAll('details')) d.open = true")
    seen, bad = driver.execute_script(CONTRAST)
    assert seen > 200
    assert bad == []


@pytest.mark.parametrize("width", [1280, 900, 400])
@pytest.mark.parametrize("which", ["address", "hostile", "real", "lab"])
def test_nothing_overlaps_or_sticks_out(view, width, which, request):
    driver = view(width=width, at=request.getfixturevalue(which))
    driver.execute_script("for (const d of document.querySelectorAll('details')) d.open = true")
    wide, inner = driver.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
    assert wide <= inner
    boxes = driver.execute_script(BOXES)
    assert len(boxes) > 30
    empty = driver.execute_script(
        "return document.documentElement.scrollHeight"
        " - document.querySelector('footer').getBoundingClientRect().bottom - scrollY"
    )
    assert 0 <= empty < 80  # what scrolls in its own box adds nothing below the page's end
    assert [box for box in boxes if box[1] < -0.5 or box[3] > inner + 0.5] == []
    assert [pair for pair in itertools.combinations(boxes, 2) if meet(*pair, 1)] == []


@pytest.mark.parametrize(("which", "n"), [("address", 8), ("hostile", 9), ("real", 15), ("lab", 8)])
def test_words_in_pictures_stay_inside_and_apart(view, which, n, request):
    driver = view(at=request.getfixturevalue(which))
    pictures = driver.execute_script(WORDS)
    assert len(pictures) == n
    for picture, *words in pictures:
        _, left, top, right, bottom = picture
        out = [
            word
            for word in words
            if word[1] < left - 1
            or word[3] > right + 1
            or word[2] < top - 1
            or word[4] > bottom + 1
        ]
        assert out == []
        # Boxes of lines are taller than their letters.
        assert [pair for pair in itertools.combinations(words, 2) if meet(*pair, 3)] == []


def test_a_wide_table_scrolls_in_its_own_box(view):
    driver = view(width=400)
    box = driver.find_element(By.CLASS_NAME, "scroll")
    assert driver.execute_script("return arguments[0].scrollWidth > arguments[0].clientWidth", box)
    assert box.get_attribute("tabindex") == "0"
    assert box.get_attribute("role") == "region"


def test_without_scripts_the_last_frame_shows_and_no_dead_button(view):
    driver = view(scripts=False)
    assert visible_frames(driver) == [39]
    hidden = driver.execute_script(
        "return [...document.querySelectorAll('.controls, #theme')].map((e) => e.checkVisibility())"
    )
    assert hidden == [False, False]
    assert driver.execute_script("return document.querySelectorAll('thead button').length") == 0
    assert driver.find_element(By.CLASS_NAME, "still").text == "epoch 104"


def test_paper_shows_the_last_frame_the_stamp_and_whole_tables(view):
    driver = view(width=760, theme="dark", media="print")
    driver.execute_script(
        "const s = document.querySelector('input[type=range]'); s.value = 3;"
        "s.dispatchEvent(new Event('input'))"
    )
    assert visible_frames(driver) == [39]
    shown = driver.execute_script(
        "return ['.watermark', '.still', '.controls', '.toc', '#theme'].map((q) =>"
        " document.querySelector(q).checkVisibility())"
    )
    assert shown == [True, True, False, False, False]
    ink = driver.execute_script("return getComputedStyle(document.body).color")
    assert ink == "rgb(29, 33, 37)"  # that of the light theme
    hidden = driver.execute_script(
        "return [...document.querySelectorAll('.scroll')].map((e) => getComputedStyle(e).overflowY)"
    )
    assert set(hidden) == {"visible"}


def test_it_prints(view):
    driver = view()
    driver.execute_script(
        "addEventListener('beforeprint', () =>"
        " window.open_ = document.querySelectorAll('details:not([open])').length)"
    )
    printed = driver.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})
    document = base64.b64decode(printed["data"])
    assert document.startswith(b"%PDF-")
    assert document.count(b"/Type /Page\n") >= 2
    assert driver.execute_script("return window.open_") == 0  # every command was open on paper
    assert driver.execute_script("return document.querySelectorAll('details[open]').length") == 0
