"""The page as text: what it holds, that it is self-contained, and that it stays small."""

import importlib.util
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from preimage_compare import store
from preimage_compare.report import write_report
from preimage_compare.report_images import png_uri
from preimage_compare.statistics import Bootstrap
from skimage.color import deltaE_ciede2000, rgb2lab

from preimage.errors import BadData, BadFile, BadParameter

_spec = importlib.util.spec_from_file_location("compare_synthetic", Path(__file__).with_name("compare_synthetic.py"))
assert _spec is not None
assert _spec.loader is not None
compare_synthetic = sys.modules.setdefault("compare_synthetic", importlib.util.module_from_spec(_spec))
_spec.loader.exec_module(compare_synthetic)
Synthetic = compare_synthetic.Synthetic

STYLE = (Path(store.__file__).parent / "assets" / "report.css").read_text("utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("results")
    Synthetic().write(path)
    return path


@pytest.fixture(scope="module")
def page(folder):
    return write_report(folder, folder / "report.html").read_text("utf-8")


def embedded(page):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1])


class Links(HTMLParser):
    """Everything that a page could load, and what its elements are."""

    def __init__(self, page):
        super().__init__()
        self.loaded, self.tags = [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.loaded += [value for name, value in attrs if name in ("src", "href", "srcset", "action", "poster")]


def test_nothing_is_loaded_from_outside_and_the_policy_forbids_it(page):
    links = Links(page)
    assert all(link.startswith(("data:", "#")) for link in links.loaded)
    assert not re.search(r"@import|url\(", STYLE)
    assert "default-src &#39;none&#39;" in page
    assert links.tags.count("h1") == 1
    assert {"main", "header", "footer", "nav", "caption"} <= set(links.tags)


def test_numbers_are_those_of_the_cells(page, folder):
    data = embedded(page)
    cells = store.read(folder).cells
    unit = ("inpainting", "0.1", "unet")
    scope = next(s for s in data["scopes"] if s["setting"] == ["synthetic", *unit[:2]])
    row = data["methods"].index("pnp-drunet")
    own = [c for c in cells if (c["operator"], c["noise"], c["method"]) == (*unit[:2], "pnp-drunet")]
    reference = {
        (c["image"], c["seed"]): c for c in cells if (c["operator"], c["noise"], c["method"]) == (*unit[:2], "tv-admm")
    }
    assert scope["summaries"]["psnr"][row][0] == pytest.approx(np.mean([c["metrics"]["psnr"] for c in own]), rel=1e-6)
    gains = [c["metrics"]["psnr"] - reference[c["image"], c["seed"]]["metrics"]["psnr"] for c in own]
    assert scope["summaries"]["psnr"][row][3] == pytest.approx(np.mean(gains), rel=1e-4)
    assert scope["costs"]["seconds"][row][1] == pytest.approx(np.median([c["seconds"] for c in own]), rel=1e-4)
    assert scope["counts"][data["methods"].index("unet")] == [0, 0, 12, 0]
    assert len(scope["spreads"]["psnr"]["difference"][row]["points"]) == 12


def test_costs_are_of_the_measurements_that_the_reference_finished_too(tmp_path):
    Synthetic(failing=("tv-admm",)).write(tmp_path)
    data = embedded(write_report(tmp_path, tmp_path / "r.html").read_text("utf-8"))
    cells = store.read(tmp_path).cells
    unit_of = lambda c: tuple(c[axis] for axis in store.AXES[:-1])  # noqa: E731
    finished = {unit_of(c) for c in cells if c["method"] == "tv-admm" and c["outcome"] == "ok"}
    own = [c["seconds"] for c in cells if c["method"] == "pnp-drunet" and unit_of(c) in finished]
    assert 0 < len(own) < sum(c["method"] == "pnp-drunet" for c in cells)
    assert data["scopes"][0]["costs"]["seconds"][data["methods"].index("pnp-drunet")][1] == pytest.approx(
        np.median(own), rel=1e-4
    )


def test_the_page_is_the_same_each_time_and_reads_only_the_folder(folder, page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert write_report(folder, tmp_path / "again.html").read_text("utf-8") == page


def test_failures_say_why_and_how_often(page):
    assert "operator inpainting does not fit: a LinearOperator is needed" in page
    assert "produced NaN or infinity after 12 steps" in page
    assert "ValueError: broken" in page
    assert "4 cells failed and 24 were skipped" in page


def test_the_suite_in_the_page_can_be_run_again(page):
    assert "pip install preimage==0.1.0" in page
    assert 'download="suite.toml"' in page
    assert "all methods got the same bytes" in page


def test_labels_cannot_become_markup(tmp_path):
    hostile = "</script><img src=x onerror=alert(1)>"
    made = Synthetic(methods=("a", hostile), images=2, failing=(hostile,), traceback="<b>&</b>", seeds=1)
    made.effects = {}
    made.write(tmp_path)
    page = write_report(tmp_path, tmp_path / "r.html").read_text("utf-8")
    assert "<img src=x" not in page
    assert "<b>&</b>" not in page
    assert embedded(page)["methods"] == ["a", hostile]
    assert Links(page).tags.count("script") == 2


def test_missing_and_damaged_cells_and_unequal_measurements_are_announced(tmp_path):
    cells = Synthetic(lost=((0, 1), (0, 2))).write(tmp_path)
    path = store.cell_path(tmp_path, cells[7]["key"])
    path.write_bytes(path.read_bytes()[:-50])
    other = {**cells[3], "measurement": "0" * 64}
    store.write_cell(tmp_path, other, None, None)
    page = write_report(tmp_path, tmp_path / "r.html").read_text("utf-8")
    assert "3 cells of the suite have no result yet" in page
    assert "1 because their file is damaged" in page
    assert "on 1 measurement the methods did not get the same bytes" in page
    assert "checked by digest" not in page


def test_a_folder_without_images_or_results_still_gives_a_page(tmp_path):
    Synthetic(stored=0).write(tmp_path / "bare")
    assert "no images of its cells" in write_report(tmp_path / "bare", tmp_path / "a.html").read_text("utf-8")
    none = Synthetic(methods=("a",), operators=("blur",), skipped=(("a", "blur"),), failing=())
    none.write(tmp_path / "none")
    page = write_report(tmp_path / "none", tmp_path / "b.html").read_text("utf-8")
    assert "No cell has a result" in page
    assert "does not fit" in page


def test_images_keep_to_their_budget_but_one_measurement_is_always_shown(folder, tmp_path):
    def shown(budget):
        return embedded(write_report(folder, tmp_path / "r.html", image_budget=budget).read_text("utf-8"))["examples"]

    whole = shown(10_000_000)
    size = [sum(len(tile["source"] or "") for tile in example["tiles"]) for example in whole]
    assert len(shown(0)) == 1
    assert len(shown(sum(size) - 1)) < len(whole)
    # Images and curves of a measurement are of that measurement.
    blur = next(example for example in whole if example["setting"][1] == "blur")
    assert [tile["title"] for tile in blur["tiles"][:2]] == ["Truth", "Measurement"]
    assert len(blur["tiles"]) == 3 + len(compare_synthetic.METHODS)
    assert blur["curves"][0]["psnr"][-1] > blur["curves"][0]["psnr"][0]


def test_reference_and_metric_can_be_chosen(folder, tmp_path):
    page = write_report(folder, tmp_path / "r.html", reference="unet", metric="ssim").read_text("utf-8")
    data = embedded(page)
    assert data["methods"][data["reference"]] == "unet"
    assert data["metrics"][0]["key"] == "ssim"
    for wrong in ({"reference": "x"}, {"metric": "x"}, {"image_budget": -1}):
        with pytest.raises(BadParameter):
            write_report(folder, tmp_path / "r.html", **wrong)


def test_what_cannot_be_read_or_written_is_said(folder, tmp_path):
    with pytest.raises(BadFile):
        write_report(tmp_path, tmp_path / "r.html")
    with pytest.raises(BadFile):
        write_report(folder, folder)
    Synthetic(images=1, seeds=1, operators=("blur",), noises=("0.1",), lost=[(m, 1) for m in range(6)]).write(tmp_path)
    with pytest.raises(BadData, match="no cells"):
        write_report(tmp_path, tmp_path / "r.html")


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_pictures_are_clipped_to_the_window_and_not_rescaled(channels):
    import base64
    import io

    from PIL import Image

    values = np.array([-0.5, 0.0, 0.25, 1.0, 3.0, np.nan])
    image = np.broadcast_to(values, (channels, 1, 6))
    picture = Image.open(io.BytesIO(base64.b64decode(png_uri(image).partition(",")[2])))
    np.testing.assert_array_equal(np.asarray(picture).reshape(6, -1)[:, 0], [0, 0, 64, 255, 255, 0])


def palette(scheme):
    dark = STYLE.index("@media (prefers-color-scheme: dark)")
    text = STYLE[dark : STYLE.index("* {", dark)] if scheme == "dark" else STYLE[:dark]
    return {
        name: [int(hexa[i : i + 2], 16) / 255 for i in (0, 2, 4)]
        for name, hexa in re.findall(r"--([\w-]+): #(\w{6})", text)
    }


def luminance(colour):
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_have_the_contrast_that_wcag_asks_for(scheme):
    colours = palette(scheme)
    for ground in ("paper", "raised", "faint"):
        for name in ("ink", "quiet", "accent", "good", "bad"):
            assert contrast(colours[name], colours[ground]) >= 4.5, (name, ground)
    assert contrast(colours["warn-ink"], colours["warn-paper"]) >= 4.5
    for number in range(8):
        assert contrast(colours[f"method-{number}"], colours["paper"]) >= 3, number


# Machado, Oliveira, Fernandes, "A physiologically-based model for simulation of color vision deficiency", IEEE
# Transactions on Visualization and Computer Graphics 15 (2009), at severity 1.
DEFICIENCIES = {
    "none": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("deficiency", DEFICIENCIES)
def test_method_colours_stay_apart_for_colour_blind_readers(scheme, deficiency):
    colours = np.array([palette(scheme)[f"method-{number}"] for number in range(8)])
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.array(DEFICIENCIES[deficiency]).T, 0, 1)
    encoded = np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055)
    lab = rgb2lab(encoded[None])[0]
    apart = min(deltaE_ciede2000(lab[i], lab[j]) for i in range(8) for j in range(i))
    assert apart >= 12, apart


def test_a_large_suite_is_read_once_resampled_by_aggregates_and_gives_a_small_page(tmp_path, monkeypatch):
    def page_of(folder, seeds):
        cells = Synthetic(
            methods=[f"method-{number:02}" for number in range(20)], operators=("blur", "inpainting", "sensing"),
            noises=("0.01", "0.025", "0.1"), images=12, seeds=seeds, stored=60, effects={},
        ).write(folder)  # fmt: skip
        reads, resampled = [], []
        with monkeypatch.context() as patch:
            plain_read, plain_intervals = store.read_cell, Bootstrap.intervals
            patch.setattr(store, "read_cell", lambda path: reads.append(path) or plain_read(path))
            patch.setattr(
                Bootstrap,
                "intervals",
                lambda self, values: resampled.append(np.size(values)) or plain_intervals(self, values),
            )
            path = write_report(folder, folder / "r.html", bootstrap=Bootstrap())
        assert len(reads) == len(set(reads)) == len(cells)
        return len(cells), sum(resampled), path

    (few, work, _), (many, same_work, path) = page_of(tmp_path / "few", 1), page_of(tmp_path / "many", 2)
    assert (few, many) == (2160, 4320)
    assert work == same_work  # what is resampled are the means of images, however many measurements each has
    assert path.stat().st_size < 3_000_000
    assert "points" not in embedded(path.read_text("utf-8"))["scopes"][0]["spreads"]["psnr"]["value"][0]
