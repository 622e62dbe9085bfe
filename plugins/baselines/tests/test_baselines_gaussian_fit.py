import math

import numpy as np
import pytest
import torch
from preimage_baselines import GaussianSpectrum, SpectrumModel, fit_spectrum
from preimage_baselines.fit_gaussian import SHARES, log_likelihood
from preimage_data import write_image
from scipy.fft import dctn

from preimage import Key
from preimage._cli import run
from preimage.errors import BadData, BadParameter
from preimage.weights import load_weights

DOUBLE = torch.zeros((), dtype=torch.float64)


def images(count=60, shape=(3, 6, 8)):
    """Smooth coloured noise about a ramp, not stationary: the left half varies more."""
    drawn = Key(1).normal((count, *shape), DOUBLE)
    drawn = torch.nn.functional.avg_pool2d(drawn, 3, 1, 1) + 0.3 * drawn.mean(1, keepdim=True)
    drawn[..., : shape[-1] // 2] *= 2
    return 0.5 + 0.1 * drawn + torch.linspace(-0.2, 0.2, shape[-1], dtype=torch.float64)


@pytest.mark.parametrize("mean", ["image", "colour"])
def test_the_spectrum_is_the_sample_covariance_of_each_frequency(mean):
    x = images()
    model, _ = fit_spectrum(x, mean=mean)
    centre = x.mean(0) if mean == "image" else x.mean((0, 2, 3))[:, None, None].expand(3, 6, 8)
    assert torch.allclose(model.mean, centre, atol=1e-12)
    c = dctn((x - centre).numpy(), axes=(2, 3), norm="ortho")
    expected = np.einsum("nihw,njhw->ijhw", c, c) / (len(x) - 1)
    assert np.allclose(model.spectrum, expected, atol=1e-12)
    assert len(model.components) == 0


def test_mirror_and_moved_images_count():
    x = images(20)
    moved = torch.nn.functional.pad(x, (1, 1, 1, 1), mode="replicate")
    moves = [moved[..., i : i + 6, j : j + 8] for i, j in ((1, 1), (0, 1), (2, 1), (1, 0), (1, 2))]
    for flip, shift, same in (
        (True, False, [x, x.flip(-1)]),
        (False, True, moves),
        (True, True, [*moves, *(m.flip(-1) for m in moves)]),
    ):
        found, _ = fit_spectrum(x, mean="image", flip=flip, shift=shift)
        expected, _ = fit_spectrum(torch.cat(same), mean="image")
        assert torch.allclose(found.mean, expected.mean, atol=1e-12)
        assert torch.allclose(found.spectrum, expected.spectrum, atol=1e-12)


def test_components_are_the_principal_ones_and_keep_the_power_of_each_frequency():
    x = images(200)
    model, share = fit_spectrum(x, mean="image", components=10, share=0.5)
    assert share == 0.5
    deviations = (x - x.mean(0)).flatten(1).numpy()
    values, vectors = np.linalg.eigh(deviations.T @ deviations / 199)
    found = (model.components / 0.5**0.5).flatten(1).numpy()
    assert np.allclose((found**2).sum(1), values[::-1][:10], rtol=1e-6)
    best = (vectors[:, ::-1][:, :10] * values[::-1][:10]) @ vectors[:, ::-1][:, :10].T
    assert np.allclose(found.T @ found, best, atol=1e-6 * values[-1])
    c = dctn(model.components.numpy(), axes=(2, 3), norm="ortho")
    stationary, _ = fit_spectrum(x, mean="image")
    whole = model.spectrum.numpy() + np.einsum("nihw,njhw->ijhw", c, c)
    assert np.allclose(whole, stationary.spectrum, atol=1e-10)
    assert float(torch.linalg.eigvalsh(model.spectrum.permute(2, 3, 0, 1)).min()) > 0


def test_the_likelihood_is_that_of_the_dense_gaussian():
    x = images(40, (1, 4, 5))
    model, _ = fit_spectrum(x, mean="image", components=3, share=0.4)
    prior = GaussianSpectrum.of((1, 4, 5), model)
    root = (prior.decode(torch.eye(20).double().reshape(20, 1, 4, 5)) - prior.mean).flatten(1).numpy().T
    deviation = (x - prior.mean).flatten(1).numpy()
    energy = (deviation * np.linalg.solve(root @ root.T, deviation.T).T).sum(1).mean()
    expected = -0.5 * (energy + np.linalg.slogdet(root @ root.T)[1])
    assert log_likelihood(model, x) == pytest.approx(expected, rel=1e-9)


def test_held_out_images_give_a_share_where_images_are_not_stationary_and_none_where_they_are():
    x = images(400)
    seen = []
    _, share = fit_spectrum(x, mean="image", components=20, report=lambda done, total: seen.append((done, total)))
    assert share > 0
    assert seen[-1] == (len(SHARES), len(SHARES))
    model, _ = fit_spectrum(x, mean="image")
    drawn = GaussianSpectrum.of((3, 6, 8), model).sample(60, Key(3), DOUBLE)
    assert fit_spectrum(drawn, mean="image", components=20)[1] <= SHARES[1]


def test_the_order_of_images_and_earlier_calls_do_not_matter():
    x = images(100)
    first, _ = fit_spectrum(x, components=5, share=0.3)
    torch.manual_seed(1)
    again, _ = fit_spectrum(x, components=5, share=0.3)
    assert torch.equal(first.components, again.components)


@pytest.mark.parametrize(
    ("make", "error", "mentions"),
    [
        (lambda: fit_spectrum(images(1)), BadData, "at least two"),
        (lambda: fit_spectrum(images(3), components=2), BadData, "at least four"),
        (lambda: fit_spectrum(images() * math.nan), BadData, "NaN"),
        (lambda: fit_spectrum(images(), components=-1), BadParameter, "components"),
        (lambda: fit_spectrum(images(), components=2, share=1.0), BadParameter, "share"),
    ],
)
def test_what_cannot_be_fitted_is_refused(make, error, mentions):
    with pytest.raises(error, match=mentions):
        make()


# The command


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.delenv("PREIMAGE_DATA", raising=False)
    for index in range(6):
        write_image(tmp_path / "images" / f"{index}.png", Key(index).uniform((3, 20, 24)))
    return tmp_path / "images"


def fit(folder, out, *options):
    return run(["fit", "gaussian-spectrum", str(folder), "--out", str(out), "--size", "8", *options])


def test_the_command_writes_a_prior_that_can_be_used(folder, tmp_path, capsys):
    out = tmp_path / "model.safetensors"
    options = ("--mean", "image", "--components", "3", "--share", "0.4", "--flip", "--shift", "--note", "noise")
    assert fit(folder, out, *options) == 0
    assert "6 images of 3x8x8, 3 components with share 0.4" in capsys.readouterr().out
    prior = GaussianSpectrum((3, 8, 8), weights=str(out))
    assert len(prior.whitening.gains) == 3
    facts = load_weights(str(out), "prior/gaussian-spectrum").facts
    assert facts["note"] == "noise"
    assert facts["data"]["files"] == facts["data"]["images"] == 6
    chosen = {"channels": 3, "components": 3, "crop": "resize", "flip": True, "mean": "image", "share": 0.4}
    assert facts["options"] == chosen | {"shift": True, "size": 8}
    again = tmp_path / "again.safetensors"
    assert fit(folder, again, *options) == 0
    assert again.read_bytes() == out.read_bytes()


def test_tiles_are_cut_from_every_image(folder, tmp_path, capsys):
    out = tmp_path / "model.safetensors"
    assert fit(folder, out, "--crop", "tiles", "--channels", "1") == 0
    assert "36 images of 1x8x8" in capsys.readouterr().out
    assert SpectrumModel.load(str(out)).shape == (1, 8, 8)


def test_the_digest_tells_the_data(folder, tmp_path):
    digests = []
    for name in ("a", "b"):
        assert fit(folder, tmp_path / name) == 0
        digests.append(load_weights(str(tmp_path / name), "prior/gaussian-spectrum").facts["data"]["sha256"])
        write_image(folder / "0.png", Key(9).uniform((3, 20, 24)))
    assert digests[0] != digests[1]


def complaint(capsys):
    message = capsys.readouterr().err
    assert "Traceback" not in message
    return message


def test_images_that_cannot_be_used_are_named(folder, tmp_path, capsys):
    out = tmp_path / "model.safetensors"
    write_image(folder / "small.png", Key(0).uniform((3, 7, 30)))
    assert fit(folder, out) == 2
    message = complaint(capsys)
    assert "small.png has 7 x 30 pixels" in message
    assert "at least 8 x 8" in message
    (folder / "small.png").write_bytes((folder / "0.png").read_bytes()[:200])
    assert fit(folder, out) == 2
    assert "small.png" in complaint(capsys)
    assert not out.exists()


def test_folders_that_cannot_be_used_are_refused(folder, tmp_path, capsys):
    out = tmp_path / "model.safetensors"
    (tmp_path / "empty").mkdir()
    for place, mentions in ((tmp_path / "empty", "no images"), (tmp_path / "nowhere", "does not exist")):
        assert fit(place, out) == 2
        assert mentions in complaint(capsys)
    for index in range(1, 6):
        (folder / f"{index}.png").unlink()
    assert fit(folder, out) == 2
    assert "at least two images" in complaint(capsys)


def test_bad_options_are_refused_before_anything_is_read(folder, tmp_path, capsys):
    out = tmp_path / "model.safetensors"
    for options, mentions in (
        (("--size", "2"), "size"),
        (("--components", "-1"), "components"),
        (("--share", "2"), "share"),
    ):
        assert run(["fit", "gaussian-spectrum", str(folder), "--out", str(out), *options]) == 2
        assert mentions in complaint(capsys)
    out.write_text("mine")
    assert fit(folder, out) == 2
    assert "--overwrite" in complaint(capsys)
    assert out.read_text() == "mine"
    assert fit(folder, out, "--overwrite") == 0
