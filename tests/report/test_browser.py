"""A report in Chromium, opened from disk: the picture is there, and nothing is asked of the network."""

import io
import shutil

import nibabel as nib
import numpy as np
import pytest
from matplotlib.image import imread
from tiny_run import RECOGNISED, TinyRun

from nnunetv2_malenia.report.html import write_report

playwright = pytest.importorskip("playwright.sync_api", reason='pip install ".[browser]"')
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed"),
]
ARGUMENTS = [
    "--no-sandbox",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
PATIENCE_MS = 120_000  # software rendering
SHAPE = (40, 32, 24)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Two cases: a body with two tumors and a stone, and one in which nothing was found."""
    run = TinyRun(tmp_path_factory.mktemp("browser") / "run")
    rng = np.random.default_rng(0)
    image = np.full(SHAPE, -1000, np.int16)
    image[4:-4, 4:-4] = rng.normal(40, 30, image[4:-4, 4:-4].shape)
    masks = {name: np.zeros(SHAPE, bool) for name in ("liver tumor", "kidney stone")}
    masks["liver tumor"][24:32, 14:22, 8:16] = True
    masks["liver tumor"][8:11, 8:11, 4:7] = True
    masks["kidney stone"][10:14, 18:22, 14:18] = True
    volume = nib.Nifti1Image(image, np.diag([4.0, 4.0, 6.0, 1.0]))
    run.answer("first", volume, masks, more=RECOGNISED)
    run.answer("second", volume, {})
    run.files.finish()
    return write_report(run.run_json, run.source)


@pytest.fixture(scope="module")
def chromium():
    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


class Opened:
    """A page with all that it asked for and all that it complained of."""

    def __init__(self, page, report, *, wait=True):
        self.page, self.requests, self.complaints = page, [], []
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.goto(report.as_uri())
        if wait:
            page.wait_for_selector("html[data-viewer=ready]", timeout=PATIENCE_MS)

    def canvas(self):
        """(rows, columns, 3) of what is on the screen where the canvas is, 0 to 255."""
        self.page.wait_for_timeout(500)  # for the next frames
        png = self.page.locator("#viewer-canvas").screenshot(timeout=PATIENCE_MS)
        return (imread(io.BytesIO(png), format="png")[..., :3] * 255).astype(int)

    def place(self):
        return self.page.locator("#viewer-place").text_content()


@pytest.fixture(scope="module")
def opened(chromium, report):
    return Opened(chromium.new_page(viewport={"width": 1400, "height": 1000}), report)


def share_of_grey(picture):
    """Share of pixels that are neither black nor white nor coloured."""
    spread = picture.max(axis=-1) - picture.min(axis=-1)
    return float(((spread < 8) & (picture.mean(axis=-1) > 30) & (picture.mean(axis=-1) < 225)).mean())


def share_of_orange(picture):
    """Share of pixels in the colour of the first query's mask."""
    red, green, blue = np.moveaxis(picture, -1, 0)
    return float(((red - blue > 60) & (red - green > 15) & (green - blue > 20)).mean())


def test_the_image_and_its_masks_are_on_the_screen(opened):
    picture = opened.canvas()

    assert share_of_grey(picture) > 0.1
    assert share_of_orange(picture) > 0.005


def test_a_blank_canvas_is_noticed(opened):
    opened.page.evaluate("document.getElementById('viewer-canvas').style.opacity = 0")
    picture = opened.canvas()
    opened.page.evaluate("document.getElementById('viewer-canvas').style.opacity = 1")

    assert share_of_grey(picture) < 0.01
    assert share_of_orange(picture) == 0


def test_a_mask_can_be_switched_off(opened):
    box = opened.page.get_by_label("liver tumor", exact=True)
    box.uncheck()
    without = share_of_orange(opened.canvas())
    box.check()

    assert without < 0.0005 < share_of_orange(opened.canvas())


def test_show_jumps_to_the_lesion_and_arrow_keys_move_on(opened):
    """The middle of the second tumor is at voxel 9, 9, 5: 36, 36, 30 mm to the right, front and head."""
    opened.page.get_by_role("button", name="Show liver tumor 2 in the viewer").press("Enter")
    opened.page.wait_for_function("document.getElementById('viewer-place').textContent.includes('LPS -36, -36, 30')")
    assert "liver tumor" in opened.place()
    opened.page.locator("#viewer-canvas").press("ArrowLeft")  # towards the patient's right
    assert "LPS -40, -36, 30 mm" in opened.place()
    opened.page.locator("#viewer-canvas").press("PageDown")
    assert "LPS -40, -36, 24 mm" in opened.place()


def test_windows_change_the_picture(opened):
    opened.page.get_by_role("button", name="Soft tissue").click()
    soft = opened.canvas().mean()
    opened.page.get_by_role("button", name="Bone").click()
    bone = opened.canvas().mean()
    opened.page.get_by_role("button", name="Soft tissue").click()

    assert soft - bone > 5  # 40 HU is darker between -500 and 1016 than between -160 and 240


def test_another_case_comes_into_the_viewer(opened):
    opened.page.get_by_label("Case").select_option(label="second")
    opened.page.wait_for_selector("html[data-viewer=ready] #case-2.active", timeout=PATIENCE_MS)
    opened.page.wait_for_selector("html[data-viewer=ready]", timeout=PATIENCE_MS)

    picture = opened.canvas()
    assert share_of_grey(picture) > 0.1
    assert share_of_orange(picture) == 0


def test_nothing_was_asked_of_the_network_and_nothing_complained_of(opened, report):
    assert [url for url in opened.requests if not url.startswith(("data:", "blob:"))] == [report.as_uri()]
    assert opened.complaints == []


def test_without_scripts_pictures_and_numbers_are_there(chromium, report):
    page = chromium.new_page(java_script_enabled=False)
    opened = Opened(page, report, wait=False)

    assert page.locator(".overview svg").first.is_visible()
    assert page.locator("#case-2").is_visible()
    assert not page.locator("#viewer").is_visible()
    assert not page.get_by_role("button", name="Show").first.is_visible()
    assert opened.complaints == []


def test_in_print_all_cases_are_there_and_the_viewer_is_not(chromium, report):
    page = chromium.new_page()
    Opened(page, report)
    page.emulate_media(media="print")

    assert page.locator("#case-1 .overview svg").first.is_visible()
    assert page.locator("#case-2").is_visible()
    assert not page.locator("#viewer").is_visible()
