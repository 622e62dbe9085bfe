"""What this plugin offers."""

from preimage import Component, hookimpl


@hookimpl
def preimage_components() -> list[Component]:
    return [
        Component(
            "operator",
            "perona-malik",
            "preimage_perona_malik.operator:PeronaMalik",
            "Perona-Malik diffusion: nonlinear smoothing that keeps edges, Heun steps in time",
            shape=(2, 11, 13),
            examples=(
                {},
                {"steps": 1, "step_size": 0.25, "contrast": 1.0},
                {"steps": 3, "contrast": 0.3, "boundary": "circular"},
                {"discretisation": "four-neighbour"},
                {"steps": 2, "contrast": 0.5, "discretisation": "four-neighbour", "boundary": "circular"},
                {"channels": "coupled", "contrast": 0.2},
                {"channels": "coupled", "discretisation": "four-neighbour", "boundary": "circular", "steps": 2},
            ),
        )
    ]
