"""Which methods run on a nonlinear operator as they come: five of deepinv's, and all of ours, on Perona-Malik.

deepinv gets the operator as its documentation asks for it, a Physics with A, and each method the arguments of its own
examples, with no start given by hand; ours are assembled by name. A method runs if it returns finite images of the
right shape. Counted, not timed.
"""

import warnings

import deepinv
import torch
from preimage_compare import load_suite
from preimage_data import Photographs
from preimage_perona_malik import PeronaMalik

from preimage import GaussianNoise, Key, Pipeline, Status
from preimage.errors import PreimageError

SHAPE, SIGMA = (1, 32, 32), 0.025


class Diffusion(deepinv.physics.Physics):
    def __init__(self):
        super().__init__(noise_model=deepinv.physics.GaussianNoise(SIGMA))
        self.operator = PeronaMalik(SHAPE)

    def A(self, x, **_):  # noqa: N802 (deepinv's name)
        return self.operator(x)


def peers():
    """Five kinds of method: proximal gradient, splitting, plug-and-play, untrained and trained network."""
    fidelity, steps = deepinv.optim.L2(), {"max_iter": 20}
    median = deepinv.models.MedianFilter()
    shape = (16, 4, 4)
    decoder = deepinv.models.ConvDecoder(img_size=SHAPE, in_size=(4, 4), channels=16)
    network = deepinv.models.UNet(1, 1, scales=2, batch_norm=False)
    return {
        "PGD with TV": deepinv.optim.PGD(fidelity, deepinv.optim.TVPrior(n_it_max=20), lambda_reg=1e-2, **steps),
        "ADMM with TV": deepinv.optim.ADMM(fidelity, deepinv.optim.TVPrior(n_it_max=20), lambda_reg=1e-2, **steps),
        "HQS plug-and-play": deepinv.optim.HQS(fidelity, deepinv.optim.PnP(median), g_param=0.05, **steps),
        "deep image prior": deepinv.models.DeepImagePrior(decoder, img_size=shape, iterations=20),
        "U-Net": deepinv.models.ArtifactRemoval(network),
    }


def runs(method, y) -> str:
    """Empty if it does, else the error."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            estimate = method(y, Diffusion())
        sound = estimate.shape == y.shape and bool(torch.isfinite(estimate).all())
        return "" if sound else f"shape {tuple(estimate.shape)} or not finite"
    except Exception as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0]}"


def test_methods_that_run_on_perona_malik_as_they_come(capsys):
    truth = torch.stack([Photographs(size=32, count=1)[0]])
    y = GaussianNoise(sigma=SIGMA).sample(PeronaMalik(SHAPE)(truth), Key(0))
    theirs = {name: runs(method, y) for name, method in peers().items()}
    suite, ours = load_suite("cross"), {}
    for method in suite.methods:
        tables = suite.method(method.label).tables_for("photographs", "diffusion", "0.025")
        whole = {**tables, "shape": list(SHAPE), "operator": {"name": "perona-malik"}}
        try:
            pipeline = Pipeline.from_dict(whole | {"noise": {"name": "gaussian", "sigma": SIGMA}})
        except PreimageError:
            continue
        result = pipeline.reconstruct(y, throw=False)
        assert Status.DIVERGED not in result.status, (method.label, result.reasons)
        ours[method.label] = result
    with capsys.disabled():
        print(f"\ndeepinv {deepinv.__version__}: {sum(not why for why in theirs.values())} of {len(theirs)} run")
        for name, why in theirs.items():
            print(f"  {name:20} {why or 'runs'}")
        print(f"preimage: {len(ours)} of {len(suite.methods)} methods run: {', '.join(ours)}")
    assert len(ours) >= 12
    assert sum(not why for why in theirs.values()) <= 1
