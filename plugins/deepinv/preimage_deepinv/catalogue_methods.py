"""Which denoisers and algorithms of deepinv are offered, under which name, and which are not, and why. Data only:
imports neither torch nor deepinv.

The tests compare it with deepinv: a class of deepinv that is in neither list of its kind fails them.
"""

from .catalogue import Entry

_UNTRAINED = {"weights": "untrained"}

PRIORS = (
    Entry(
        "TVDenoiser",
        "tv",
        "total_variation:TotalVariation",
        "isotropic total variation",
        shape=(1, 3, 4),
        examples=({"crit": 1e-7, "tau": 0.2, "rho": 1.5},),
    ),
    Entry(
        "TVL1Denoiser",
        "tv-anisotropic",
        "total_variation:AnisotropicTotalVariation",
        "anisotropic total variation",
        shape=(1, 3, 4),
        examples=({"crit": 1e-7, "tau": 0.2, "rho": 1.5},),
    ),
    Entry(
        "TGVDenoiser",
        "tgv",
        "filters:TotalGeneralizedVariation",
        "total generalised variation of second order, as a denoiser",
        shape=(1, 6, 7),
        examples=({"n_it_max": 50}, {"scale": 0.5, "n_it_max": 20, "crit": 1e-4}),
    ),
    Entry(
        "WaveletDenoiser",
        "wavelet",
        "filters:Wavelet",
        "thresholding in a wavelet basis (needs ptwt)",
        shape=(2, 16, 20),
        examples=({"wv": "db2", "level": 2}, {"wv": "sym4", "level": 1, "non_linearity": "hard", "mode": "periodic"}),
        needs="ptwt",
    ),
    Entry(
        "WaveletDictDenoiser",
        "wavelet-dictionary",
        "filters:WaveletDictionary",
        "thresholding in several wavelet bases at once (needs ptwt)",
        shape=(1, 16, 20),
        examples=({"list_wv": ["db2", "haar"], "level": 2, "scale": 2.0},),
        needs="ptwt",
    ),
    Entry(
        "BM3D",
        "bm3d",
        "filters:BM3D",
        "block matching and 3-D filtering (needs bm3d; for non-commercial use)",
        shape=(1, 12, 12),
        needs="bm3d",
    ),
    Entry(
        "MedianFilter",
        "median",
        "filters:Median",
        "median of a window",
        shape=(2, 9, 12),
        examples=({}, {"kernel_size": 5}),
    ),
    Entry(
        "BilateralFilter",
        "bilateral",
        "filters:Bilateral",
        "means weighted by nearness in space and value",
        shape=(2, 9, 12),
        examples=({}, {"sigma_r": 0.2, "sigma_d": 2.0, "window_size": 3}),
    ),
    Entry(
        "DnCNN",
        "dncnn",
        "networks:DnCNN",
        "residual convolutional network for one noise level",
        shape=(2, 9, 12),
        examples=({**_UNTRAINED, "depth": 3, "nf": 4}, {**_UNTRAINED, "depth": 2, "nf": 4, "bias": False}),
    ),
    Entry(
        "DRUNet",
        "drunet",
        "networks:DRUNet",
        "U-Net for every noise level, the denoiser of DPIR",
        shape=(1, 9, 12),
        examples=({**_UNTRAINED, "nc": [4, 8, 8, 8], "nb": 1},),
    ),
    Entry(
        "GSPnP",
        "gsdrunet",
        "networks:GSDRUNet",
        "gradient step on a learned energy, for convergent plug-and-play",
        shape=(1, 9, 12),
        examples=({**_UNTRAINED, "nc": [4, 8, 8, 8], "nb": 1, "alpha": 0.5},),
    ),
    Entry(
        "FFDNet",
        "ffdnet",
        "networks:FFDNet",
        "fast convolutional network for every noise level",
        shape=(1, 8, 12),
        examples=({**_UNTRAINED, "n_conv_layers": 3, "nf": 4},),
    ),
    Entry(
        "SCUNet",
        "scunet",
        "networks:SCUNet",
        "Swin transformer and convolutions, for real noise of unknown level",
        shape=(1, 8, 8),
        examples=({**_UNTRAINED, "config": [1, 1, 1, 1, 1, 1, 1]},),
    ),
    Entry(
        "DScCP",
        "dsccp",
        "networks:DScCP",
        "unfolded primal-dual iteration, for colour images",
        shape=(3, 9, 12),
        examples=({**_UNTRAINED, "depth": 2, "n_channels_per_layer": 4},),
    ),
    Entry(
        "EPLLDenoiser",
        "epll",
        "networks:EPLL",
        "Gaussian mixture of patches, expected patch log likelihood",
        shape=(1, 9, 12),
        examples=({**_UNTRAINED, "n_components": 3, "patch_size": 3},),
    ),
    Entry(
        "UNet",
        "unet",
        "networks:UNet",
        "U-Net with weights of your own",
        shape=(1, 8, 12),
        examples=({**_UNTRAINED, "scales": 2, "batch_norm": False},),
    ),
    Entry(
        "Restormer",
        "restormer",
        "networks_large:Restormer",
        "transformer for noise of unknown level",
        shape=(1, 9, 12),
        examples=(
            {
                **_UNTRAINED,
                "dim": 8,
                "num_blocks": [1, 1, 1, 1],
                "num_refinement_blocks": 1,
                "heads": [1, 1, 1, 1],
            },
        ),
    ),
    Entry(
        "SwinIR",
        "swinir",
        "networks_large:SwinIR",
        "Swin transformer for one noise level",
        shape=(1, 9, 12),
        examples=({**_UNTRAINED, "img_size": 16, "embed_dim": 8, "depths": [1], "num_heads": [2], "window_size": 4},),
    ),
    Entry(
        "NCSNpp",
        "ncsnpp",
        "networks_large:NCSNpp",
        "score network of diffusion models, for every noise level",
        shape=(1, 16, 16),
        examples=(
            {
                **_UNTRAINED,
                "img_resolution": 16,
                "model_channels": 32,
                "channel_mult": [1, 1],
                "num_blocks": 1,
                "attn_resolutions": [],
            },
        ),
    ),
    Entry(
        "ADMUNet",
        "admunet",
        "networks_large:ADMUNet",
        "U-Net of diffusion models, for every noise level, with weights of your own",
        shape=(1, 16, 16),
        examples=(
            {
                **_UNTRAINED,
                "img_resolution": 16,
                "model_channels": 32,
                "channel_mult": [1, 1],
                "num_blocks": 1,
                "attn_resolutions": [8],
            },
        ),
    ),
)
"""The denoisers of deepinv.models that are offered as priors."""

NO_PRIOR = {
    "AnscombeDenoiser": "a wrapper around another denoiser: from_denoiser(AnscombeDenoiser(...), shape)",
    "AutoEncoder": "fully connected, for one image size, no weights: from_denoiser",
    "Client": "sends images to a server on the internet",
    "ComplexDenoiserWrapper": "a wrapper around another denoiser: from_denoiser",
    "Denoiser": "the abstract base class",
    "DiffUNet": "one fixed network of 93.6 million parameters or more: from_denoiser",
    "DiffusersDenoiserWrapper": "downloads its model when it is made, and takes no file",
    "EDMPrecond": "a wrapper around a network: from_denoiser",
    "EquivariantDenoiser": "a wrapper around another denoiser: from_denoiser",
    "MMSE": "needs a set of clean images as a Python object: from_denoiser",
    "MPRNet": "restores blur, rain or noise, no published weights: solver/deepinv/reconstructor",
    "Poisson2Sparse": "trains itself on each image: from_denoiser",
    "PromptIR": "restores several degradations, for non-commercial use: solver/deepinv/reconstructor",
    "RAM": "needs the operator: solver/deepinv/reconstructor",
    "ScoreModelWrapper": "a wrapper around a network: from_denoiser",
}
"""The denoisers of deepinv.models that have no name of their own, and why; `from_denoiser` takes Python objects."""

SOLVERS = (
    Entry(
        "PGD",
        "pgd",
        "optimisers:PGD",
        "deepinv's proximal gradient descent",
        examples=({}, {"stepsize": 0.5, "early_stop": True, "max_steps": 30}, {"anderson_acceleration": True}),
    ),
    Entry(
        "FISTA",
        "fista",
        "optimisers:FISTA",
        "deepinv's accelerated proximal gradient descent",
        examples=({}, {"a": 4.0, "sigma_denoiser": 0.1, "max_steps": 20}),
    ),
    Entry(
        "ADMM",
        "admm",
        "optimisers:ADMM",
        "deepinv's alternating direction method of multipliers",
        examples=({"max_steps": 20}, {"beta": 0.5, "stepsize": 0.3, "g_first": True, "max_steps": 20}),
    ),
    Entry(
        "DRS",
        "drs",
        "optimisers:DRS",
        "deepinv's Douglas-Rachford splitting",
        examples=({"max_steps": 20}, {"beta": 0.5, "stepsize": 0.3, "max_steps": 20}),
    ),
    Entry(
        "HQS",
        "hqs",
        "optimisers:HQS",
        "deepinv's half quadratic splitting with a fixed step",
        examples=({"max_steps": 20}, {"g_first": True, "stepsize": 2.0, "max_steps": 20}),
    ),
    Entry(
        "PDCP",
        "pdcp",
        "optimisers:PDCP",
        "deepinv's primal-dual algorithm of Chambolle and Pock",
        examples=({"max_steps": 20}, {"stepsize": 0.5, "stepsize_dual": 2.0, "max_steps": 20}),
    ),
    Entry(
        "DPIR",
        "dpir",
        "optimisers:DPIR",
        "deepinv's DPIR: eight steps of half quadratic splitting with any denoiser",
        examples=({}, {"sigma": 0.1}),
    ),
    Entry(
        "BaseOptim",
        "reconstructor",
        "reconstructor:NamedReconstructor",
        "any reconstructor of deepinv, by where it is",
        examples=({"target": "deepinv.models:SRResNet", "arguments": {"im_c": 1, "upscale": 1, "num_blocks": 1}},),
    ),
)
"""The algorithms of deepinv.optim that are offered as solvers."""

NO_SOLVER = {
    "BSREM": "for emission tomography with subsets of the data, which it needs as objects",
    "BlindRL": "estimates the blur too, which no solver here can give back",
    "GD": "gradient descent on misfit and prior: solver/gradient-descent of preimage-baselines has safe steps",
    "MD": "needs a Bregman potential as an object: ReconstructorSolver",
    "MLEM": "for photon counts: solver/richardson-lucy of preimage-baselines is the same iteration",
    "OSEM": "for emission tomography with subsets of the data, which it needs as objects",
    "PMD": "needs a Bregman potential as an object: ReconstructorSolver",
    "SIRT": "scaled Landweber: solver/landweber of preimage-baselines stops by the discrepancy",
}
"""The algorithms of deepinv.optim without a name of their own, and why; `ReconstructorSolver` takes Python objects."""

FUNCTIONS = {
    "ReconstructorSolver": "reconstructor",
    "WrappedDenoiser": "denoiser",
    "as_denoiser": "to_prior",
    "as_metric": "to_metric",
    "as_physics": "to_physics",
    "as_prior": "to_prior",
    "as_reconstructor": "to_reconstructor",
    "checked": "reconstructor",
    "from_denoiser": "denoiser",
}
"""What the package also offers to Python: name -> module."""
