"""What studies over noise levels and Lipschitz bounds share."""

from dataclasses import dataclass
from typing import Any

from preimage.errors import BadParameter

from .learned import Cell, Images, Learned, LearnedOperatorStudy, measure
from .progress import Progress, Values


@dataclass(frozen=True)
class Measured:
    """What was measured of every combination, for each image; see `measure` for the names."""

    images: Images
    learned: list[Learned]
    cells: dict[tuple[str, float, float], Values]

    def of(self, operator: str, sigma: float, bound: float) -> Values:
        """The numbers of one combination."""
        return self.cells[operator, sigma, bound]


@dataclass(frozen=True, kw_only=True)
class GridStudy(LearnedOperatorStudy):
    """A study of every combination of `operators`, `noise` and `bounds`.

    Raises `BadParameter` as `LearnedOperatorStudy`, for a noise level <= 0, a bound outside (0, 1), or one given twice.
    """

    operators: tuple[str | dict[str, Any], ...] = ("perona-malik",)
    noise: tuple[float, ...] = (0.01, 0.025, 0.05)
    bounds: tuple[float, ...] = (0.95, 0.99, 0.999)

    def __post_init__(self):
        super().__post_init__()
        if not self.noise or min(self.noise) <= 0 or len(set(self.noise)) < len(self.noise):
            raise BadParameter(f"noise is {list(self.noise)}", "different numbers > 0", "use [0.01, 0.025, 0.05]")
        if (
            not self.bounds
            or not all(0 < bound < 1 for bound in self.bounds)
            or len(set(self.bounds)) < len(self.bounds)
        ):
            raise BadParameter(
                f"bounds is {list(self.bounds)}", "different numbers in (0, 1)", "use [0.95, 0.99, 0.999]"
            )
        named = [operator if isinstance(operator, str) else operator["name"] for operator in self.operators]
        if len(set(named)) < len(named):
            raise BadParameter(f"operators has {', '.join(named)}", "different operators", "run the study for each")

    def measured(self, progress: Progress) -> Measured:
        """Every combination measured, part by part."""
        images = self.images()
        shape = tuple(images.x.shape[1:])
        cells = [Cell(table, sigma, bound) for table in self.tables() for sigma in self.noise for bound in self.bounds]
        learned = self.find(cells, shape)
        progress.begin(len(cells))
        found: dict[tuple[str, float, float], Values] = {}
        for index, cell in enumerate(cells):
            forward = self.forward_model(cell.operator, cell.sigma, shape)
            found[cell.operator["name"], cell.sigma, cell.bound] = progress.part(
                str(cell),
                self.inputs(learned[index], images, forward),
                lambda index=index, forward=forward: measure(learned[index], forward, images, self.tolerance),
            )
        return Measured(images, list(learned.values()), found)
