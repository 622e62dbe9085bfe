"""What this distribution offers; imports no torch."""

from preimage import Component, hookimpl


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
            "admm",
            "preimage_baselines.admm:ADMM",
            "alternating direction method of multipliers, for linear operators and splittable priors",
            examples=({}, {"penalty": 0.1}, {"relaxation": 1.0}, {"tolerance": 1e-2}),
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
    ]
