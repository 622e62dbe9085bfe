"""The page in a browser without network: Chromium, driven by Playwright; skipped where either is absent.

`pip install playwright axe-playwright-python` and a Chromium of the system (Debian: `apt-get install chromium`).
"""

import importlib.util
import os
import shutil
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from preimage_compare.report import write_report

sync_api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium: apt-get install chromium")

_spec = importlib.util.spec_from_file_location("compare_synthetic", Path(__file__).with_name("compare_synthetic.py"))
assert _spec is not None
assert _spec.loader is not None
compare_synthetic = sys.modules.setdefault("compare_synthetic", importlib.util.module_from_spec(_spec))
_spec.loader.exec_module(compare_synthetic)

WIDE, PHONE = {"width": 1400, "height": 1000}, {"width": 390, "height": 844}
ARGUMENTS = ["--host-resolver-rules=MAP * ~NOTFOUND", "--disable-background-networking"]


@pytest.fixture(scope="module")
def browser():
    # A sandbox needs privileges that containers rarely give; the only page opened is our own.
    sandbox = [] if os.name == "posix" and os.geteuid() else ["--no-sandbox"]
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=BROWSER, args=[*ARGUMENTS, *sandbox])
        yield started
        started.close()


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    folder = tmp_path_factory.mktemp("browser")
    compare_synthetic.Synthetic(channels=3, stored=40).write(folder)
    return write_report(folder, folder / "report.html").as_uri()


@contextmanager
def opened(browser, url, viewport=WIDE, scheme="light", **options):
    """The page; whatever it requests, logs or throws makes the test fail."""
    context = browser.new_context(viewport=viewport, color_scheme=scheme, offline=True, **options)
    page = context.new_page()
    trouble = []
    page.on("request", lambda r: r.url.startswith(("data:", url)) or trouble.append(f"request {r.url[:100]}"))
    page.on("console", lambda message: trouble.append(f"console {message.type}: {message.text}"))
    page.on("pageerror", lambda error: trouble.append(f"error {error}"))
    page.goto(url)
    page.wait_for_selector("#tiles img")
    yield page
    page.wait_for_timeout(50)
    context.close()
    assert trouble == []


def methods(page):
    return [
        name.removesuffix("reference").strip() for name in page.locator("#ranking-table tbody th").all_inner_texts()
    ]


def test_the_log_of_requests_would_see_one(browser, url):
    with (
        pytest.raises(AssertionError, match=r"request https://example\.org"),
        opened(browser, url, bypass_csp=True) as page,
    ):
        page.evaluate("fetch('https://example.org/x').catch(() => 0)")
    # ... and the page's own policy refuses it before it is one.
    with pytest.raises(AssertionError, match="Content Security Policy") as refused, opened(browser, url) as page:
        page.evaluate("fetch('https://example.org/x').catch(() => 0)")
    assert "request https" not in str(refused.value)


@pytest.mark.parametrize("key", [None, "Enter", "Space"])
def test_the_table_sorts_by_click_and_by_key(browser, url, key):
    with opened(browser, url) as page:
        best = methods(page)
        assert (best[0], best[-1]) == ("pnp-drunet", "back-projection")
        button = page.get_by_role("button", name="Time (s)")

        def press():
            if key is None:
                button.click()
            else:
                button.focus()
                page.keyboard.press(key)

        press()
        heading = page.locator("th[aria-sort]", has=button)
        assert heading.get_attribute("aria-sort") == "ascending"
        times = sorted(compare_synthetic.SECONDS, key=lambda name: compare_synthetic.SECONDS[name])
        assert methods(page) == times
        assert "Sorted by Time (s), ascending" in page.locator("#status").inner_text()
        press()
        assert heading.get_attribute("aria-sort") == "descending"
        assert methods(page) == times[::-1]
        assert page.locator("#ranking-table th[aria-sort=none]").count() >= 8
        if key is not None:
            assert page.evaluate("document.activeElement.textContent") == "Time (s)"


def test_numbers_sort_as_numbers_and_absent_ones_stay_last(browser, url):
    with opened(browser, url) as page:
        page.select_option("#scope", label="inpainting · noise 0.1 · synthetic")
        button = page.get_by_role("button", name="Difference to tv-admm")
        button.click()
        assert methods(page)[0] == "pnp-drunet"
        assert methods(page)[-1] == "unet"  # skipped there
        button.click()
        assert methods(page)[0] == "back-projection"
        assert methods(page)[-1] == "unet"


def test_methods_filter_by_typing_in_the_table_and_in_the_plots(browser, url):
    with opened(browser, url) as page:
        page.keyboard.press("Tab")
        page.get_by_role("searchbox").focus()
        page.keyboard.type("TV")
        assert methods(page) == ["tv-admm"]
        assert "1 of 6 methods shown" in page.locator("#status").inner_text()
        assert "for 1 methods" in page.locator("#cost-plot svg").get_attribute("aria-label")
        assert page.locator("#tiles figure").count() == 4  # truth, measurement, start, tv-admm
        page.get_by_role("searchbox").fill("nothing like it")
        assert methods(page) == []
        assert "No method shown" in page.locator("#cost-plot").inner_text()
        page.get_by_role("searchbox").fill("")
        assert len(methods(page)) == 6


def test_setting_and_measure_change_the_numbers_the_plots_and_the_images(browser, url):
    with opened(browser, url) as page:
        before = page.locator("#ranking-table tbody").inner_text()
        page.select_option("#metric", label="NMSE")
        assert "NMSE" in page.locator("#ranking-caption").inner_text()
        assert page.locator("#ranking-table tbody").inner_text() != before
        assert methods(page)[0] == "pnp-drunet"
        page.locator("#settings-table").get_by_role("button", name="inpainting · noise 0.1").click()
        assert "inpainting · noise 0.1" in page.locator("#ranking-caption").inner_text()
        assert "inpainting" in page.locator("#example option:checked").inner_text()
        assert "operator inpainting does not fit" in page.locator("#tiles").inner_text()


def transforms(page):
    return page.locator("#tiles img").evaluate_all("images => images.map((image) => image.style.transform)")


def test_images_zoom_together_by_button_key_and_double_click(browser, url):
    with opened(browser, url) as page:
        flat = transforms(page)
        assert len(set(flat)) == 1
        page.get_by_role("button", name="Zoom in").click()
        assert "scale(1.5)" in transforms(page)[0]
        assert len(set(transforms(page))) == 1
        page.locator("#tiles").focus()
        page.keyboard.press("+")
        assert "scale(2.25)" in transforms(page)[-1]
        page.keyboard.press("0")
        assert transforms(page) == flat
        page.locator(".frame").nth(3).dblclick(position={"x": 20, "y": 30})
        assert "scale(2)" in transforms(page)[0]
        page.get_by_role("button", name="Whole image").click()
        assert transforms(page) == flat


def test_the_cursor_is_linked_and_reads_every_tile(browser, url):
    with opened(browser, url) as page:
        page.locator(".frame").nth(4).hover(position={"x": 40, "y": 50})
        places = page.locator(".cross").evaluate_all(
            "all => all.map((c) => `${c.hidden} ${c.style.left} ${c.style.top}`)"
        )
        assert len(set(places)) == 1
        assert places[0].startswith("false")
        readings = page.locator("#tiles output").all_inner_texts()
        assert all(readings)
        page.locator("#tiles").focus()
        page.keyboard.press("ArrowRight")
        assert page.locator("#cursor").inner_text().startswith("Column ")
        assert "pnp-drunet" in page.locator("#cursor").inner_text()


def test_differences_to_the_truth_are_drawn_on_a_chosen_range(browser, url):
    with opened(browser, url) as page:
        page.get_by_label("Difference to the truth", exact=True).check()
        canvas = page.locator(".tile canvas:visible")
        assert canvas.count() == page.locator("#tiles figure").count() - 1
        colours = """(canvas) => {
            const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
            return new Set(new Uint32Array(data.buffer)).size;
        }"""
        assert canvas.nth(0).evaluate(colours) > 5
        assert page.locator("#legend").is_visible()
        page.get_by_label("Range").select_option("1")
        assert "−1" in page.locator("#legend").inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [WIDE, PHONE], ids=["wide", "phone"])
def test_no_accessibility_fault_and_no_sideways_scrolling(browser, url, viewport, scheme):
    package = pytest.importorskip("axe_playwright_python", reason="pip install axe-playwright-python")
    axe = (Path(package.__file__).parent / "axe.min.js").read_text("utf-8")
    with opened(browser, url, viewport, scheme, bypass_csp=True) as page:
        page.locator("details").evaluate_all("all => all.forEach((each) => { each.open = true; })")
        page.evaluate(axe)
        found = page.evaluate("axe.run().then((result) => result.violations)")
        assert [(f["impact"], f["id"], f["nodes"][0]["html"][:200]) for f in found] == []
        assert page.evaluate("document.documentElement.scrollWidth") == viewport["width"]
        # That axe works: it must see what is wrong here.
        page.evaluate("document.querySelector('#tiles img').removeAttribute('alt')")
        assert "image-alt" in page.evaluate("axe.run().then((result) => result.violations.map((v) => v.id))")


def test_plots_follow_the_width_and_a_method_has_one_colour(browser, url):
    with opened(browser, url) as page:
        wide = page.locator("#cost-plot svg").get_attribute("width")
        page.set_viewport_size(PHONE)
        sync_api.expect(page.locator("#cost-plot svg")).not_to_have_attribute("width", wide)
        assert float(page.locator("#cost-plot svg").get_attribute("width")) <= 390
        row = page.locator("#ranking-table tbody tr").nth(methods(page).index("unet"))
        paint = row.locator("path").get_attribute("style")
        colour = paint.removeprefix("fill:")
        for plot in ("cost", "spread", "curve"):
            assert page.locator(f"#{plot}-plot [fill='{colour}'], #{plot}-plot [stroke='{colour}']").count() >= 1, plot


def test_the_ranking_can_be_read_without_scripts(browser, url):
    context = browser.new_context(java_script_enabled=False, offline=True)
    page = context.new_page()
    page.goto(url)
    assert "pnp-drunet" in page.locator("#ranking-table tbody tr").first.inner_text()
    assert page.get_by_text("need JavaScript").is_visible()
    context.close()


def test_names_in_the_scatter_of_many_methods_cover_neither_marks_nor_each_other(browser, tmp_path):
    many = compare_synthetic.Synthetic(methods=[f"method-{n:02}" for n in range(20)], effects={}, images=6, stored=1)
    many.write(tmp_path)
    with opened(browser, write_report(tmp_path, tmp_path / "r.html").as_uri()) as page:
        boxes = page.evaluate("""() => [...document.querySelectorAll('#cost-plot text')]
            .filter((text) => text.textContent.startsWith('method-'))
            .map((text) => text.getBoundingClientRect()).map((box) => [box.left, box.right, box.top, box.bottom])""")
        assert 1 <= len(boxes) < 20
        for number, (left, right, top, bottom) in enumerate(boxes):
            for other in boxes[:number]:
                assert not (left < other[1] and other[0] < right and top < other[3] and other[2] < bottom)
        assert len(methods(page)) == 20
