"""What this distribution offers. Imports no torch."""

from preimage import Component, WeightsFile, hookimpl

_TRAINED = ({"weights": "gaussian-blur-0.025", "allow_mismatch": True},)


@hookimpl
def preimage_components() -> list[Component]:
    return [
        Component(
            "solver",
            "convresnet",
            "preimage_networks.reconstruction:ConvResNetSolver",
            "residual network at full resolution, trained for the operator",
            examples=_TRAINED,
        ),
        Component(
            "solver",
            "unet",
            "preimage_networks.reconstruction:UNetSolver",
            "U-Net, trained for the operator",
            examples=_TRAINED,
        ),
        Component(
            "solver",
            "diffnet",
            "preimage_networks.reconstruction:DiffNetSolver",
            "diffusion with learned stencils, trained for the operator",
            examples=_TRAINED,
        ),
        Component(
            "solver",
            "deep-decoder",
            "preimage_networks.deep_decoder:DeepDecoder",
            "untrained: a small decoder network fitted to each image; any operator, linear or not",
            examples=(
                {"max_steps": 6},
                {"max_steps": 6, "channels": 5, "layers": 0, "averaging": 0.5},
                {"max_steps": 12, "channels": 4, "stopping": "variance", "window": 2, "patience": 2},
                {"max_steps": 40, "stopping": "discrepancy", "tau": 10.0},
            ),
        ),
        Component(
            "solver",
            "deep-image-prior",
            "preimage_networks.deep_image_prior:DeepImagePrior",
            "untrained: a convolutional network fitted to each image, stopped early; any operator, linear or not",
            examples=(
                {"max_steps": 4, "channels": 4},
                {"max_steps": 4, "channels": 3, "skip_channels": 0, "averaging": 0.0, "input_noise": 0.0},
                {"max_steps": 8, "channels": 4, "stopping": "variance", "window": 2, "patience": 2},
                {"max_steps": 4, "channels": 4, "stopping": "none", "scales": 1, "input_channels": 1},
            ),
        ),
        Component(
            "prior",
            "dcgan",
            "preimage_networks.dcgan:DCGAN",
            "generative adversarial network of 64 x 64 images",
            shape=(3, 64, 64),
        ),
    ]


@hookimpl
def preimage_weights() -> list[WeightsFile]:
    operators = ("perona-malik", "gaussian-blur")
    trained = [(network, o, "0.025") for network in ("convresnet", "unet", "diffnet") for o in operators]
    trained += [("diffnet", operator, noise) for operator in operators for noise in ("0.01", "0.05")]
    files = [
        WeightsFile(
            f"solver/{network}",
            f"{operator}-{noise}",
            f"preimage_networks:weights/{network}-{operator}-{noise}.safetensors",
            f"grey BSDS500 photographs (research use), {operator}, noise {noise}",
        )
        for network, operator, noise in trained
    ]
    faces = "CelebA and FFHQ faces (research use), 64 x 64"
    return [*files, WeightsFile("prior/dcgan", "faces", "preimage_networks:weights/dcgan-faces.safetensors", faces)]
