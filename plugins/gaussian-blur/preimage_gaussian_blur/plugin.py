"""What this plugin offers."""

from preimage import Component, hookimpl


@hookimpl
def preimage_components() -> list[Component]:
    return [
        Component(
            "operator",
            "gaussian-blur",
            "preimage_gaussian_blur.operator:GaussianBlur",
            "convolution with a sampled Gaussian, five boundaries",
            shape=(2, 17, 14),
            examples=(
                {},
                {"boundary": "zero"},
                {"boundary": "circular"},
                {"boundary": "mirror"},
                {"boundary": "replicate"},
                {"size": 5, "sigma": 0.8, "boundary": "mirror"},
                {"size": 31, "sigma": 4.0, "boundary": "replicate"},
                {"size": 1},
            ),
        )
    ]
