"""What this distribution offers."""

from preimage import Component, hookimpl


@hookimpl
def preimage_components() -> list[Component]:
    return [
        Component(
            "operator",
            "compressive-sensing",
            "preimage_compressive_sensing._operator:CompressiveSensing",
            "m random measurements of the whole image: Gaussian matrix, or subsampled cosine or Hadamard transform",
            shape=(3, 8, 12),
            examples=(
                {"measurements": 50},
                {"measurements": 96, "ensemble": "gaussian"},
                {"measurements": 120, "ensemble": "dct"},
                {"measurements": 288, "ensemble": "dct"},
                {"measurements": 120, "ensemble": "hadamard"},
                {"measurements": 1, "ensemble": "hadamard"},
            ),
        )
    ]
