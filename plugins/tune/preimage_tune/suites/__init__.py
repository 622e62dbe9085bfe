"""Suites for tuning: those of the two papers' problems, on photographs' crops and on faces."""

import difflib
from pathlib import Path

from preimage.errors import BadFile

FOLDER = Path(__file__).parent


def shipped() -> dict[str, Path]:
    """Suites of this package by name; files that start with an underscore are for including."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.toml")) if not path.name.startswith("_")}


def find(given: str | Path) -> Path:
    """The file that is meant: a path, or the name of a suite that ships. Raises `BadFile` if there is neither."""
    path, known = Path(given), shipped()
    if not path.exists() and str(given) in known:
        return known[str(given)]
    if not path.exists() and path.suffix != ".toml":
        close = difflib.get_close_matches(str(given), known, n=1)
        remedy = f"did you mean {close[0]!r}?" if close else "preimage tune lists the suites that ship"
        raise BadFile(f"there is no suite {str(given)!r}", f"a TOML file, or one of {', '.join(known)}", remedy)
    return path
