"""What this distribution offers. Imports no torch."""

from preimage import Command, Component, hookimpl


@hookimpl
def preimage_components() -> list[Component]:
    return [
        Component(
            "study",
            "inversion-convergence",
            "preimage_analysis.inversion_convergence:InversionConvergence",
            "does a learned inverse converge as noise vanishes and its Lipschitz bound is loosened?",
            examples=({}, {"schedule": [[0.1, 0.9], [0.01, 0.99]], "operators": ["perona-malik"]}),
        ),
        Component(
            "study",
            "reconstruction-against-bound",
            "preimage_analysis.reconstruction_against_bound:ReconstructionAgainstBound",
            "PSNR of learned inverses against their Lipschitz bound and the noise",
            examples=({}, {"bounds": [0.9, 0.99], "noise": [0.05]}),
        ),
        Component(
            "study",
            "operator-approximation",
            "preimage_analysis.operator_approximation:OperatorApproximation",
            "how close learned operators are to the true one, against noise and Lipschitz bound",
            examples=({}, {"bounds": [0.99], "noise": [0.01, 0.05]}),
        ),
        Component(
            "study",
            "learned-operators",
            "preimage_analysis.learned_operators:LearnedOperators",
            "pictures of learned operators: what they do to images, beside the true ones, and their inverses",
            examples=({}, {"show": ["camera", "coins"]}),
        ),
        Component(
            "study",
            "linear-generator",
            "preimage_analysis.linear_generator:LinearGenerator",
            "error of a linear generator's least-norm solution against the number of measurements, and its bounds",
            examples=({}, {"spectra": ["flat", {"spectrum": "step", "rank": 5}], "measurements": [4, 9], "size": 20}),
        ),
    ]


@hookimpl
def preimage_commands() -> list[Command]:
    return [Command("analyse", "preimage_analysis.commands:analyse", "Run a study by name: tables, figures, findings.")]
