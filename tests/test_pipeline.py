"""Pipelines: TOML and Python mean the same; noise belongs to an image, not to its place in a batch."""

import pickle

import pytest
import torch
from preimage_baselines import ADMM, FISTA, TotalVariation
from preimage_gaussian_blur import GaussianBlur

from preimage import Dataset, GaussianNoise, Identity, Key, Pipeline
from preimage.errors import Incompatible, PreimageError, SeveralProblems

TABLES = {
    "seed": 7,
    "shape": [1, 24, 24],
    "operator": {"name": "gaussian-blur", "size": 5, "sigma": 1.0},
    "noise": {"name": "gaussian", "sigma": 0.05},
    "prior": {"name": "tv", "weight": 0.02},
    "solver": {"name": "fista", "max_steps": 20},
}


@pytest.fixture
def images() -> torch.Tensor:
    return Key(0).uniform((3, 1, 24, 24))


def test_toml_and_python_mean_the_same(tmp_path, images):
    text = (
        'seed = 7\nshape = [1, 24, 24]\n[operator]\nname = "gaussian-blur"\nsize = 5\nsigma = 1\n'
        '[noise]\nname = "gaussian"\nsigma = 0.05\n[prior]\nname = "tv"\nweight = 0.02\n'
        '[solver]\nname = "fista"\nmax_steps = 20\n'
    )
    (tmp_path / "pipeline.toml").write_text(text)
    shape = (1, 24, 24)
    by_hand = Pipeline(
        operator=GaussianBlur(shape, size=5, sigma=1.0),
        noise=GaussianNoise(sigma=0.05),
        prior=TotalVariation(shape),
        weight=0.02,
        solver=FISTA(max_steps=20),
        key=Key(7),
    )
    results = []
    for pipeline in (Pipeline.from_file(tmp_path / "pipeline.toml"), Pipeline.from_dict(TABLES), by_hand):
        y = pipeline.simulate(images)
        results.append((y, pipeline.reconstruct(y).x))
    for y, x in results[1:]:
        assert torch.equal(y, results[0][0])
        assert torch.allclose(x, results[0][1], atol=1e-6)


def test_noise_belongs_to_the_image(images):
    pipeline = Pipeline.from_dict(TABLES)
    y = pipeline.simulate(images, ["a", "b", "c"])
    assert torch.equal(pipeline.simulate(images.flip(0), ["c", "b", "a"]).flip(0), y)
    assert torch.equal(pipeline.simulate(images[1:2], ["b"])[0], y[1])
    assert not torch.equal(Pipeline.from_dict(TABLES | {"seed": 8}).simulate(images, ["a", "b", "c"]), y)


def test_per_image_operators_belong_to_the_image(images):
    pipeline = Pipeline.from_dict(TABLES | {"operator": {"name": "inpainting-per-image", "keep": 0.5}})
    y = pipeline.simulate(images, ["a", "b", "c"])
    assert torch.equal(pipeline.simulate(images[2:], ["c"])[0], y[2])
    masks = pipeline.operator_for(["a", "b", "c"])(torch.ones_like(images))
    assert not torch.equal(masks[0], masks[1])
    assert 0.4 < float(masks.mean()) < 0.6
    together = pipeline.reconstruct(y, ["a", "b", "c"])
    alone = pipeline.reconstruct(y[2:], ["c"])
    assert torch.allclose(alone.x[0], together.x[2], atol=1e-5)


def test_pipelines_travel_to_other_processes(images):
    for operator in (TABLES["operator"], {"name": "inpainting-per-image"}):
        pipeline = Pipeline.from_dict(TABLES | {"operator": operator})
        again = pickle.loads(pickle.dumps(pipeline))
        assert torch.equal(again.simulate(images, ["a", "b", "c"]), pipeline.simulate(images, ["a", "b", "c"]))


def test_operators_that_do_not_compose_are_reported():
    row = [{"name": "compressive-sensing", "measurements": 100}, {"name": "gaussian-blur"}]
    with pytest.raises(PreimageError, match=r"mine\.toml: "):
        Pipeline.from_dict(TABLES | {"operator": row}, where="mine.toml")


def test_operators_in_a_row(images):
    tables = TABLES | {"operator": [{"name": "gaussian-blur", "size": 5}, {"name": "inpainting", "keep": 0.7}]}
    pipeline = Pipeline.from_dict(tables)
    assert isinstance(pipeline.operator, torch.nn.Module)
    y = pipeline.simulate(images)
    better = pipeline.reconstruct(y).x
    assert float((better - images).norm()) < float((y - images).norm())


def test_the_resolved_configuration_repeats_the_run(images):
    first = Pipeline.from_dict(TABLES)
    again = Pipeline.from_dict(first.config)
    assert again.config == first.config
    assert first.config["solver"]["step_size"] == "auto"
    y = first.simulate(images)
    result = first.reconstruct(y)
    assert torch.equal(again.reconstruct(again.simulate(images)).x, result.x)
    assert result.provenance["pipeline"] == first.config
    assert {"python", "torch", "preimage", "preimage-baselines", "preimage-gaussian-blur"} <= set(
        result.provenance["versions"]
    )


def test_overrides(images):
    changed = Pipeline.from_dict(TABLES, overrides={"solver.max_steps": 2, "operator.sigma": 2.0, "dtype": "float64"})
    assert changed.solver.max_steps == 2
    assert changed.config["operator"][0]["sigma"] == 2.0
    assert changed.simulate(images.double()).dtype == torch.float64
    rows = TABLES | {"operator": [TABLES["operator"], {"name": "identity"}]}
    assert Pipeline.from_dict(rows, overrides={"operator.0.sigma": 3.0}).config["operator"][0]["sigma"] == 3.0
    assert TABLES["solver"]["max_steps"] == 20  # type: ignore[index]


def test_a_dataset_gives_the_shape():
    class Two(Dataset):
        shape = (1, 16, 16)

        def __len__(self):
            return 2

        def __getitem__(self, index):
            return torch.full(self.shape, 0.5)

        def label(self, index):
            return str(index)

    pipeline = Pipeline.from_dict({k: v for k, v in TABLES.items() if k != "shape"}, data=Two())
    assert pipeline.operator_for(["0"]).in_shape == (1, 16, 16)


def test_everything_wrong_is_reported_at_once():
    wrong = {
        "seed": "seven",
        "sede": 7,
        "shape": [1, 24, 24],
        "operator": {"name": "gausian-blur"},
        "noise": {"name": "gaussian", "sigma": "loud", "level": 1},
        "prior": {"name": "tv", "weight": -1},
        "solver": {"max_steps": 10},
    }
    with pytest.raises(SeveralProblems) as caught:
        Pipeline.from_dict(wrong, where="mine.toml")
    message = str(caught.value)
    assert message.startswith("mine.toml: 7 problems")
    for part in (
        "'sede'",
        "'gausian-blur'",
        "did you mean 'gaussian-blur'",
        "'loud'",
        "'level'",
        "weight is -1",
        "no name",
        "seed",
    ):
        assert part in message, part


def test_what_does_not_fit_is_refused_with_what_would():
    with pytest.raises(Incompatible) as caught:
        Pipeline.from_dict(TABLES | {"operator": {"name": "perona-malik"}, "solver": {"name": "admm"}})
    message = str(caught.value)
    assert "LinearOperator, which solver 'admm' needs" in message
    assert "gaussian-blur" in message
    assert "solvers that take these operators: " in message
    assert "fista" in message.partition("solvers that take these operators")[2]
    with pytest.raises(Incompatible, match="no effect"):
        Pipeline.from_dict(TABLES | {"solver": {"name": "adjoint"}})
    with pytest.raises(Incompatible, match=r"there is no \[prior\]"):
        Pipeline.from_dict({k: v for k, v in TABLES.items() if k != "prior"} | {"solver": {"name": "admm"}})
    with pytest.raises(Incompatible, match="there is no prior"):
        Pipeline(operator=Identity((1, 8, 8)), noise=GaussianNoise(sigma=0.1), solver=ADMM())


def test_observers_by_name(images):
    pipeline = Pipeline.from_dict(TABLES | {"observer": [{"name": "trace"}]})
    pipeline.reconstruct(pipeline.simulate(images))
    (trace,) = pipeline.observers
    assert len(trace.objective) > 1  # type: ignore[attr-defined]
