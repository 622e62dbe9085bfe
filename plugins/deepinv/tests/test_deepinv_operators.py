"""The catalogue is complete and true, deepinv's parameters are ours, and bad input gets one clear message."""

import importlib
import inspect
import pkgutil
import socket
import subprocess
import sys
from pathlib import Path

import deepinv
import numpy as np
import pytest
import torch
from preimage_deepinv import _deepinv, blurs, masks, mri, projections, spectral
from preimage_deepinv.catalogue import OPERATORS, OPERATORS_NOT_OFFERED

from preimage import Key, LinearOperator, Pipeline, load
from preimage._parameters import construct, parameters
from preimage.errors import BadParameter, BrokenPlugin, Incompatible, NotInstalled, ShapeMismatch

HERE = [entry for entry in OPERATORS if not entry.needs]
KEY = Key(0).child("example")


def made(entry, example=None, key=KEY):
    name = f"deepinv/{entry.name}"
    values = entry.examples[0] if example is None else example
    return construct("operator", name, values, name, in_shape=entry.shape, key=key)


def physics_classes():
    """Every class of deepinv.physics that is a physics, exported or not."""
    for module in pkgutil.walk_packages(deepinv.physics.__path__, "deepinv.physics."):
        importlib.import_module(module.name)

    def below(cls):
        for sub in cls.__subclasses__():
            yield sub
            yield from below(sub)

    base = deepinv.physics.Physics
    return {cls.__name__ for cls in (base, *below(base)) if cls.__module__.startswith("deepinv.physics")}


def test_every_physics_is_offered_or_excluded_with_a_reason():
    offered = [entry.deepinv for entry in OPERATORS]
    assert len(set(offered)) == len(offered)
    assert set(offered) | set(OPERATORS_NOT_OFFERED) == physics_classes()
    assert not set(offered) & set(OPERATORS_NOT_OFFERED)
    assert all(OPERATORS_NOT_OFFERED.values())
    assert len(HERE) >= 25


def test_a_new_physics_would_be_noticed(monkeypatch):
    class Unheard(deepinv.physics.LinearPhysics):
        __module__ = "deepinv.physics.unheard"

    assert physics_classes() - {entry.deepinv for entry in OPERATORS} - set(OPERATORS_NOT_OFFERED) == {"Unheard"}
    del Unheard
    import gc

    gc.collect()


@pytest.mark.parametrize("entry", OPERATORS, ids=lambda e: e.name)
def test_parameters_are_those_of_deepinv(entry):
    """Each argument of deepinv's constructor is ours with the same default, or has a stand-in with a reason."""
    cls = load("operator", f"deepinv/{entry.name}")
    module = deepinv.physics.scattering if entry.deepinv == "BornOperator" else deepinv.physics
    theirs = inspect.signature(getattr(module, entry.deepinv).__init__).parameters
    ours = {p.name: p for p in parameters(cls)}
    changed = getattr(cls, "changed_defaults", {})
    for name, argument in list(theirs.items())[1:]:
        if argument.kind is argument.VAR_KEYWORD or name in cls.instead:
            continue
        assert name in ours, f"{name} is neither a parameter nor replaced"
        if name not in changed and not ours[name].required:
            empty = argument.default is argument.empty
            assert empty or ours[name].default == argument.default, name
    assert set(cls.instead) | set(changed) <= set(theirs)
    assert cls.__doc__
    for name in ours:
        assert f"`{name}`" in cls.__doc__ or "as for deepinv/" in cls.__doc__, f"{name} is not documented"


@pytest.mark.parametrize("entry", HERE, ids=lambda e: e.name)
def test_only_the_key_decides_what_is_drawn(entry):
    """Two global seeds give one operator, two keys may give two, and the global generators are left alone."""
    x = Key(5).uniform((1, *entry.shape))
    results = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002 (the test is about this very seed)
        before, before_numpy = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
        operator = made(entry)
        assert torch.equal(torch.get_rng_state(), before)
        assert np.array_equal(np.random.get_state()[1], before_numpy)  # noqa: NPY002
        results.append(operator(x))
    assert torch.equal(*results)
    drawn = {"inpainting", "compressed-sensing", "structured-random", "mri", "hyperspectral-unmixing"}
    if entry.name in drawn | {"random-phase-retrieval", "structured-random-phase-retrieval", "dynamic-mri"}:
        assert not torch.equal(made(entry, key=Key(99))(x), results[0])


def test_nothing_is_downloaded(monkeypatch):
    def refuse(*_):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    for entry in HERE:
        made(entry)


def test_listing_imports_neither_torch_nor_deepinv():
    code = "import sys; from preimage._registry import names; names('operator'); from preimage._plugins import discover"
    code += (
        "; assert ('operator', 'deepinv/blur') in discover().components; print({'torch', 'deepinv'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


def test_the_tables_of_the_readme_are_what_the_tool_prints():
    """The tool holds every operator to the laws, and fails if one is broken."""
    tool = Path(__file__).parents[1] / "tools" / "write_laws.py"
    run = subprocess.run([sys.executable, str(tool), "--check"], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


# Values against deepinv itself


def test_the_same_numbers_as_deepinv():
    x = Key(1).uniform((2, 1, 12, 12))
    h = deepinv.physics.functional.gaussian_blur(sigma=(1.5, 1.5))
    theirs = deepinv.physics.Blur(filter=h, padding="circular")
    ours = blurs.Blur((1, 12, 12), sigma=1.5, padding="circular")
    assert torch.equal(ours(x), theirs.A(x))
    assert torch.equal(ours.adjoint(x), theirs.A_adjoint(x))
    theirs = deepinv.physics.Tomography(angles=5, img_width=12, normalize=False)
    ours = projections.Tomography((1, 12, 12), angles=5, normalize=False)
    y = theirs.A(x)
    assert torch.equal(ours(x), y)
    assert torch.allclose(ours.adjoint(y), theirs.A_adjoint(y), atol=1e-6)


def test_complex_channels_are_real_and_imaginary_parts():
    from preimage_deepinv.nonlinear import PtychographyLinear

    operator = PtychographyLinear((2, 12, 10), n_img=9, probe_radius=4)
    x = Key(1).uniform((2, 2, 12, 10))
    theirs = operator.physics.A(torch.complex(x[:, :1], x[:, 1:]))
    assert torch.equal(operator(x)[:, :9], theirs.real)
    assert torch.equal(operator(x)[:, 9:], theirs.imag)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_solve_normal_equals_prox_l2(dtype):
    """deepinv's prox_l2 at y = 0 solves gamma A^T A u + u = z."""
    b = Key(2).normal((2, 2, 8, 8), like=torch.zeros((), dtype=dtype))
    for operator in (
        masks.Inpainting((2, 8, 8), key=KEY),
        blurs.BlurFFT((2, 8, 8)),
        mri.MRI((2, 8, 8), key=KEY),
        blurs.Downsampling((2, 8, 8), filter="gaussian"),
    ):
        operator = operator.to(dtype)
        zero = torch.zeros((2, *operator.out_shape), dtype=dtype)
        theirs = operator.physics.prox_l2(b * 2.0, zero, 2.0)
        assert torch.allclose(operator.solve_normal(b, 0.5), theirs, atol=1e-5)


def test_real_images_in_mri():
    whole, real = mri.MRI((2, 8, 6), key=KEY).double(), mri.MRI((1, 8, 6), key=KEY).double()
    x = Key(1).uniform((1, 1, 8, 6)).double()
    assert torch.equal(real(x), whole(torch.cat((x, torch.zeros_like(x)), 1)))
    y = Key(2).normal((1, 2, 8, 6)).double()
    assert torch.equal(real.adjoint(y), whole.adjoint(y)[:, :1])
    assert real.solve_normal(x, 1.0) is None


def test_operators_are_copied_saved_and_moved():
    import copy

    operator = blurs.BlurFFT((1, 9, 8), filter="motion", size=5, key=KEY)
    double = copy.deepcopy(operator).to(torch.float64)
    x = Key(1).uniform((1, 1, 9, 8))
    assert torch.allclose(double(x.double()), operator(x).double(), atol=1e-6)
    assert double.physics.angle.dtype == torch.complex128
    assert operator.physics.angle.dtype == torch.complex64


def test_the_batch_that_deepinv_cannot_take():
    operator = mri.SequentialMRI((2, 16, 12), key=KEY)
    x = Key(1).uniform((3, 2, 16, 12))
    with pytest.raises(RuntimeError):
        operator.physics.A(x)
    assert operator(x).shape == (3, 2, 4, 16, 12)
    assert isinstance(operator, LinearOperator)


# Bad input: one clear message


def one_message(caught, *parts):
    text = str(caught.value)
    assert text.count("expected:") == 1, text
    for part in parts:
        assert part in text, text


def test_a_misspelt_argument_is_refused():
    with pytest.raises(BadParameter) as caught:
        made(next(e for e in OPERATORS if e.name == "blur"), {"paddding": "circular"})
    one_message(caught, "paddding", "did you mean 'padding'?")
    tables = {"shape": [1, 8, 8], "operator": {"name": "deepinv/mri", "acceleratoin": 2}}
    with pytest.raises(BadParameter) as caught:
        Pipeline.from_dict(tables | {"noise": {"name": "none"}, "solver": {"name": "adjoint"}})
    one_message(caught, "acceleratoin", "did you mean 'acceleration'?")


@pytest.mark.parametrize(
    ("name", "values", "part"),
    [
        ("blur", {"padding": "symmetric"}, "'valid' or 'circular'"),
        ("blur", {"sigma": 0.0}, "sigma is 0.0"),
        ("blur", {"sigma": 9.0}, "deepinv 0"),  # the kernel is larger than the image
        ("blur", {"filter": [[1.0, 2.0], [1.0]]}, "rows of equal length"),
        ("inpainting", {"mask": 1.5}, "mask is 1.5"),
        ("downsampling", {"factor": 0}, "factor is 0"),
        ("compressed-sensing", {"m": 0}, "m is 0"),
        ("compressed-sensing", {}, "has no m"),
        ("single-pixel-camera", {"m": 1000}, "m is 1000"),
        ("tomography", {"angles": 0}, "angles is 0"),
        ("tomography", {"angles": 3, "fan_parameters": {"radius": 1.0}}, "fan_parameters has radius"),
        ("structured-random", {"n_layers": 0.7}, "n_layers is 0.7"),
        ("structured-random", {"output_size": [2, 5, 20]}, "output_size is (2, 5, 20)"),
        ("ptychography", {"n_img": 8}, "a square number"),
        ("mri", {"mask": "spiral"}, "'gaussian' or 'uniform'"),
        ("decolorize", {"srf": [0.5, 0.6, 0.7]}, "deepinv 0"),
    ],
)
def test_bad_values(name, values, part):
    with pytest.raises(BadParameter) as caught:
        made(next(e for e in OPERATORS if e.name == name), values)
    one_message(caught, part)


@pytest.mark.parametrize(
    ("make", "part"),
    [
        (lambda: mri.MRI((3, 8, 8), key=KEY), "complex images (2, H, W)"),
        (lambda: masks.Demosaicing((1, 8, 8)), "(3, H, W)"),
        (lambda: projections.Tomography((1, 8, 9), angles=3), "square images"),
        (lambda: blurs.Blur((8, 8)), "images (C, H, W)"),
    ],
)
def test_wrong_image_shape_in_the_constructor(make, part):
    with pytest.raises(ShapeMismatch) as caught:
        make()
    one_message(caught, part)


def test_wrong_image_shape_and_dtype_in_a_call():
    operator = blurs.Blur((1, 12, 12))
    with pytest.raises(ShapeMismatch) as caught:
        operator(torch.zeros(2, 1, 12, 11))
    one_message(caught, "(B, 1, 12, 12)")
    with pytest.raises(RuntimeError):  # deepinv's own answer to float64
        operator.physics.A(torch.zeros(1, 1, 12, 12, dtype=torch.float64))
    for call, shape in ((operator, (1, 1, 12, 12)), (operator.adjoint, (1, *operator.out_shape))):
        with pytest.raises(Incompatible) as caught:
            call(torch.zeros(shape, dtype=torch.float64))
        one_message(caught, "torch.float64", "operator.to(torch.float64)")
        with pytest.raises(Incompatible) as caught:
            call(torch.zeros(shape, dtype=torch.float16))
        one_message(caught, "torch.float16", "x.to(torch.float32)")
    assert operator.to(torch.float64)(torch.zeros(1, 1, 12, 12, dtype=torch.float64)).dtype == torch.float64


@pytest.mark.parametrize(
    ("name", "values", "package"),
    [
        ("multi-coil-mri", {"coil_maps": 4}, "sigpy"),
        ("non-cartesian-mri", {}, "mri-nufft"),
        ("radio-interferometry", {"samples": 5}, "torchkbnufft"),
        ("pet", {}, "parallelproj"),
        ("tomography-with-astra", {}, "astra-toolbox"),
    ],
)
def test_a_missing_package_is_named(name, values, package, monkeypatch):
    for module in ("sigpy", "sigpy.mri", "mrinufft", "torchkbnufft", "parallelproj", "astra"):
        monkeypatch.setitem(sys.modules, module, None)  # importing it raises ImportError, installed or not
    with pytest.raises(NotInstalled) as caught:
        made(next(e for e in OPERATORS if e.name == name), values)
    one_message(caught, package, "pip install")


def test_another_deepinv_is_named(monkeypatch):
    monkeypatch.setattr(_deepinv, "version", lambda: "0.7.1")
    monkeypatch.delattr(deepinv.physics, "Decolorize")
    with pytest.raises(BrokenPlugin) as caught:
        spectral.Decolorize((3, 4, 4))
    one_message(caught, "deepinv 0.7.1 has no deepinv.physics.Decolorize", "pip install 'deepinv>=0.5,<0.6'")

    class Blur(deepinv.physics.LinearPhysics):
        def __init__(self, kernel=None, **kwargs):
            super().__init__(**kwargs)

    monkeypatch.setattr(deepinv.physics, "Blur", Blur)
    with pytest.raises(BrokenPlugin) as caught:
        blurs.Blur((1, 12, 12))
    one_message(caught, "has no argument 'filter' in deepinv.physics.Blur", "deepinv>=0.5,<0.6")


def test_the_range_is_that_of_the_distribution():
    import tomllib

    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8"))["project"]
    assert f"deepinv{_deepinv.TESTED}" in project["dependencies"]
    assert _deepinv.is_tested(_deepinv.version())
    assert not _deepinv.is_tested("0.6.0")
