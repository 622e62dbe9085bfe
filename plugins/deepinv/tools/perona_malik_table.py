"""The table of the README that shows deepinv's algorithms on a nonlinear operator, with and without `as_physics`.

python tools/perona_malik_table.py           # print it
python tools/perona_malik_table.py --write   # put it into README.md
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import deepinv
import torch
from preimage_deepinv import TotalVariation, as_denoiser, as_physics
from preimage_perona_malik import PeronaMalik
from torch import Tensor

from preimage import GaussianNoise, Key

BEGIN, END = "<!-- perona-malik-table -->", "<!-- end of perona-malik-table -->"
SHAPE, SIGMA = (1, 24, 24), 0.01


class Plain(deepinv.physics.Physics):
    """The operator as deepinv's documentation asks for it: a Physics with A."""

    def __init__(self, operator):
        super().__init__(noise_model=deepinv.physics.GaussianNoise(SIGMA))
        self.operator = operator

    def A(self, x, **_):  # noqa: N802 (deepinv's name)
        return self.operator(x)


def image() -> Tensor:
    """A square, a disc and a ramp, (1, *SHAPE)."""
    row, column = torch.meshgrid(torch.arange(24.0), torch.arange(24.0), indexing="ij")
    x = 0.2 + 0.3 * column / 23
    x[4:11, 4:13] = 0.9
    x[(row - 16) ** 2 + (column - 16) ** 2 < 20] = 0.05
    return x[None, None]


def psnr(estimate: Tensor, truth: Tensor) -> float:
    """PSNR in dB for the range [0, 1]."""
    return float(-10 * (estimate - truth).square().mean().log10())


def calls(physics: Any, x: Tensor, y: Tensor) -> dict[str, Callable[[], Any]]:
    """What is tried, in the order of the table, each with objects of its own."""
    fidelity = deepinv.optim.L2

    def prior() -> Any:
        return deepinv.optim.TVPrior(n_it_max=100)

    def denoiser() -> Any:
        return as_denoiser(TotalVariation(SHAPE, crit=1e-6, n_it_max=100))

    def score() -> Any:
        return deepinv.optim.ScorePrior(denoiser())

    common = {"lambda_reg": 1e-3, "max_iter": 30}
    return {
        "`A_dagger(y)`": lambda: physics.A_dagger(y),
        "`compute_norm(x)`": lambda: physics.compute_norm(x),
        "`adjointness_test(x)`": lambda: physics.adjointness_test(x),
        "`prox_l2(y, y, 1.0)`": lambda: physics.prox_l2(y, y, 1.0),
        "`PGD`": lambda: deepinv.optim.PGD(fidelity(), prior(), **common)(y, physics),
        "`FISTA`": lambda: deepinv.optim.FISTA(fidelity(), prior(), **common)(y, physics),
        "`ADMM`": lambda: deepinv.optim.ADMM(fidelity(), prior(), **common)(y, physics),
        "`DRS`": lambda: deepinv.optim.DRS(fidelity(), prior(), **common)(y, physics),
        "`HQS`": lambda: deepinv.optim.HQS(fidelity(), prior(), **common)(y, physics),
        "`DPIR`": lambda: deepinv.optim.DPIR(sigma=SIGMA, denoiser=denoiser())(y, physics),
        "`ArtifactRemoval`": lambda: deepinv.models.ArtifactRemoval(denoiser())(y, physics),
        "`ULA`": lambda: deepinv.sampling.ULA(
            score(), deepinv.optim.L2(sigma=SIGMA), step_size=2e-5, sigma=0.05, max_iter=40, thinning=1
        )(y, physics, seed=0)[0],
    }


def outcome(call: Callable[[], Any], truth: Tensor) -> str:
    """A PSNR, a number, or the error."""
    import contextlib
    import io
    import warnings

    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.random.fork_rng():
            warnings.simplefilter("ignore")
            torch.manual_seed(0)
            found = call()
    except Exception as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())[:60]}"
    if found.numel() > 1:
        return f"{psnr(found.detach(), truth):.1f} dB"
    return "< 1e-5" if float(found) < 1e-5 else f"{float(found):.2f}"


def rows() -> list[tuple[str, str, str]]:
    """What is called, what a plain Physics gives, what `as_physics` gives."""
    operator = PeronaMalik(SHAPE, contrast=0.5, steps=10)
    noise = GaussianNoise(sigma=SIGMA)
    x = image()
    y = noise.sample(operator(x), Key(0))
    plain, ours = calls(Plain(operator), x, y), calls(as_physics(operator, noise), x, y)
    measured = ("the measurement itself", f"{psnr(y, x):.1f} dB", f"{psnr(y, x):.1f} dB")
    return [measured, *((name, outcome(plain[name], x), outcome(ours[name], x)) for name in plain)]


def table() -> str:
    """The table in Markdown."""
    lines = ["| call | a `Physics` with `A` | `as_physics(operator, noise)` |", "|---|---|---|"]
    lines += [f"| {name} | {plain.replace('|', '/')} | {ours.replace('|', '/')} |" for name, plain, ours in rows()]
    return "\n".join(lines)


def written(readme: str, new: str) -> str:
    """The README with the table between its marks replaced."""
    head, _, rest = readme.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n\n{new}\n\n{END}{tail}"


if __name__ == "__main__":
    torch.set_num_threads(1)
    found = table()
    print(found)
    if "--write" in sys.argv:
        path = Path(__file__).parents[1] / "README.md"
        path.write_text(written(path.read_text("utf-8"), found), "utf-8")
