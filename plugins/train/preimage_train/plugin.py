"""What this distribution offers. Imports no torch."""

from preimage import Command, Component, hookimpl


@hookimpl
def preimage_components() -> list[Component]:
    return [
        Component(
            "trainer",
            "reconstruction",
            "preimage_train.supervised:Reconstruction",
            "supervised: from the measurement to the image",
            examples=({}, {"distance": "absolute"}),
        ),
        Component(
            "trainer",
            "approximation",
            "preimage_train.supervised:Approximation",
            "from the image to its measurement: learning the operator",
            examples=({}, {"noise": True}),
        ),
        Component(
            "trainer",
            "likelihood",
            "preimage_train.likelihood:Likelihood",
            "maximum likelihood of a flow, dequantised",
            examples=({}, {"levels": 32}),
        ),
        Component(
            "trainer",
            "adversarial",
            "preimage_train.adversarial:Adversarial",
            "a generator against a discriminator",
            examples=({}, {"discriminator_rate": 0.5, "search": 20}),
        ),
    ]


@hookimpl
def preimage_commands() -> list[Command]:
    return [Command("train", "preimage_train.commands:train", "Train a network as a recipe says; export its weights.")]
