"""Copies between data sets are found however they were changed, and nothing else; images that cannot be read."""

import io
import itertools
import json
import os
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from preimage_data import Copy, Folder, Photographs, Subset, find_copies, read_image, readable
from preimage_data.copies import match
from preimage_data.data_command import data as data_command

from preimage import Dataset
from preimage.errors import BadFile, BadParameter
from preimage.testing import check_dataset

Change = Callable[[Image.Image], Image.Image]


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def cut(image: Image.Image, part: float) -> Image.Image:
    x, y = round(image.width * part), round(image.height * part)
    return image.crop((x, y, image.width - x, image.height - y))


CHANGES: dict[str, Change] = {
    "none": lambda image: image,
    "quality 10": lambda image: jpeg(image, 10),
    "stretched and quality 50": lambda image: jpeg(image.resize((64, 64)), 50),
    "square": lambda image: ImageOps.fit(image, (100, 100)),
    "32 pixels": lambda image: ImageOps.fit(image, (32, 32)),
    "enlarged": lambda image: image.resize((image.width * 2, image.height * 2), Image.Resampling.NEAREST),
    "grey": lambda image: image.convert("L"),
    "darker": lambda image: ImageEnhance.Brightness(image).enhance(0.5),
    "less contrast": lambda image: ImageEnhance.Contrast(image).enhance(0.6),
    "gamma": lambda image: image.point(lambda value: round(255 * (value / 255) ** 0.7)),
    "blurred": lambda image: image.filter(ImageFilter.GaussianBlur(image.height / 64)),
    "cut by 1%": lambda image: cut(image, 0.01),
}


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen photographs of several shapes and no common subject, as PNG."""
    folder, photographs = tmp_path_factory.mktemp("originals"), Photographs()
    for index in range(len(photographs)):
        image = Image.open(photographs.path(index)).convert("RGB")
        image.thumbnail((240, 240))
        image.save(folder / f"{photographs.label(index)}.png")
    return folder


def spoil(source: Path, target: Path, change: Change, mirrored: bool) -> None:
    target.mkdir()
    for index, path in enumerate(sorted(source.iterdir())):
        image = change(Image.open(path))
        (ImageOps.mirror(image) if mirrored else image).save(target / f"{index:03d}.png")


@pytest.mark.parametrize("mirrored", [False, True], ids=["direct", "mirrored"])
@pytest.mark.parametrize("name", CHANGES)
def test_planted_copies_are_found_and_nothing_else(originals: Path, tmp_path: Path, name: str, mirrored: bool):
    spoil(originals, tmp_path / "copies", CHANGES[name], mirrored)
    ours, theirs = Folder(path=originals, size=96, crop="centre"), Folder(path=tmp_path / "copies", size=20)
    found = find_copies(ours, theirs)
    assert sorted((copy.first, copy.second) for copy in found) == [(i, i) for i in range(16)]
    assert {copy.mirrored for copy in found} == {mirrored}
    assert all(0.78 <= copy.correlation <= 1 for copy in found)
    assert found == sorted(found, key=lambda copy: -copy.correlation)
    first = next(copy for copy in found if copy.first == 0)
    assert first.labels == ("astronaut.png", "000.png")
    if name == "none":
        assert first == Copy(0, 0, ("astronaut.png", "000.png"), first.correlation, 0.0, mirrored)


def test_inside_one_data_set(originals: Path, tmp_path: Path):
    assert find_copies(Folder(path=originals, size=96)) == []
    for path in originals.iterdir():
        Image.open(path).save(tmp_path / path.name)
    ImageOps.mirror(Image.open(originals / "coffee.png")).save(tmp_path / "unrelated name.png")
    Image.open(originals / "moon.png").convert("RGB").save(tmp_path / "zzz.jpg", quality=40)
    found = find_copies(Folder(path=tmp_path, size=96))
    assert [(c.labels, c.mirrored) for c in found] == [
        (("coffee.png", "unrelated name.png"), True),
        (("moon.png", "zzz.jpg"), False),
    ]


def test_only_what_shows_the_same(originals: Path, tmp_path: Path):
    """Details, quarter turns and upside-down images are other images, also of the retina with its black mask."""
    other = tmp_path / "other"
    other.mkdir()
    for path in originals.iterdir():
        image = Image.open(path)
        image.rotate(90, expand=True).save(other / f"turned {path.name}")
        ImageOps.flip(image).save(other / f"flipped {path.name}")
        image.crop((0, 0, image.width // 2, image.height // 2)).save(other / f"detail {path.name}")
    assert find_copies(Folder(path=originals, size=96), Folder(path=other, size=96)) == []


class Listed(Dataset):
    """Images in memory."""

    def __init__(self, images: torch.Tensor):
        self.images, self.shape = images, tuple(images.shape[1:])

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.images[index]

    def label(self, index: int) -> str:
        return f"number {index}"


def test_images_of_one_colour():
    flat = torch.tensor([0.2, 0.2, 0.9]).reshape(3, 1, 1, 1).expand(3, 1, 40, 40)
    assert [(c.first, c.second) for c in find_copies(Listed(flat))] == [(0, 1)]
    assert find_copies(Listed(flat), Photographs(size=40)) == []
    rounding = flat[:1] + 0.001 * torch.randn(1, 1, 40, 40, generator=torch.Generator().manual_seed(0))
    assert [(c.first, c.second) for c in find_copies(Listed(flat[1:2]), Listed(rounding))] == [(0, 0)]


def test_every_pair_is_compared_whatever_the_blocks(monkeypatch: pytest.MonkeyPatch):
    generator = np.random.default_rng(0)
    small = torch.from_numpy(generator.random((23, 1, 32, 32))).expand(-1, 2, -1, -1).half().contiguous()
    small[19], small[7], small[22] = small[3], small[11].flip(-1), small[21]
    expected = [(3, 19, False), (7, 11, True), (21, 22, False)]
    for block in (4, 5, 23, 2048):
        monkeypatch.setattr("preimage_data.copies._BLOCK", block)
        assert sorted((i, j, mirrored) for i, j, _, _, mirrored in match(small, None)) == expected
        between = {(i, j) for i, j, *_ in match(small, small)}
        assert between == {(i, i) for i in range(23)} | {p for i, j, _ in expected for p in ((i, j), (j, i))}


def test_correlation_is_what_is_documented():
    """An independent computation for one pair: scipy's local means at 32 x 32, and the plain inner product."""
    from scipy.ndimage import uniform_filter

    first, second = (torch.rand(1, 32, 32, generator=torch.Generator().manual_seed(s)) for s in (0, 1))
    mixed = (0.8 * first + 0.2 * second).clamp(0, 1)
    patterns = []
    for image in (first, mixed):
        pixels = image[0].half().double().numpy()
        pattern = pixels - uniform_filter(pixels, 5, mode="mirror")
        pattern /= np.sqrt(uniform_filter(pattern**2, 5, mode="mirror") + (4 / 255) ** 2)
        pattern -= pattern.mean()
        patterns.append(pattern / np.linalg.norm(pattern))
    (found,) = find_copies(Listed(first[None]), Listed(mixed[None]))
    assert found.correlation == pytest.approx(float((patterns[0] * patterns[1]).sum()), abs=1e-4)
    assert found.difference == pytest.approx(float((first - mixed).square().mean().sqrt()), abs=1e-3)


def test_progress_and_bad_threshold():
    seen: list[tuple[int, int]] = []
    find_copies(Photographs(size=32, count=2), Photographs(size=32, count=3), progress=lambda *n: seen.append(n))
    assert seen == [(i, 5) for i in range(1, 6)]
    for threshold in (0.5, 1.1, float("nan")):
        with pytest.raises(BadParameter, match="threshold is"):
            find_copies(Photographs(size=32), threshold=threshold)


def test_faces_are_not_copies_of_each_other():
    """What the threshold was chosen on: aligned faces are alike."""
    root = os.environ.get("PREIMAGE_DATA")
    if not root or not Path(root, "faces", "celeba_test12").is_dir():
        pytest.skip("PREIMAGE_DATA has no faces")
    test, train = Folder(path=Path("faces/celeba_test12"), size=64), Folder(path=Path("faces/ffhq_train"), count=300)
    assert find_copies(test, train) == []
    assert find_copies(test) == []


# Images that cannot be read


def damaged(folder: Path, originals: Path) -> Path:
    folder.mkdir()
    for name in ("camera.png", "coffee.png", "moon.png", "text.png"):
        (folder / name).write_bytes((originals / name).read_bytes())
    (folder / "coffee.png").write_bytes((originals / "coffee.png").read_bytes()[:5000])
    (folder / "page.png").write_text("no image at all")
    return folder


def test_readable_names_what_is_bad(originals: Path, tmp_path: Path):
    data = Folder(path=damaged(tmp_path / "images", originals), size=48)
    seen: list[tuple[int, int]] = []
    indices, problems = readable(data, progress=lambda *n: seen.append(n))
    assert indices == (0, 2, 4)
    assert list(problems) == ["coffee.png", "page.png"]
    assert all(isinstance(error, BadFile) and label in error.found for label, error in problems.items())
    assert seen == [(i, 5) for i in range(1, 6)]
    rest = Subset(data, indices)
    check_dataset(rest)
    assert [rest.label(i) for i in range(3)] == ["camera.png", "moon.png", "text.png"]
    assert torch.equal(rest[-1], data[4])
    assert find_copies(rest) == []
    details = Subset(Subset(Folder(path=tmp_path / "images", size=24, crop="centre"), (0, 2, 4)), (2, 0))
    found = find_copies(Folder(path=originals, size=96), details)  # whole files, though one data set cuts out details
    assert [(c.labels[1], c.second) for c in sorted(found, key=lambda c: c.second)] == [
        ("text.png", 0),
        ("camera.png", 1),
    ]
    with pytest.raises(BadFile, match=r"coffee\.png"):
        find_copies(data)
    for bad in ([], [0, 0], [5], [-1]):
        with pytest.raises(BadParameter, match="indices is"):
            Subset(data, bad)


# The command


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(data_command, ["check", *map(str, arguments)], standalone_mode=False)


def test_command_finds_names_and_draws(originals: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    train, test = tmp_path / "train", tmp_path / "test"
    spoil(originals, train, lambda image: image, False)
    test.mkdir()
    ImageOps.mirror(Image.open(originals / "rocket.png")).resize((50, 40)).save(test / "0001.jpg")
    Image.open(originals / "page.png").save(test / "0002.png")
    for name in ("0003.png", "0004.png"):
        Image.effect_noise((64, 64), 80).save(test / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PREIMAGE_DATA", raising=False)
    done = invoke("train", "test", "--figure", "pairs.png")  # short names: long ones are folded in the table
    assert done.return_value == 1, done.output
    assert "mirrored" in done.output
    assert "0001.jpg" in done.output
    lines = [line for line in done.output.splitlines() if "pairs, mirrored and not" in line]
    assert [line.split()[0] for line in lines] == ["no", "no", "2"]
    assert read_image(tmp_path / "pairs.png").std() > 0.05
    found = json.loads(invoke(train, test, "--json").stdout)
    labels = [tuple(copy["labels"]) for copy in found["copies"]]
    names = [path.stem for path in sorted(originals.iterdir())]
    assert sorted(labels) == sorted(
        [(f"{names.index('rocket'):03d}.png", "0001.jpg"), (f"{names.index('page'):03d}.png", "0002.png")]
    )
    clean = invoke(test, "--figure", tmp_path / "none.png")
    assert clean.return_value == 0, clean.output
    assert not (tmp_path / "none.png").exists()
    strict = json.loads(invoke(train, test, "--json", "--threshold", "0.99995").stdout)
    assert [copy["labels"][1] for copy in strict["copies"]] == ["0002.png"]  # the other was resized and re-encoded


def test_command_reports_what_cannot_be_read(originals: Path, tmp_path: Path):
    folder = damaged(tmp_path / "images", originals)
    done = invoke(folder)
    assert done.return_value == 1
    assert done.output.count("cannot be read") == 2
    assert "no copies inside" in done.output
    problems = json.loads(invoke(folder, "--json").stdout)["unreadable"]
    assert [problem["label"] for problem in problems] == ["coffee.png", "page.png"]


def test_command_takes_names_splits_and_toml(originals: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "bsds500" / "val").mkdir(parents=True)
    Image.open(originals / "coffee.png").convert("RGB").save(tmp_path / "bsds500" / "val" / "1.jpg")
    monkeypatch.setenv("PREIMAGE_DATA", str(tmp_path))
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        '[data]\nname = "photographs"\nsize = 64\ncount = 5\n[validation]\nname = "folder"\npath = "bsds500/val"\n'
    )
    found = json.loads(invoke(recipe, "bsds500:val", "--between", "--json").stdout)
    assert list(found["sets"].values()) == [5, 1, 1]
    assert [copy["sets"] for copy in found["copies"]] == [
        [f"{recipe} [validation]", "bsds500:val"],
        [f"{recipe} [data]", f"{recipe} [validation]"],
        [f"{recipe} [data]", "bsds500:val"],
    ]
    assert invoke("photographs").return_value == 0
    assert json.loads(invoke("bsds500", "--json").stdout)["sets"] == {"bsds500": 1}  # a folder there is meant first


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["nowhere"], "'nowhere'"),
        (["photographs", "photographs"], "given twice"),
        (["photographs", "--between"], "there is one set"),
        (["bsds500:dev"], "'dev'"),
        (["photographs", "--threshold", "0.2"], "threshold is 0.2"),
    ],
)
def test_command_refuses(arguments: list[str], text: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("PREIMAGE_DATA", raising=False)
    done = invoke(*arguments)
    assert isinstance(done.exception, BadParameter)
    assert text in str(done.exception)


def test_a_file_without_data_is_refused(tmp_path: Path):
    (tmp_path / "a.toml").write_text('[operator]\nname = "identity"\n')
    done = invoke(tmp_path / "a.toml")
    assert isinstance(done.exception, BadParameter)
    assert "names no data set" in str(done.exception)
    assert isinstance(invoke(tmp_path / "b.toml").exception, BadFile)
    assert isinstance(data_command, click.Group)


def test_changes_are_changes(originals: Path):
    """No two of the changed images are the same file, so that the tests above test different things."""
    image = Image.open(originals / "coffee.png")
    made = {name: np.asarray(change(image)) for name, change in CHANGES.items()}
    for a, b in itertools.combinations(made, 2):
        assert made[a].shape != made[b].shape or not np.array_equal(made[a], made[b])
