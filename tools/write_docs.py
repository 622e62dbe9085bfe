"""Write the generated parts of docs/: the picture and the table of `preimage demo`."""

import sys
import tempfile
from pathlib import Path

from PIL import Image

from preimage._cli import run

DOCS = Path(__file__).parents[1] / "docs"


def main() -> int:
    """Run the demo and keep its overview, with fewer colours, and its table."""
    with tempfile.TemporaryDirectory() as folder:
        if code := run(["demo", "--out", folder]):
            return code
        with Image.open(Path(folder) / "overview.png") as picture:
            (DOCS / "images").mkdir(exist_ok=True)
            picture.convert("L").quantize(64).save(DOCS / "images" / "overview.png", optimize=True)
        table = (Path(folder) / "table.md").read_text("utf-8")
        heading = "# The demo\n\nWritten by `make docs` from the run behind the picture; `make demo` prints it.\n\n"
        (DOCS / "demo.md").write_text(f"{heading}![Overview](images/overview.png)\n\n{table}", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
