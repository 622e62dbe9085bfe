"""A cell's key changes with what its numbers depend on, and with nothing else."""

import importlib
import shutil
import sys
from pathlib import Path

import pytest
import torch
from preimage_compare import _sources, load_suite
from preimage_compare.cells import plan

from preimage._plugins import discover
from preimage.weights import save_weights

WORK = '[[method]]\nlabel = "work"\nsolver = { name = "faulty-work", seconds = 0.01 }\n'
ADJOINT = '[[method]]\nlabel = "adjoint"\nsolver = { name = "adjoint" }\n'
TV = '[[method]]\nlabel = "tv"\nprior = { name = "tv", weight = 0.05 }\nsolver = { name = "admm" }\n'


@pytest.fixture
def installed(site, monkeypatch):
    """The faulty plugin in this process; call it after a change of what is installed."""
    monkeypatch.syspath_prepend(str(site.folder))

    def refresh():
        importlib.invalidate_caches()
        discover.cache_clear()
        _sources._fingerprint.cache_clear()

    refresh()
    yield refresh
    monkeypatch.undo()
    for name in ("faulty_methods", "faulty_plugin"):
        sys.modules.pop(name, None)
    refresh()


def keys(path: Path) -> dict[tuple, str]:
    return {tuple(each.cell): each.key for each in plan(load_suite(path)).cells}


def by_method(found: dict[tuple, str]) -> dict[str, set[str]]:
    return {method: {key for cell, key in found.items() if cell[-1] == method} for method in {c[-1] for c in found}}


def test_adding_or_moving_a_method_changes_no_other(installed, write_suite):
    before = keys(write_suite(ADJOINT + TV))
    after = keys(write_suite(WORK + TV + ADJOINT))
    assert {cell: key for cell, key in after.items() if cell[-1] != "work"} == before
    assert len(after) == len(before) + 2


def test_a_start_and_its_parameters_count(write_suite):
    first = 'start = { prior = { name = "tikhonov" }, solver = { name = "conjugate-gradients", max_steps = %s } }\n'
    methods = "".join(
        f'[[method]]\nlabel = "{label}"\nprior = {{ name = "tv" }}\nsolver = {{ name = "fista" }}\n{start}'
        for label, start in (("none", ""), ("3", first % 3), ("4", first % 4), ("default", first % 1000))
    )
    methods += '[[method.override]]\nset = { "start.solver.max_steps" = 3 }\n'
    found = by_method(keys(write_suite(methods, count=1)))
    assert len(set().union(*found.values())) == 3
    assert found["default"] == found["3"]


def test_a_parameter_changes_exactly_its_method(installed, write_suite):
    before = by_method(keys(write_suite(ADJOINT + TV + WORK)))
    after = by_method(keys(write_suite(ADJOINT + TV.replace("0.05", "0.06") + WORK)))
    assert after["tv"].isdisjoint(before["tv"])
    assert (after["adjoint"], after["work"]) == (before["adjoint"], before["work"])


def test_an_override_changes_exactly_the_cells_it_matches(write_suite):
    noises = '[[noise]]\nlabel = "0.1"\nname = "gaussian"\nsigma = 0.1\n'
    before = keys(write_suite(noises + ADJOINT + TV))
    override = '[[method.override]]\nnoise = "0.1"\nset = { "prior.weight" = 0.2 }\n'
    after = keys(write_suite(noises + ADJOINT + TV + override))
    changed = {cell for cell in before if before[cell] != after[cell]}
    assert changed == {cell for cell in before if cell[3] == "0.1" and cell[-1] == "tv"}


def test_labels_defaults_and_limits_change_nothing(write_suite):
    before = list(keys(write_suite(TV)).values())
    renamed = TV.replace('"tv"\nprior', '"total variation"\nprior').replace('"admm"', '"admm", relaxation = 1.8')
    text = write_suite(renamed + "limits = { seconds = 99 }\n").read_text()
    text = text.replace('label = "0.05"', 'label = "noisy"').replace('label = "identity"', 'label = "denoise"')
    path = write_suite("")
    path.write_text(text.replace('label = "photographs"', 'label = "images"'))
    assert list(keys(path).values()) == before


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("sigma = 0.05", "sigma = 0.06"),
        ("size = 16", "size = 18"),
        ("seeds = [0]", "seeds = [1]"),
        ('title = "Test"', 'title = "Test"\ndtype = "float64"'),
        ('title = "Test"', 'title = "Test"\nthreads = 2'),
        (
            '[[operator]]\nlabel = "identity"\nname = "identity"',
            '[[operator]]\nlabel = "identity"\nname = "gaussian-blur"',
        ),
    ],
)
def test_what_all_methods_share_changes_all(write_suite, old, new):
    path = write_suite(ADJOINT + TV)
    before = keys(path)
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    assert set(before.values()).isdisjoint(keys(path).values())


def test_a_version_changes_what_uses_the_plugin(installed, write_suite, site):
    path = write_suite(ADJOINT + TV + WORK)
    before = by_method(keys(path))
    site.version("1.1")
    installed()
    after = by_method(keys(path))
    assert after["work"].isdisjoint(before["work"])
    assert (after["adjoint"], after["tv"]) == (before["adjoint"], before["tv"])


def test_the_code_of_an_editable_install_counts_as_its_version(installed, write_suite, site):
    path = write_suite(ADJOINT + WORK)
    package = site.folder / "faulty"  # where an editable install has its sources
    package.mkdir()
    (package / "__init__.py").write_text("x = 1\n")
    direct = next(site.folder.glob("*.dist-info")) / "direct_url.json"
    direct.write_text('{"url": "file:///somewhere", "dir_info": {"editable": true}}')
    installed()
    before = by_method(keys(path))
    (package / "__init__.py").write_text("x = 2\n")
    installed()
    after = by_method(keys(path))
    assert after["work"].isdisjoint(before["work"])
    assert after["adjoint"] == before["adjoint"]


def test_one_byte_of_weights_changes_what_uses_them(installed, write_suite, tmp_path):
    for name, value in (("a", 1.0), ("b", 1.0)):
        weights = {"scale": torch.tensor([value])}
        save_weights(tmp_path / f"{name}.safetensors", weights, component="prior/scaled", config={}, facts={})
    methods = "".join(
        f'[[method]]\nlabel = "{name}"\nsolver = {{ name = "faulty-apply" }}\n'
        f'prior = {{ name = "scaled", weights = "{tmp_path / name}.safetensors" }}\n'
        for name in ("a", "b")
    )
    path = write_suite(ADJOINT + methods)
    before = by_method(keys(path))
    file = tmp_path / "b.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    after = by_method(keys(path))
    assert after["b"].isdisjoint(before["b"])
    assert (after["a"], after["adjoint"]) == (before["a"], before["adjoint"])


def test_files_count_by_content_and_not_by_path(write_suite, tmp_path):
    from preimage_data import write_image

    mask = torch.ones(1, 16, 16)
    mask[:, 4:8] = 0
    write_image(tmp_path / "one.png", mask)
    path = write_suite(ADJOINT)
    operator = 'name = "inpainting"\nmask = "file"\npath = "{}"'
    bare = path.read_text()
    path.write_text(bare.replace('name = "identity"', operator.format(tmp_path / "one.png")))
    before = keys(path)
    shutil.move(tmp_path / "one.png", tmp_path / "two.png")
    path.write_text(bare.replace('name = "identity"', operator.format(tmp_path / "two.png")))
    assert keys(path) == before
    mask[:, 9] = 0
    write_image(tmp_path / "two.png", mask)
    assert set(before.values()).isdisjoint(keys(path).values())


def test_images_count_by_content_and_label_and_not_by_folder(write_suite, tmp_path):
    from preimage_data import Photographs, write_image

    text = write_suite(ADJOINT).read_text()
    found = []
    for number, (folder, image) in enumerate((("a", 0), ("b", 0), ("c", 1))):
        write_image(tmp_path / folder / "image.png", Photographs(size=16)[image])
        path = tmp_path / f"{number}.toml"
        path.write_text(
            text.replace('name = "photographs"\nsize = 16\ncount = 2', f'name = "folder"\npath = "{tmp_path / folder}"')
        )
        found.append(keys(path))
    assert found[0] == found[1]
    assert set(found[0].values()).isdisjoint(found[2].values())
