"""Write the table of recipes in docs/train-your-own.md from the recipes that ship and the headers of their weights.

python tools/write_recipes.py [--check]      # --check: 1 if the page is not what would be written
"""

import sys
from pathlib import Path
from typing import Any

from preimage_train.recipe import SHIPPED, read_tables

from preimage._plugins import discover
from preimage.weights import load_weights

PAGE = Path(__file__).parents[1] / "docs" / "train-your-own.md"
BEGIN, END = "<!-- recipes: written by tools/write_recipes.py -->\n", "<!-- end of recipes -->\n"
SCORES = {
    "psnr": "PSNR {:.2f} dB",
    "representation_psnr": "PSNR {:.2f} dB of the nearest image it can make",
    "minus_bits_per_dimension": "{:.3f} bits per value",
    "recovery_psnr": "PSNR {:.2f} dB of a recovery",
}


def weights() -> dict[tuple[str, str], dict[str, Any]]:
    """The facts of every weights file that ships, by component and name."""
    found = {(file.component, file.name): load_weights(file.name, file.component).facts for file in discover().weights}
    return {which: dict(facts) for which, facts in found.items() if "recipe" in facts}


def row(name: str, tables: dict[str, Any], facts: dict[str, Any] | None) -> str:
    """A recipe: its name, what it trains, and what came out where its weights ship."""
    whole = f"| `{name}` | {tables['title']} | "
    if facts is None or facts["recipe"] != tables:
        return whole + "| | |"
    trained = facts["trained"]
    seconds = trained.get("processor_seconds")
    minutes = f"{seconds / 60:.0f}" if seconds else f"{trained['seconds'] / 60:.0f} by the clock"
    # What has no line in SCORES is shown by other pages; the first score is the one that chose the weights.
    score = next((SCORES[n].format(abs(v)) for n, v in facts["scores"].items() if n in SCORES), "")
    return f"{whole}{trained['steps']} | {minutes} | {score} |"


def table() -> str:
    """All recipes that ship, as Markdown."""
    shipped = weights()
    lines = ["| recipe | trains | steps | minutes | on its validation images |", "|---|---|---:|---:|---|"]
    for path in sorted(SHIPPED.glob("*.toml")):
        tables = read_tables(path)
        lines.append(row(path.stem, tables, shipped.get((tables["model"]["name"], tables["export"]["name"]))))
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> int:
    """Write the table between its marks, or compare it with what is there."""
    text = PAGE.read_text("utf-8")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    written = f"{before}{BEGIN}{table()}{END}{after}"
    if "--check" in arguments:
        if written != text:
            print(f"{PAGE} is out of date: python tools/write_recipes.py")
        return int(written != text)
    PAGE.write_text(written, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
