"""The published rows of Asim et al. 2020, from the tables in PREIMAGE_DATA/published, which are not part of this."""

import csv
import os
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

Row = Mapping[str, str]


@dataclass(frozen=True)
class Published:
    """The tables of CelebA faces, empty where the files are not there; every value is a mean over the rows' runs."""

    cs: Sequence[Row]
    noise: Sequence[Row]
    masks: Sequence[Row]

    @classmethod
    def read(cls) -> "Published":
        """Those below PREIMAGE_DATA."""
        folder = Path(os.environ.get("PREIMAGE_DATA", ".")) / "published"
        return cls(*(rows(folder / f"{name}_results.csv") for name in ("cs", "denoising", "inpainting")))

    @property
    def found(self) -> bool:
        """Whether all of them are there."""
        return all((self.cs, self.noise, self.masks))

    def measurements(self, method: str) -> list[int]:
        """The numbers of measurements of a method, ascending."""
        return sorted({int(row["m"]) for row in self.cs if row["method"] == method})

    def compressive_sensing(self, method: str, m: int) -> float | None:
        """PSNR of a method, None if there is no row."""
        return best(row for row in self.cs if (row["method"], row["m"]) == (method, str(m)))

    def start(self, start: str, gamma: float) -> float | None:
        """PSNR of Glow at m = 5000 from a start (the deviation of random latents, or a name) at a gamma."""
        chosen = [row for row in self.cs if row["method"] == "glow-ablation-gamma" and row["z_init_std"] == start]
        return best(row for row in chosen if float(row["gamma"]) == gamma)

    def denoising(self, method: str, sigma: float, gamma: float | None = None) -> float | None:
        """PSNR of a method at a noise and gamma, of the best gamma if none is given."""
        chosen = [row for row in self.noise if row["method"] == method and float(row["noise_std"]) == sigma]
        return best(row for row in chosen if gamma is None or float(row["gamma"]) == gamma)

    def inpainting(self, method: str) -> float | None:
        """PSNR of a method for the hole in the centre, of the best gamma."""
        return best(row for row in self.masks if row["method"] == method)


def rows(path: Path) -> list[Row]:
    """The rows of CelebA, none if there is no such file."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return [row for row in csv.DictReader(file) if row["dataset"] == "celeba"]


def best(chosen: Iterable[Row]) -> float | None:
    """The largest of the rows' means over runs."""
    means: list[float] = []
    for row in chosen:
        runs = [float(row[f"psnr{run}"]) for run in (1, 2, 3) if row[f"psnr{run}"]]
        if runs:
            means.append(statistics.fmean(runs))
    return max(means, default=None)
