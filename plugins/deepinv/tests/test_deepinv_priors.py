"""deepinv's denoisers as priors: laws, equality with deepinv itself, no state, weights, and bad input."""

import inspect
import random
import subprocess
import sys
import urllib.request
from importlib.util import find_spec
from pathlib import Path

import deepinv
import numpy as np
import pytest
import torch
from preimage_baselines import TotalVariation as ReferenceTotalVariation
from preimage_deepinv import (
    BM3D,
    EPLL,
    AnisotropicTotalVariation,
    Bilateral,
    DnCNN,
    DRUNet,
    FFDNet,
    GSDRUNet,
    Median,
    TotalGeneralizedVariation,
    TotalVariation,
    UNet,
    Wavelet,
    WrappedDenoiser,
    _weights,
    from_denoiser,
)
from preimage_deepinv.catalogue_methods import NO_PRIOR, PRIORS

from preimage import Key
from preimage._parameters import construct
from preimage.errors import BadFile, BadParameter, Incompatible, NotInstalled, ShapeMismatch

SMALL = {"weights": "untrained", "depth": 3, "nf": 4}


@pytest.fixture(autouse=True)
def no_weights_here(monkeypatch, tmp_path):
    """Neither a folder of weights, nor files that deepinv downloaded before."""
    monkeypatch.delenv("PREIMAGE_DEEPINV_WEIGHTS", raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


def images(shape, count=3, dtype=torch.float64):
    return Key(0).child("image").uniform((count, *shape), like=torch.zeros((), dtype=dtype))


# What there is


def test_every_denoiser_of_deepinv_has_an_entry():
    base = deepinv.models.Denoiser
    exported = {
        name for name, thing in vars(deepinv.models).items() if inspect.isclass(thing) and issubclass(thing, base)
    }
    offered = {entry.deepinv for entry in PRIORS}
    assert exported - offered == set(NO_PRIOR)
    assert offered - exported == {"GSPnP"}  # deepinv exports the function GSDRUNet that makes one
    assert issubclass(deepinv.models.GSPnP.GSPnP, base)


def test_listing_imports_neither_torch_nor_deepinv():
    code = (
        "import sys, preimage_deepinv.plugin as p; p.preimage_components(); import preimage_deepinv; "
        "assert not {'torch', 'deepinv'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# Equal to deepinv, and to independent references


@pytest.mark.parametrize(
    ("ours", "variant"), [(TotalVariation, "isotropic"), (AnisotropicTotalVariation, "anisotropic")]
)
@pytest.mark.parametrize("step", [0.01, 0.1, 1.0])
def test_total_variation_is_what_our_own_prior_with_a_duality_gap_gives(ours, variant, step):
    x = images((1, 9, 12), 2)
    exact = ReferenceTotalVariation((1, 9, 12), variant=variant, tolerance=1e-12)
    prior = ours((1, 9, 12))
    assert torch.allclose(prior.energy(x), exact.energy(x), rtol=1e-12)
    error = (prior.prox(x, step) - exact.prox(x, step)).norm() / x.norm()
    assert float(error) < 5e-6  # the docstring says 2e-6 for one channel


def test_a_proximal_map_does_not_depend_on_what_ran_before_though_deepinvs_does():
    x, other = images((1, 24, 24), 1), 1 - images((1, 24, 24), 2)[1:]
    prior = TotalVariation((1, 24, 24), n_it_max=20)
    first = prior.prox(x, 0.1)
    prior.prox(other, 0.1)
    assert torch.equal(prior.prox(x, 0.1), first)
    shared = deepinv.models.TVDenoiser(n_it_max=20)
    assert torch.equal(shared(x, 0.1), torch.cat([deepinv.models.TVDenoiser(n_it_max=20)(x, 0.1)]))
    shared(other, 0.1)
    # deepinv's object goes on from the other image; if this ever fails, deepinv has mended it.
    assert float((shared(x, 0.1) - first).abs().max()) > 0.01


def test_a_warm_start_is_deepinvs_own():
    x = images((1, 12, 12), 1)
    prior, theirs = TotalVariation((1, 12, 12), n_it_max=15), deepinv.models.TVDenoiser(crit=1e-8, n_it_max=15)
    found, memory = prior.prox_from(x, 0.1, None)
    again, _ = prior.prox_from(0.9 * x, 0.2, memory)
    assert torch.equal(found, theirs(x, 0.1))
    assert torch.equal(again, theirs(0.9 * x, 0.2))


def test_a_step_of_zero_gives_the_image_back():
    x = images((1, 6, 7))
    assert torch.equal(TotalVariation((1, 6, 7)).prox(x, 0.0), x)
    assert torch.equal(TotalGeneralizedVariation((1, 6, 7)).denoise(x, 0.0), x)


def test_filters_are_deepinvs():
    x = images((2, 9, 12), dtype=torch.float32)
    levels = torch.tensor([0.05, 0.1, 0.2])
    assert torch.equal(Median((2, 9, 12)).denoise(x, levels), deepinv.models.MedianFilter(3)(x))
    theirs = deepinv.models.BilateralFilter()(x, sigma_d=1.0, sigma_r=2 * levels, window_size=5)
    assert torch.equal(Bilateral((2, 9, 12)).denoise(x, levels), theirs)
    tgv = TotalGeneralizedVariation((2, 9, 12), n_it_max=30)
    each = [deepinv.models.TGVDenoiser(crit=1e-6, n_it_max=30)(x[i : i + 1], levels[i]) for i in range(3)]
    assert torch.equal(tgv.denoise(x, levels), torch.cat(each))


@pytest.mark.parametrize("channels", [3])
def test_bm3d_is_what_deepinv_gives(channels):
    x = images((channels, 12, 12), 1, torch.float32)
    assert torch.allclose(BM3D((channels, 12, 12)).denoise(x, 0.1), deepinv.models.BM3D()(x, 0.1), atol=1e-5)


def test_the_gradient_step_denoiser_is_deepinvs_and_works_in_double_precision():
    prior = GSDRUNet((1, 16, 16), weights="untrained", nc=(4, 8, 8, 8), nb=1, alpha=0.7)
    x = images((1, 16, 16), 2, torch.float32)
    ours = prior.denoise(x, 0.1)
    assert not ours.requires_grad
    assert not x.requires_grad  # deepinv sets it on its argument
    theirs = prior.denoiser(x.clone(), 0.1)
    assert torch.allclose(ours, theirs.detach(), atol=1e-6)
    double = prior.to(torch.float64).denoise(x.double(), 0.1)
    assert torch.allclose(double.float(), ours, atol=1e-5)
    assert not torch.equal(double, double.float().double())


def test_any_denoiser_object_is_a_prior():
    x = images((1, 8, 8), dtype=torch.float32)
    prior = from_denoiser(deepinv.models.AnscombeDenoiser(deepinv.models.MedianFilter(3)), (1, 8, 8))
    assert prior.denoise(x, 0.1).shape == x.shape
    with pytest.raises(Incompatible, match=r"deepinv.models.Denoiser"):
        from_denoiser(torch.nn.ReLU(), (1, 8, 8))


class Drifting(torch.nn.Module):
    """Adds a random number and a growing one, and mixes the batch."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, x, sigma):
        self.calls += 1
        return x + self.calls + torch.rand(()) + random.random() + np.random.rand() + x.mean()  # noqa: NPY002


def test_wrapped_denoisers_keep_no_state_draw_nothing_and_do_not_mix_images():
    prior = WrappedDenoiser((1, 8, 8), Drifting())
    x = images((1, 8, 8))
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    first = prior.denoise(x, 0.1)
    assert torch.equal(prior.denoise(x, 0.1), first)
    assert torch.equal(prior.denoise(x[1:2], 0.1), first[1:2])
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert np.array_equal(np.random.get_state()[1], before[2])  # noqa: NPY002
    assert torch.get_default_dtype() == torch.float32


def test_untrained_weights_come_from_the_key_and_leave_the_global_generator_alone():
    before = torch.get_rng_state()
    x = images((1, 8, 8), dtype=torch.float32)
    one, same, other = (DnCNN((1, 8, 8), Key(seed), **SMALL).denoise(x, 0.1) for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), before)


# Weights


def small_weights(folder: Path, name: str = "own.pth") -> tuple[Path, DnCNN]:
    made = DnCNN((1, 8, 8), Key(7), **SMALL)
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(made.denoiser.state_dict(), path)
    return path, made


@pytest.mark.parametrize(
    ("make", "file"),
    [
        (lambda: DRUNet((3, 16, 16)), "drunet_deepinv_color_finetune_22k.pth"),
        (lambda: DRUNet((1, 16, 16)), "drunet_deepinv_gray_finetune_26k.pth"),
        (lambda: DnCNN((1, 16, 16), lipschitz=True), "dncnn_sigma2_lipschitz_gray.pth"),
        (lambda: FFDNet((3, 16, 16)), "ffdnet_color.pth"),
        (lambda: EPLL((1, 16, 16)), "GMM_BSDS_gray2.pt"),
    ],
)
def test_missing_weights_are_named_with_the_folder_they_belong_in(make, file, monkeypatch, tmp_path):
    with pytest.raises(BadFile) as first:
        make()
    message = str(first.value)
    assert file in message
    assert str(tmp_path / "torch" / "hub" / "checkpoints") in message
    assert "https://huggingface.co/deepinv/" in message
    assert "PREIMAGE_DEEPINV_WEIGHTS" in message
    assert "allow_download = true" in message
    monkeypatch.setenv("PREIMAGE_DEEPINV_WEIGHTS", str(tmp_path / "mine"))
    with pytest.raises(BadFile) as second:
        make()
    assert str(tmp_path / "mine") in str(second.value)


# PyTorch warns once in a process: of what deepinv's own constructor calls here, or earlier of something else.
@pytest.mark.filterwarnings("ignore:torch.meshgrid")
def test_the_published_files_are_those_that_deepinv_asks_for(monkeypatch):
    asked = []

    class Enough(Exception):
        pass

    def note(url, *_, **__):
        asked.append(url)
        raise Enough

    for module in ("dncnn", "drunet", "ffdnet", "scunet", "dsccp", "GSPnP", "restormer", "swinir", "ncsnpp"):
        monkeypatch.setattr(sys.modules[f"deepinv.models.{module}"], "load_state_dict_from_url", note)
    monkeypatch.setattr(deepinv.optim.epll, "load_state_dict_from_url", note)
    theirs = [
        lambda: deepinv.models.DnCNN(3, 3),
        lambda: deepinv.models.DnCNN(1, 1, pretrained="download_lipschitz"),
        lambda: deepinv.models.DRUNet(3, 3),
        lambda: deepinv.models.DRUNet(1, 1),
        lambda: deepinv.models.FFDNet(),
        lambda: deepinv.models.FFDNet(12, 96, 3),
        lambda: deepinv.models.SCUNet(),
        lambda: deepinv.models.DScCP(),
        lambda: deepinv.models.GSDRUNet(pretrained="download"),
        lambda: deepinv.models.GSDRUNet(in_channels=1, out_channels=1, pretrained="download"),
        lambda: deepinv.models.Restormer(),
        lambda: deepinv.models.SwinIR(pretrained_noise_level=25),
        lambda: deepinv.models.NCSNpp(),
        lambda: deepinv.models.EPLLDenoiser(),
    ]
    ours = [
        ("dncnn", (3, 64, 64), {}),
        ("dncnn", (1, 64, 64), {"lipschitz": True}),
        ("drunet", (3, 64, 64), {}),
        ("drunet", (1, 64, 64), {}),
        ("ffdnet", (1, 64, 64), {}),
        ("ffdnet", (3, 64, 64), {}),
        ("scunet", (3, 64, 64), {}),
        ("dsccp", (3, 64, 64), {}),
        ("gsdrunet", (3, 64, 64), {}),
        ("gsdrunet", (1, 64, 64), {}),
        ("restormer", (3, 64, 64), {}),
        ("swinir", (3, 64, 64), {"pretrained_noise_level": 25}),
        ("ncsnpp", (3, 64, 64), {}),
        ("epll", (1, 64, 64), {}),
    ]
    for make, (name, shape, values) in zip(theirs, ours, strict=True):
        with pytest.raises(Enough), torch.random.fork_rng():
            make()
        with pytest.raises(BadFile) as error:
            construct("prior", f"deepinv/{name}", values, name, in_shape=shape, key=Key(0))
        assert asked[-1] in str(error.value)


def test_weights_are_read_from_a_path_a_folder_and_deepinvs_own_cache(monkeypatch, tmp_path):
    path, made = small_weights(tmp_path)
    x = images((1, 8, 8), dtype=torch.float32)
    wanted = made.denoise(x, 0.1)
    own = {"depth": 3, "nf": 4}
    assert torch.equal(DnCNN((1, 8, 8), weights=str(path), **own).denoise(x, 0.1), wanted)
    published = _weights.Published("dncnn_small.pth", "https://example.org/dncnn_small.pth")
    cached, _ = small_weights(tmp_path / "torch" / "hub" / "checkpoints", "dncnn_small.pth")
    assert _weights.find("deepinv/dncnn", "pretrained", published, False) == cached
    mine, _ = small_weights(tmp_path / "mine", "dncnn_small.pth")
    monkeypatch.setenv("PREIMAGE_DEEPINV_WEIGHTS", str(tmp_path / "mine"))
    assert _weights.find("deepinv/dncnn", "pretrained", published, False) == mine


def test_a_download_happens_only_when_it_is_allowed(monkeypatch, tmp_path):
    source, _ = small_weights(tmp_path / "server")
    published = _weights.Published("dncnn_small.pth", source.as_uri())
    monkeypatch.setenv("PREIMAGE_DEEPINV_WEIGHTS", str(tmp_path / "mine"))
    with monkeypatch.context() as offline:
        offline.setattr(urllib.request, "urlopen", lambda *_, **__: pytest.fail("asked the network"))
        with pytest.raises(BadFile, match="allow_download"):
            _weights.find("deepinv/dncnn", "pretrained", published, False)
    found = _weights.find("deepinv/dncnn", "pretrained", published, True)
    assert found == tmp_path / "mine" / "dncnn_small.pth"
    assert found.read_bytes() == source.read_bytes()
    gone = _weights.Published("gone.pth", (tmp_path / "server" / "gone.pth").as_uri())
    with pytest.raises(BadFile, match="could not be downloaded"):
        _weights.find("deepinv/dncnn", "pretrained", gone, True)


def test_weights_that_do_not_fit_or_cannot_be_read_are_one_message(tmp_path):
    path, _ = small_weights(tmp_path)
    with pytest.raises(Incompatible, match=r"own.pth does not fit deepinv/dncnn: .*shape"):
        DnCNN((1, 8, 8), weights=str(path), depth=3, nf=8)
    with pytest.raises(Incompatible, match=r"no conv_list"):
        DnCNN((1, 8, 8), weights=str(path), depth=5, nf=4)
    with pytest.raises(BadFile, match="there is no file"):
        DnCNN((1, 8, 8), weights="nowhere.pth")
    with pytest.raises(BadFile, match="there is no file"):
        UNet((1, 8, 8), weights="nowhere.pth")
    (tmp_path / "cut.pth").write_bytes(path.read_bytes()[:400])
    (tmp_path / "text.pth").write_text("no weights")
    torch.save({"model": Drifting()}, tmp_path / "code.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    bad = {name: value * float("nan") for name, value in torch.load(path, weights_only=True).items()}
    torch.save(bad, tmp_path / "nan.pth")
    for name, expected in (("cut", BadFile), ("text", BadFile), ("code", BadFile), ("list", BadFile)):
        with pytest.raises(expected, match=name):
            DnCNN((1, 8, 8), weights=str(tmp_path / f"{name}.pth"), depth=3, nf=4)
    with pytest.raises(Incompatible, match="NaN"):
        DnCNN((1, 8, 8), weights=str(tmp_path / "nan.pth"), depth=3, nf=4)


def test_nested_and_safetensors_files_are_read(tmp_path):
    from safetensors.torch import save_file

    path, made = small_weights(tmp_path)
    x = images((1, 8, 8), dtype=torch.float32)
    torch.save({"state_dict": made.denoiser.state_dict(), "epoch": 3}, tmp_path / "nested.pth")
    save_file({name: value.clone() for name, value in made.denoiser.state_dict().items()}, tmp_path / "own.safetensors")
    for file in (path, tmp_path / "nested.pth", tmp_path / "own.safetensors"):
        assert torch.equal(DnCNN((1, 8, 8), weights=str(file), depth=3, nf=4).denoise(x, 0.1), made.denoise(x, 0.1))


def test_weights_of_a_mixture_are_read_as_deepinv_reads_them(tmp_path):
    settings = {"n_components": 3, "patch_size": 3}
    made = EPLL((1, 9, 9), Key(3), weights="untrained", **settings)
    torch.save(made.denoiser.PatchGMM.state_dict(), tmp_path / "mixture.pt")
    x = images((1, 9, 9), dtype=torch.float32)
    ours = EPLL((1, 9, 9), weights=str(tmp_path / "mixture.pt"), **settings).denoise(x, 0.1)
    theirs = deepinv.models.EPLLDenoiser(pretrained=str(tmp_path / "mixture.pt"), channels=1, **settings)
    assert torch.allclose(ours, theirs(x, 0.1), atol=1e-6)
    assert not torch.allclose(ours, x, atol=1e-3)


# Bad input


def test_a_misspelt_parameter_is_refused_with_the_one_that_was_meant():
    with pytest.raises(BadParameter, match="did you mean 'kernel_size'"):
        construct("prior", "deepinv/median", {"kernal_size": 3}, "prior 'deepinv/median'", in_shape=(1, 8, 8))


@pytest.mark.parametrize(
    ("make", "mentions"),
    [
        (lambda: TotalVariation((1, 8, 8), crit=0.0), "crit"),
        (lambda: TotalVariation((1, 8, 8), n_it_max=0), "n_it_max"),
        (lambda: TotalVariation((1, 8, 8), rho=2.0), "rho"),
        (lambda: TotalVariation((1, 8, 8), tau=-1.0), "tau"),
        (lambda: Median((1, 8, 8), kernel_size=4), "kernel_size"),
        (lambda: Bilateral((1, 8, 8), window_size=2), "window_size"),
        (lambda: Bilateral((1, 8, 8), sigma_r=0.0), "sigma_r"),
        (lambda: TotalGeneralizedVariation((1, 8, 8), scale=0.0), "scale"),
        (lambda: GSDRUNet((1, 8, 8), weights="untrained", alpha=0.0), "alpha"),
        (lambda: DnCNN((2, 8, 8)), "no weights are published"),
        (lambda: DnCNN((1, 8, 8), depth=5), "no weights are published"),
    ],
)
def test_bad_parameters_are_refused_by_name(make, mentions):
    with pytest.raises(BadParameter, match=mentions):
        make()


@pytest.mark.parametrize(
    "make",
    [
        lambda: TotalVariation((8, 8)),
        lambda: Median((8, 8)),
        lambda: Median((1, 1, 8), kernel_size=3),
        lambda: BM3D((1, 8, 8)),
        lambda: BM3D((2, 16, 16)),
        lambda: DnCNN((8, 8), **SMALL),
        lambda: FFDNet((1, 7, 8), weights="untrained"),
    ],
)
def test_images_that_a_prior_cannot_take_are_refused_when_it_is_made(make):
    with pytest.raises(ShapeMismatch):
        make()


def test_images_of_another_shape_are_refused():
    for prior in (Median((1, 8, 8)), DnCNN((1, 8, 8), **SMALL)):
        with pytest.raises(ShapeMismatch, match=r"\(B, 1, 8, 8\)"):
            prior.denoise(torch.zeros(2, 3, 8, 8), 0.1)
    with pytest.raises(ShapeMismatch, match="add the batch axis"):
        TotalVariation((1, 8, 8)).prox(torch.zeros(1, 8, 8), 0.1)


def test_what_deepinv_cannot_compute_is_one_error_of_ours():
    class Shrinking(deepinv.models.Denoiser):
        def forward(self, x, sigma):
            return x[..., 1:]

    with pytest.raises(ShapeMismatch, match="which keeps the shape"):
        from_denoiser(Shrinking(), (1, 8, 8)).denoise(torch.zeros(1, 1, 8, 8), 0.1)
    channels = from_denoiser(deepinv.models.DnCNN(3, 3, depth=2, nf=4, pretrained=None), (1, 8, 8))
    with pytest.raises(Incompatible, match="DnCNN failed on images of shape"):
        channels.denoise(torch.zeros(1, 1, 8, 8), 0.1)


@pytest.mark.parametrize(
    ("make", "package"), [(lambda: Wavelet((1, 16, 16)), "ptwt"), (lambda: BM3D((1, 16, 16)), "bm3d")]
)
def test_a_missing_package_is_named(make, package, monkeypatch):
    real = find_spec
    from preimage_deepinv import filters

    monkeypatch.setattr(filters, "find_spec", lambda name: None if name == package else real(name))
    with pytest.raises(NotInstalled, match=f"pip install {package}"):
        make()
