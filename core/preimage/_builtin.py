"""What core itself offers, through the same hooks as any plugin."""

from ._plugins import Component, hookimpl


@hookimpl
def preimage_components() -> list[Component]:
    return [
        Component("operator", "identity", "preimage._operator:Identity", "F(x) = x: denoising"),
        Component(
            "noise",
            "gaussian",
            "preimage._noise:GaussianNoise",
            "white Gaussian noise of a given level",
            examples=({"sigma": 0.1},),
        ),
        Component(
            "noise", "poisson", "preimage._noise:PoissonNoise", "photon counting noise", examples=({"peak": 50.0},)
        ),
        Component("noise", "none", "preimage._noise:NoNoise", "exact measurements, least-squares misfit"),
        Component("observer", "trace", "preimage._observers:Trace", "records the objective and the time at every step"),
    ]
