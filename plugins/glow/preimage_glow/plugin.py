"""What this distribution offers. Imports no torch."""

from preimage import Component, WeightsFile, hookimpl


@hookimpl
def preimage_components() -> list[Component]:
    return [
        Component(
            "prior",
            "glow",
            "preimage_glow.prior:GlowPrior",
            "flow trained on images: generative, invertible, with a density; no representation error",
            shape=(3, 8, 16),
            examples=({}, {"weights": "natural", "gradient": "reversible"}),
        ),
        Component(
            "prior",
            "glow-ensemble",
            "preimage_glow.glow_ensemble:GlowEnsemble",
            "several trained flows, each as probable: for averages over networks",
            shape=(3, 8, 8),
            examples=({"weights": ("faces", "natural")},),
        ),
        Component(
            "prior",
            "linear-gaussian",
            "preimage_glow.linear_gaussian:LinearGaussian",
            "linear generator of given singular values: density, denoiser and posterior in closed form",
            shape=(2, 5, 4),
            examples=(
                {},
                {"spectrum": "step", "rank": 7, "basis": "dct", "mean": 0.5, "scale": 0.3},
                {"spectrum": "inverse-square", "basis": "random", "seed": 1},
                {"spectrum": "flat", "scale": 2.0},
            ),
        ),
        Component(
            "solver",
            "latent-map",
            "preimage_glow.latent_map:LatentMap",
            "searches the latent space of any generative prior; any operator, linear or not",
            examples=(
                {"max_evaluations": 15},
                {"penalty": "log-density", "start": "pseudo-inverse", "memory": 5, "max_evaluations": 12},
                {"penalty": "norm", "start": "random", "start_scale": 0.5, "max_evaluations": 8},
                {"penalty": "none", "start": "noise-filled", "tau": 1.0, "project": True},
                {"optimiser": "adam", "start": "fixed-norm", "max_steps": 8, "images_at_once": 2},
                {"mirror": True, "starts": 2, "start": "random", "max_evaluations": 5},
            ),
        ),
        Component(
            "solver",
            "latent-sampling",
            "preimage_glow.latent_sampling:LatentSampling",
            "posterior mean and deviation by Hamiltonian Monte Carlo in the latent space of any generator",
            examples=(
                {"warmup": 3, "draws": 4, "leapfrog_steps": 2, "rank": 3, "chains": 2, "search_evaluations": 8},
                {"warmup": 0, "draws": 8, "leapfrog_steps": 1, "start": "random", "search_evaluations": 0},
            ),
        ),
    ]


_TRAINED = {
    "faces": "faces of CelebA and FFHQ, 64 x 64 colour (research use, not for commerce)",
    "natural": "photographs of BSDS500, 64 x 64 colour crops (research use)",
}


@hookimpl
def preimage_weights() -> list[WeightsFile]:
    return [
        WeightsFile("prior/glow", name, f"preimage_glow:weights/{name}.safetensors", meant)
        for name, meant in _TRAINED.items()
    ]
