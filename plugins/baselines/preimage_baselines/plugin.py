"""What this distribution offers; imports no torch."""

from pathlib import Path

from preimage import Command, Component, WeightsFile, hookimpl


@hookimpl
def preimage_components() -> list[Component]:
    return [
        Component(
            "solver",
            "adjoint",
            "preimage_baselines.adjoint:AdjointSolver",
            "back-projection A^T y, optionally scaled to fit the measurement",
            examples=({}, {"scaled": True}),
        ),
        Component(
            "solver",
            "conjugate-gradients",
            "preimage_baselines.conjugate_gradients:ConjugateGradients",
            "conjugate gradients on the normal equations, for least squares and quadratic priors",
            examples=({}, {"max_steps": 5}, {"tolerance": 1e-3}),
        ),
        Component(
            "solver",
            "fista",
            "preimage_baselines.fista:FISTA",
            "accelerated proximal gradient, monotone, for any operator, linear or not",
            examples=({}, {"step_size": 0.9}, {"restart": False, "max_steps": 200}, {"tolerance": 1e-3}),
        ),
        Component(
            "solver",
            "ista",
            "preimage_baselines.ista:ISTA",
            "proximal gradient without momentum, for any operator, linear or not",
            examples=({}, {"step_size": 0.9, "backtracking": False}, {"tolerance": 1e-3, "max_steps": 200}),
        ),
        Component(
            "solver",
            "primal-dual",
            "preimage_baselines.primal_dual:PrimalDual",
            "primal-dual splitting (Chambolle-Pock, Condat-Vu), for linear operators and splittable priors",
            examples=(
                {},
                {"data_step": "conjugate"},
                {"data_step": "gradient"},
                {"data_step": "gradient", "step_size": 0.5, "relaxation": 1.0},
                {"dual_step_size": 0.5, "tolerance": 1e-4},
            ),
        ),
        Component(
            "solver",
            "admm",
            "preimage_baselines.admm:ADMM",
            "alternating direction method of multipliers, for linear operators and splittable priors",
            examples=({}, {"penalty": 0.1}, {"relaxation": 1.0}, {"tolerance": 1e-2}),
        ),
        Component(
            "solver",
            "landweber",
            "preimage_baselines.landweber:Landweber",
            "gradient descent on the misfit, stopped by the discrepancy principle; any operator, linear or not",
            examples=({}, {"step_size": 0.9, "tau": 1.5}, {"box": [0.0, 1.0]}, {"max_steps": 20}),
        ),
        Component(
            "solver",
            "lsqr",
            "preimage_baselines.lsqr:LSQR",
            "least squares by bidiagonalisation, damped or stopped early",
            examples=({}, {"damping": 0.1, "tau": 2.0}, {"atol": 1e-3}, {"max_steps": 8, "conlim": 1e4}),
        ),
        Component(
            "solver",
            "richardson-lucy",
            "preimage_baselines.richardson_lucy:RichardsonLucy",
            "maximum likelihood for photon counts by multiplicative updates",
            examples=({"clip_negative": True}, {"clip_negative": True, "tau": 1.5, "max_steps": 30}),
        ),
        Component(
            "solver",
            "pnp-pgd",
            "preimage_baselines.plug_and_play:PnPProximalGradient",
            "plug-and-play proximal gradient: any denoiser, any operator, linear or not",
            examples=({}, {"sigma": 0.1}, {"step_size": 0.8, "tolerance": 1e-3}, {"acceleration": False}),
        ),
        Component(
            "solver",
            "pnp-admm",
            "preimage_baselines.pnp_admm:PnPADMM",
            "plug-and-play ADMM: any denoiser, linear operators",
            examples=({}, {"sigma": 0.2}, {"growth": 1.05, "tolerance": 1e-2}),
        ),
        Component(
            "solver",
            "hqs",
            "preimage_baselines.half_quadratic_splitting:HalfQuadraticSplitting",
            "half quadratic splitting with a denoiser of decreasing strength (DPIR), linear operators",
            examples=({}, {"levels": 3, "sigma_last": 0.02}, {"regularisation": 0.23}),
        ),
        Component(
            "solver",
            "red",
            "preimage_baselines.red:RED",
            "regularisation by denoising: any denoiser, any operator, linear or not",
            examples=({}, {"method": "gradient", "sigma": 0.1}, {"method": "fixed-point"}),
        ),
        Component(
            "prior",
            "tikhonov",
            "preimage_baselines.tikhonov:Tikhonov",
            "half the squared norm of the image or of its gradient",
            shape=(2, 9, 12),
            examples=({}, {"kind": "identity"}, {"kind": "gradient"}),
        ),
        Component(
            "prior",
            "tv",
            "preimage_baselines.total_variation:TotalVariation",
            "total variation, isotropic or anisotropic",
            shape=(2, 9, 12),
            examples=(
                {},
                {"variant": "isotropic"},
                {"variant": "anisotropic"},
                {"coupled": True},
                {"variant": "anisotropic", "coupled": True},
            ),
        ),
        Component(
            "prior",
            "smoothed-tv",
            "preimage_baselines.smoothed_total_variation:SmoothedTotalVariation",
            "total variation with a gradient: sqrt(|K x|^2 + epsilon^2) - epsilon",
            shape=(2, 9, 12),
            examples=({}, {"epsilon": 0.001}, {"epsilon": 0.3, "coupled": True}),
        ),
        Component(
            "prior",
            "tgv",
            "preimage_baselines.tgv:TotalGeneralizedVariation",
            "total generalised variation of second order: piecewise linear images",
            shape=(2, 3, 4),
            # The laws compare values to a millionth.
            examples=({"coupled": True, "tolerance": 1e-6},),
        ),
        Component(
            "prior",
            "wavelet-l1",
            "preimage_baselines.wavelets:WaveletSparsity",
            "l1 norm of the coefficients in an orthonormal wavelet basis",
            shape=(3, 8, 12),
            examples=(
                {},
                {"wavelet": "db3", "levels": 1},
                {"wavelet": "sym4", "penalise_approximation": False},
                {"wavelet": "coif1", "colour": "opponent", "chroma": 3.0},
            ),
        ),
        Component(
            "prior",
            "dct-l1",
            "preimage_baselines.cosines:CosineSparsity",
            "l1 norm of the cosine coefficients, weighted by frequency or not",
            shape=(3, 8, 11),
            examples=(
                {},
                {"exponent": 1.0},
                {"colour": "opponent"},
                {"colour": "opponent", "exponent": 0.5, "chroma": 3.0},
            ),
        ),
        Component(
            "prior",
            "box",
            "preimage_baselines.constraints:Box",
            "constraint lower <= x <= upper; adds to other priors",
            shape=(2, 5, 6),
            examples=({}, {"lower": -1.0, "upper": 2.0}),
        ),
        Component(
            "prior",
            "non-negative",
            "preimage_baselines.constraints:NonNegative",
            "constraint x >= 0; adds to other priors",
            shape=(2, 5, 6),
        ),
        Component(
            "solver",
            "gradient-descent",
            "preimage_baselines.gradient_descent:GradientDescent",
            "gradient descent with Barzilai-Borwein steps, for any operator and noise and differentiable priors",
            examples=({}, {"step_size": 0.5}, {"tolerance": 1e-6}),
        ),
        Component(
            "solver",
            "l-bfgs",
            "preimage_baselines.lbfgs:LBFGS",
            "limited-memory BFGS, for any operator and noise and differentiable priors",
            examples=({}, {"memory": 1}, {"tolerance": 1e-6}),
        ),
        Component(
            "solver",
            "gauss-newton",
            "preimage_baselines.gauss_newton:GaussNewton",
            "inexact Gauss-Newton with a line search, for any operator, least squares and differentiable priors",
            examples=({}, {"forcing": 0.0}, {"max_inner_steps": 1}, {"tolerance": 1e-8}),
        ),
        Component(
            "solver",
            "levenberg-marquardt",
            "preimage_baselines.levenberg_marquardt:LevenbergMarquardt",
            "Gauss-Newton with damping, for any operator, least squares and differentiable priors",
            examples=({}, {"damping": 10.0}, {"tolerance": 1e-8}),
        ),
        Component(
            "solver",
            "irgnm",
            "preimage_baselines.irgnm:IRGNM",
            "iteratively regularised Gauss-Newton, stopped by the discrepancy principle",
            examples=({}, {"initial": 0.1, "ratio": 0.8}, {"tau": 2.0}),
        ),
        Component(
            "solver",
            "lasso",
            "preimage_baselines.lasso:Lasso",
            "exact l1 solutions with a duality gap as certificate, for linear operators and dct-l1 or wavelet-l1",
            examples=({}, {"penalty": 0.1}, {"tolerance": 1e-3}),
        ),
        Component(
            "solver",
            "gaussian-posterior",
            "preimage_baselines.gaussian_posterior:GaussianPosterior",
            "posterior mean and pixelwise variance under a Gaussian prior: the Wiener filter of any linear operator",
            examples=({}, {"variance": True, "samples": 4}, {"method": "iterative", "tolerance": 1e-8}),
        ),
        Component(
            "solver",
            "denoise",
            "preimage_baselines.bm3d_denoise:Denoise",
            "the denoiser, applied to the measurement",
            examples=({}, {"clip": True}),
        ),
        Component(
            "prior",
            "gaussian-spectrum",
            "preimage_baselines.gaussian_spectrum:GaussianSpectrum",
            "Gaussian fitted to images: stationary colour spectrum, mean, principal components",
            shape=(3, 9, 12),
            examples=({}, {"weights": "natural"}, {"weights": "faces"}),
        ),
        Component(
            "prior",
            "bm3d",
            "preimage_baselines.bm3d:BM3D",
            "block matching and 3-D filtering (for non-commercial use)",
            shape=(3, 16, 20),
            examples=({"exact_variances": False}, {"stages": 1, "exact_variances": False}),
        ),
    ]


@hookimpl
def preimage_commands() -> list[Command]:
    return [Command("fit", "preimage_baselines.fit:fit", "Estimate the parameters of a prior from a folder of images.")]


@hookimpl
def preimage_weights() -> list[WeightsFile]:
    prior, folder = "prior/gaussian-spectrum", "preimage_baselines:weights"
    return [
        WeightsFile(
            prior,
            "natural",
            f"{folder}/gaussian-spectrum-natural.safetensors",
            "photographs, 64 x 64 colour (Berkeley Segmentation Data Set, training images; research use)",
        ),
        WeightsFile(
            prior,
            "faces",
            f"{folder}/gaussian-spectrum-faces.safetensors",
            "aligned faces, 64 x 64 colour (CelebA, training images; non-commercial research use)",
        ),
    ]


@hookimpl
def preimage_presets() -> list[str]:
    """One file for each method, written by `preimage tune`."""
    folder = Path(__file__).parent / "presets"
    return [f"preimage_baselines:presets/{path.name}" for path in sorted(folder.glob("*.toml"))]
