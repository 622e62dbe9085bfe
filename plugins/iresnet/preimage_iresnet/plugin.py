"""What this distribution offers. Imports no torch."""

from preimage import Component, WeightsFile, hookimpl


@hookimpl
def preimage_components() -> list[Component]:
    return [
        Component(
            "prior",
            "iresnet",
            "preimage_iresnet.prior:InvertibleResNetPrior",
            "invertible residual network: an operator learned together with its stable inverse",
            shape=(2, 9, 12),
            examples=(
                {"weights": "gaussian-blur-0.025", "tolerance": 1e-9},
                {"weights": "perona-malik-0.025", "tolerance": 1e-9, "rule": "certified"},
            ),
        ),
        Component(
            "solver",
            "map-inverse",
            "preimage_iresnet.map_inverse:MapInverse",
            "inverse of a learned operator, with a bound on its error",
            examples=({}, {"rule": "certified"}, {"rule": "certified", "tolerance": 1e-9}),
        ),
        Component(
            "solver",
            "map-refinement",
            "preimage_iresnet.refinement:MapRefinement",
            "fits the data from the inverse of a learned operator on; any differentiable operator",
            examples=({}, {"tau": 0.0}, {"tau": 0.5, "inverse_tolerance": 1e-6}),
        ),
        Component(
            "trainer",
            "invertible-reconstruction",
            "preimage_iresnet.training:InvertibleReconstruction",
            "an invertible network whose inverse reconstructs",
            examples=({}, {"stacked": 1.0}, {"stacked": 0.0, "approximation": 0.3}),
        ),
        Component(
            "trainer",
            "invertible-approximation",
            "preimage_iresnet.training:InvertibleApproximation",
            "an invertible network that approximates an operator",
            examples=({}, {"noise": True}),
        ),
        Component(
            "prior",
            "iresnet-denoiser",
            "preimage_iresnet.averaged_denoiser:AveragedNetworkDenoiser",
            "denoiser that is an averaged operator, with a certificate: plug-and-play methods converge with it",
            shape=(2, 9, 12),
            examples=({}, {"contraction": 0.9}),
        ),
        Component(
            "trainer",
            "averaged-denoising",
            "preimage_iresnet.denoising:AveragedDenoising",
            "a denoiser of Gaussian noise of a range of strengths",
            examples=({}, {"sigma": (0.05, 0.05)}),
        ),
    ]


_TRAINED = {
    "perona-malik": [(noise, bound) for bound in ("0.999", "0.99", "0.95") for noise in ("0.01", "0.025", "0.05")],
    "gaussian-blur": [("0.01", "0.999"), ("0.025", "0.999"), ("0.05", "0.999"), ("0.025", "0.99"), ("0.05", "0.95")],
}


@hookimpl
def preimage_weights() -> list[WeightsFile]:
    # Of those for one operator and noise "auto" takes the first: the largest bound, which reconstructs best.
    named = {
        f"{operator}-{noise}" + ("" if bound == "0.999" else f"-L{bound}"): f"{operator}, noise {noise}, L = {bound}"
        for operator, trained in _TRAINED.items()
        for noise, bound in trained
    }
    return [
        WeightsFile(
            "prior/iresnet",
            name,
            f"preimage_iresnet:weights/{name}.safetensors",
            f"grey BSDS500 photographs (research use), {meant}",
        )
        for name, meant in named.items()
    ] + [
        WeightsFile(
            "prior/iresnet-denoiser",
            "denoiser",
            "preimage_iresnet:weights/denoiser.safetensors",
            "grey BSDS500 photographs (research use), t = 0.5, Gaussian noise 0.01 to 0.15",
        )
    ]
