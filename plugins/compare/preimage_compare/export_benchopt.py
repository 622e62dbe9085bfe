"""A suite as a Benchopt benchmark: a folder with objective.py, datasets/, and solvers/ with one solver for all methods.

Benchopt takes solvers from files of the benchmark's folder only; the one written here looks methods up by name among
the components that installed plugins register, so that a plugin's methods need no file of their own.
(Benchopt: Moreau et al., "Benchopt: Reproducible, efficient and collaborative optimization benchmarks", NeurIPS 2022.)
"""

import re
from collections.abc import Mapping

from .report import templates
from .report_facts import provenance, suite_toml
from .scores import Scores
from .store import Results

_NEEDED = ("preimage", "preimage-compare", "preimage-data")


def benchopt_files(results: Results) -> Mapping[str, bytes]:
    """The files of the benchmark, by path. Raises `BadData` if no cell is finished: plugins are known from cells."""
    scores = Scores.of(results)
    labels = results.suite["labels"]
    found = provenance(results.suite, results.cells)["versions"]
    used = [name for name, _ in found if name.startswith("preimage")]
    title = str(results.suite.get("title") or "Comparison")
    facts = {
        "title": title,
        "name": re.sub(r"[^\w .-]+", " ", title).strip() or "comparison",  # Benchopt allows no slash or bracket
        "requirements": [f"pip::{name}" for name in sorted({*used, *_NEEDED})],
        "labels": {axis: labels[axis] for axis in ("operator", "noise", "seed", "method")},
        "images": list(dict.fromkeys((unit.data, unit.image) for unit in scores.units)),
    }
    pages = {
        "objective.py": "objective.py",
        "datasets/suite.py": "dataset.py",
        "solvers/preimage.py": "solver.py",
        "README.md": "README.md",
    }
    files = {path: templates().get_template(f"benchopt/{name}.j2").render(facts) for path, name in pages.items()}
    return {path: text.encode() for path, text in {**files, "suite.toml": suite_toml(results.suite)}.items()}
