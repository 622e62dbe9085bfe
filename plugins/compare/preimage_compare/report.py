"""One self-contained page for a folder of results.

The page needs no network and may not use it: everything is inlined, and its Content-Security-Policy refuses whatever
is not. Plots are drawn in the browser by Observable Plot on D3 (both ISC, 490 kB together, in assets/vendor):
they follow the chosen setting and measure without a picture for each of them, adapt to the width of a phone, and take
their colours from the page's style, so that a method has one colour everywhere, in light and dark. Plotly's smallest
bundle that has these plots is twice as large and takes no colours from style sheets; pictures drawn beforehand by
matplotlib would be needed for every setting, measure, width and colour scheme.
"""

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from preimage_data.atomic import atomic_write

from preimage.errors import BadParameter

from .report_data import page_data
from .report_facts import different_measurements, failures, methods_used, provenance, suite_toml, totals, verdict
from .report_images import examples
from .scores import Scores, ranked
from .statistics import FEWEST_IMAGES, Bootstrap
from .store import Results, read

LIBRARIES = ("vendor/d3-7.9.0.min.js", "vendor/plot-0.6.17.umd.min.js")
SCRIPTS = ("page.js", "ranking.js", "plots.js", "images.js", "start.js")
_SIZE = "@@page size@@"  # stands in the page until its size is known


def write_report(
    folder: str | Path,
    out: str | Path,
    *,
    reference: str | None = None,
    metric: str | None = None,
    bootstrap: Bootstrap = Bootstrap(),
    image_budget: int = 6_000_000,
) -> Path:
    """Write the page for a result folder, reading nothing but that folder; gives its path.

    - `reference`: the method that paired differences are taken against; the suite's if None.
    - `metric`: what is shown first and decides which images are chosen; the first that there is if None.
    - `image_budget`: bytes that images may take in the page, >= 0. One measurement is shown in any case.

    Raises `BadData` if no cell is finished, `BadFile` if the folder cannot be read or the page not written, and
    `BadParameter` for a reference or metric that is not there.
    """
    if image_budget < 0:
        raise BadParameter(f"image_budget is {image_budget}", "a number of bytes >= 0")
    results = read(folder)
    page = render(results, reference=reference, metric=metric, bootstrap=bootstrap, image_budget=image_budget)
    atomic_write(out, page.encode())
    return Path(out)


def render(
    results: Results, *, reference: str | None, metric: str | None, bootstrap: Bootstrap, image_budget: int
) -> str:
    """The page as text; arguments as those of `write_report`."""
    scores = Scores.of(results)
    if metric is not None:
        first = scores.metric(metric)
        scores.metrics.sort(key=lambda other: other is not first)
    against = scores.reference(results, reference)
    shown = examples(results, scores, against, image_budget)
    data = page_data(scores, against, bootstrap) | {"examples": shown}
    image_bytes = sum(len(tile["source"] or "") for example in shown for tile in example["tiles"])
    script = _script()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    text = (
        templates()
        .get_template("report.html.j2")
        .render(
            title=results.suite.get("title") or "Comparison",
            description=results.suite.get("description") or "",
            style=Markup(_asset("report.css")),
            policy=f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'",
            script=Markup(script),
            data=Markup(_embedded(data)),
            page=data,
            rows=_plain_rows(scores, against, bootstrap),
            verdict=_verdict(scores, against, bootstrap),
            reference=against,
            scores=scores,
            totals=totals(scores),
            corrupt=[f"{file.path.name} {file.reason}" for file in results.corrupt],
            unequal=different_measurements(scores),
            failures=failures(results.cells),
            provenance=provenance(results.suite, results.cells),
            used=methods_used(scores),
            suite=suite_toml(results.suite),
            bootstrap=bootstrap,
            fewest=FEWEST_IMAGES,
            sizes={"page": _SIZE, "images": megabytes(image_bytes), "code": megabytes(len(script))},
            cells_with_images=sum(
                tile["source"] is not None and tile["method"] is not None
                for example in shown
                for tile in example["tiles"]
            ),
        )
    )
    return text.replace(_SIZE, megabytes(len(text.encode())))


def megabytes(count: int) -> str:
    """A number of bytes as people read it."""
    return f"{count / 1e6:.1f} MB" if count >= 100_000 else f"{count / 1e3:.0f} kB"


def _verdict(scores: Scores, reference: str, bootstrap: Bootstrap) -> str:
    if not scores.metrics:
        return "No cell has a result: there is nothing to compare. The failures below say why."
    metric = scores.metrics[0]
    summaries = scores.summarise(metric.key, reference, scores.part(), bootstrap)
    sentence = verdict(summaries, metric, reference, bootstrap.level)
    return re.sub(r"(?<!\w)-(?=\d)", "\N{MINUS SIGN}", sentence)


def _plain_rows(scores: Scores, reference: str, bootstrap: Bootstrap) -> list[dict[str, Any]]:
    """The ranking as text, for readers without scripts."""
    if not scores.metrics:
        return []
    metric = scores.metrics[0]
    counts = dict(zip(scores.methods, scores.counts(scores.part()), strict=True))

    def number(value: float, sign: str = "") -> str:
        return "–" if value != value else f"{value:{sign}.{metric.digits}f}"

    return [
        {
            "method": s.method,
            "mean": number(s.mean),
            "difference": number(s.difference, "+"),
            "interval": f"{number(s.difference_low, '+')} to {number(s.difference_high, '+')}",
            "ok": counts[s.method]["ok"],
            "cells": len(scores.units),
        }
        for s in ranked(scores.summarise(metric.key, reference, scores.part(), bootstrap), metric)
    ]


def _embedded(data: Mapping[str, Any]) -> str:
    """JSON that can stand in a script element: no label of a suite can end the element or open a comment."""
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


@cache
def _script() -> str:
    # The files share one module scope; the libraries, which set globals on `this`, keep theirs.
    libraries = "\n".join(_asset(name) for name in LIBRARIES)
    return libraries + "\n(() => {\n'use strict';\n" + "\n".join(_asset(name) for name in SCRIPTS) + "\n})();\n"


@cache
def _asset(name: str) -> str:
    return (files(__package__ or "preimage_compare") / "assets" / name).read_text("utf-8")


@cache
def templates() -> Environment:
    """The templates of the page and of the exports; only the page is HTML and escaped."""
    return Environment(
        loader=PackageLoader("preimage_compare"),
        autoescape=lambda name: name is not None and ".html" in name,
        keep_trailing_newline=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
