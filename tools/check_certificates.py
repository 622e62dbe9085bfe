"""Try to break the certificates of invertible residual networks; exit status 1 if one breaks.

python tools/check_certificates.py                          # 10,000 checks of each of the networks that ship
python tools/check_certificates.py NAME --checks 1000 --seed 1
python tools/check_certificates.py --record results/certificates.jsonl     # can be stopped, and goes on where it was
python tools/check_certificates.py --psnr RUN ...           # what the certificate costs the networks of training runs

For each network: the largest expansion found, as a share of what the certificate allows, of each f_i, of phi^-1 and of
the factors W1 and W2, and the true norm of W1 at two sizes (Lanczos), least and largest share over the blocks. At the
end one table of all.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from preimage_data import Photographs, psnr
from preimage_iresnet.certificate import certified_norms, divide, verify
from preimage_iresnet.network import InvertibleResNet
from preimage_iresnet.residual import Residual
from preimage_iresnet.terms import Terms
from preimage_iresnet.true_norms import norm_on_images
from preimage_iresnet.violations import SIZES, Search
from preimage_train import checkpoint, recipe
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from torch import Tensor

from preimage import Key
from preimage._plugins import discover
from preimage.errors import PreimageError
from preimage.trained import restore
from preimage.weights import Weights, load_weights

COMPONENT = "prior/iresnet"
CONVERGED = Terms(6, 0)
ROWS = {"residuals": "Lip(f_i)", "inverse": "Lip(phi^-1)", "wide": "||W1_i||", "narrow": "||W2_i||"}


def check(name: str, weights: Weights, arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Print the table of one network; what was found."""
    network = cast(InvertibleResNet, restore(weights, InvertibleResNet))
    verify(weights, network)
    norms = certified_norms(weights)
    colour = "grey" if network.image_channels == 1 else "colour"
    data = Photographs(size=256, colour=colour)
    photographs = torch.stack([data[index] for index in range(len(data))])
    search = Search(network, norms, photographs, Key(arguments.seed))
    sizes = {size: share for size, share in SIZES.items() if size <= arguments.largest}
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(name, total=arguments.checks)
        found = search.run(arguments.checks, sizes, lambda done: bar.update(task, completed=done))
        title = f"{name}: {found.checks} checks, seed {arguments.seed}, {found.violations} violations"
        table = Table("bound", "checks", "largest / bound", "where", "violations", title=title)
        record: dict[str, Any] = {"checks": found.checks, "violations": found.violations, "norms": {}}
        for field, heading in ROWS.items():
            tally = getattr(found, field)
            record[field] = tally.largest
            row = (heading, str(tally.checks), f"{tally.largest:.6f}", tally.where, str(tally.violations))
            table.add_row(*row)
        for size in arguments.norms:
            task = bar.add_task(f"norms at {size} x {size}", total=len(norms))
            shares = list[float]()
            for residual, own in zip(search.residuals, norms, strict=True):
                shares.append(norm_on_images(residual.wide, size) / own.wide)
                bar.advance(task)
            over = sum(share > 1 for share in shares)
            record["norms"][str(size)] = [min(shares), max(shares)]
            record["violations"] += over
            said = f"true norms at {size} x {size}, least {min(shares):.6f}"
            table.add_row("||W1_i||", str(len(shares)), f"{max(shares):.6f}", said, str(over))
    console.print(table)
    return record


def checked(name: str, arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    """What was found of one network, now or, for the same weights and arguments, before."""
    weights = load_weights(name, COMPONENT)
    settings = {key: getattr(arguments, key) for key in ("checks", "seed", "largest", "norms")}
    identity = {"name": name, "digest": weights.facts["certificate"]["digest"], "settings": settings}
    file: Path | None = arguments.record
    if file is not None and file.exists():
        for line in file.read_text().splitlines():
            read = json.loads(line)
            if {key: read[key] for key in identity} == identity:
                return read
    record = identity | check(name, weights, arguments, console)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a") as lines:
            lines.write(json.dumps(record) + "\n")
    return record


def markdown(records: Sequence[dict[str, Any]]) -> str:
    """The table of all networks."""
    sizes = list(records[0]["norms"])
    heads = ["weights", "checks", "violations", "Lip(f_i)", "Lip(phi^-1)", "W1", "W2"]
    heads += [f"true norm of W1 at {size} x {size}" for size in sizes]
    lines = [" | ".join(heads), "|".join(["---", *["---:"] * (len(heads) - 1)])]
    for record in records:
        cells = [record["name"], f"{record['checks']:,}", str(record["violations"])]
        cells += [f"{record[field]:.{3 + (field == 'inverse')}f}" for field in ROWS]
        cells += ["{:.4f} to {:.4f}".format(*record["norms"][size]) for size in sizes]
        lines.append(" | ".join(cells))
    return "\n".join(f"| {line} |" if index != 1 else f"|{line}|" for index, line in enumerate(lines))


@torch.no_grad()
def psnr_cost(folder: Path, most: int, console: Console) -> None:
    """Mean PSNR on a run's validation images with the norms of its last training step, with those on the grid of
    evaluation, and with proved ones: the newest checkpoint, blocks inverted with 6 terms."""
    settings = recipe.read(folder / "recipe.toml")
    found = checkpoint.read(folder, settings.digest)
    if found is None:
        raise SystemExit(f"{folder} has no checkpoint")
    network = cast(InvertibleResNet, settings.network())
    own = network.state_dict()
    tensors = {key.removeprefix("network/"): t for key, t in found[1].items() if key.startswith("network/")}
    network.load_state_dict(own | tensors)
    for key, tensor in found[1].items():
        if key.startswith("buffer/"):
            network.get_buffer(key.removeprefix("buffer/")).copy_(tensor)
    data = settings.datasets(settings.validation_data, "validation")[0]
    count = min(len(data), settings.validation.count, most)
    images, labels = torch.stack([data[i] for i in range(count)]), [data.label(i) for i in range(count)]
    forward = settings.forward_model(tuple(images.shape[1:]))
    assert forward is not None
    measured: Tensor = forward.simulate(images, labels)

    def score(residuals: list[Residual]) -> Tensor:
        states = (network.invert(residuals, network.lift(y[None]), CONVERGED) for y in measured.unbind(0))
        return psnr(torch.cat([network.project(x) for x in states]), images)

    scores = {"training": score(network.train().residuals()), "grid": score(network.eval().residuals())}
    divide(network)
    scores["certificate"] = score(network.residuals())
    table = Table("norms", "mean PSNR", "change", "worst image", title=f"{folder}, {count} images")
    for name, values in scores.items():
        change = values - scores["training"]
        table.add_row(name, f"{values.mean():.4f} dB", f"{change.mean():+.4f} dB", f"{change.min():+.4f} dB")
    console.print(table)


def main(given: Sequence[str]) -> int:
    """Check, print, and say whether all certificates held."""
    parser = argparse.ArgumentParser(description="Try to break the certificates of invertible residual networks.")
    parser.add_argument("weights", nargs="*", help="names or files; default: all that ship")
    parser.add_argument(
        "--checks", type=int, default=10_000, help="checks of Lip(f_i) and Lip(phi^-1) for each network"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--largest", type=int, default=512, help="largest side of the images in pixels")
    parser.add_argument("--norms", type=int, nargs="*", default=[48, 96], help="sizes at which true norms are computed")
    parser.add_argument("--record", type=Path, metavar="FILE", help="what is found, a line for each network")
    parser.add_argument(
        "--psnr", type=Path, nargs="+", metavar="RUN", help="folders of training runs; needs PREIMAGE_DATA"
    )
    parser.add_argument("--images", type=int, default=32, help="how many of their validation images, for --psnr")
    arguments: Any = parser.parse_args(given)
    torch.set_num_threads(1)
    console = Console(width=None if sys.stdout.isatty() else 140)
    try:
        if arguments.psnr is not None:
            for folder in arguments.psnr:
                psnr_cost(folder, arguments.images, console)
            return 0
        names = arguments.weights or sorted(w.name for w in discover().weights if w.component == COMPONENT)
        if not names:
            console.print(f"no weights of {COMPONENT} are installed")
            return 1
        records = [checked(name, arguments, console) for name in names]
        print(markdown(records))
        return 0 if not any(record["violations"] for record in records) else 1
    except PreimageError as error:
        console.print(str(error), markup=False)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
