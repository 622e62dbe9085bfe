"""Tables for the terminal: the end of a run, `status` and `diff`. The page and the exports have more columns."""

import math

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from .report_facts import failures, totals, verdict
from .scores import OUTCOMES, Metric, Scores, Summary, quantiles, ranked
from .statistics import Bootstrap
from .store import Results

_MOST_FAILURES = 20


def summary_table(
    results: Results, *, metric: str | None = None, reference: str | None = None, bootstrap: Bootstrap = Bootstrap()
) -> RenderableType:
    """The ranking over all settings, one sentence that reads it, and what failed.

    - `metric`: its key, the first that there is if None. `reference`: a method, the suite's if None.

    Raises `BadData` if no cell is finished, `BadParameter` for a metric or reference that is not there.
    """
    scores = Scores.of(results)
    against = scores.reference(results, reference)
    failed = failures_table(results)
    if not scores.metrics:
        return Group(Text("No cell has a result."), *([failed] if failed else []))
    chosen = scores.metric(metric) if metric else scores.metrics[0]
    summaries = ranked(scores.summarise(chosen.key, against, scores.part(), bootstrap), chosen)
    counts = dict(zip(scores.methods, scores.counts(scores.part()), strict=True))
    extra = [other for other in scores.metrics if other is not chosen and other.better][:2]
    means = {
        m.key: {s.method: s.mean for s in scores.summarise(m.key, against, scores.part(), bootstrap)} for m in extra
    }
    table = Table(title=str(results.suite.get("title") or ""), title_justify="left", box=None, pad_edge=False)
    table.add_column("method", no_wrap=True)
    for heading in (_named(chosen), f"minus {against}", f"{bootstrap.level:.0%} interval"):
        table.add_column(heading, justify="right")
    for other in extra:
        table.add_column(other.title, justify="right")
    for heading in ("time (s)", "operator calls", "finished"):
        table.add_column(heading, justify="right")
    for s in summaries:
        row = scores.row(s.method)
        seconds, calls = (quantiles(scores.values[key][row], (0.5,))[0] for key in ("seconds", "operator"))
        table.add_row(
            s.method,
            shown(s.mean, chosen.digits) + ("†" if s.partial and math.isfinite(s.mean) else ""),
            "reference" if s.method == against else _judged(s, chosen),
            "" if s.method == against else interval(s, chosen.digits),
            *(shown(means[other.key][s.method], other.digits) for other in extra),
            f"{seconds:.3g}" if math.isfinite(seconds) else "–",
            f"{calls:,.0f}" if math.isfinite(calls) else "–",
            _outcomes(counts[s.method]),
        )
    lines: list[RenderableType] = [table, Text()]
    if any(s.partial for s in summaries):
        lines.append(Text("† over fewer measurements than the suite has: compare the paired differences", style="dim"))
    overall = scores.summarise(chosen.key, against, scores.part(), bootstrap)
    lines.append(Text(verdict(overall, chosen, against, bootstrap.level)))
    if failed:
        lines += [Text(), failed]
    return Group(*lines)


def status_table(results: Results) -> Table:
    """How far each method is: cells finished, failed, skipped and missing. Raises `BadData` if nothing is planned."""
    scores = Scores.of(results)
    table = Table(title=str(results.suite.get("title") or ""), title_justify="left", box=None, pad_edge=False)
    table.add_column("method", no_wrap=True)
    for outcome in OUTCOMES:
        table.add_column("finished" if outcome == "ok" else outcome, justify="right")
    for method, counted in zip(scores.methods, scores.counts(scores.part()), strict=True):
        table.add_row(method, *(_number(counted[outcome]) for outcome in OUTCOMES))
    table.add_section()
    total = totals(scores)
    table.add_row("all", *(_number(total[outcome]) for outcome in OUTCOMES), style="bold")
    return table


def failures_table(results: Results) -> Table | None:
    """Failed and skipped cells by method and reason, None if there are none."""
    groups = failures(results.cells)
    if not groups:
        return None
    table = Table(title="Not finished", title_justify="left", box=None, pad_edge=False)
    table.add_column("method", no_wrap=True)
    table.add_column("outcome")
    table.add_column("cells", justify="right")
    table.add_column("reason", overflow="fold")
    for group in groups[:_MOST_FAILURES]:
        style = "red" if group["outcome"] == "failed" else "dim"
        reason = f"{group['kind']}: {group['reason']}" if group["kind"] else group["reason"]
        # Text, for a reason may hold brackets, which rich would read as markup.
        table.add_row(group["method"], Text(group["outcome"], style), _number(group["count"]), Text(reason))
    if len(groups) > _MOST_FAILURES:
        table.add_row(
            "…", "", "", f"{len(groups) - _MOST_FAILURES} further reasons: the report and the exports have all"
        )
    return table


def shown(value: float, digits: int, sign: str = "") -> str:
    """A number for a table, a dash where there is none."""
    return f"{value:{sign}.{digits}f}" if math.isfinite(value) else "–"


def interval(summary: Summary, digits: int) -> str:
    """The interval of a paired difference."""
    if not math.isfinite(summary.difference_low):
        return "too few images" if summary.pairs else "–"
    return f"{summary.difference_low:+.{digits}f} to {summary.difference_high:+.{digits}f}"


def _judged(summary: Summary, metric: Metric) -> Text:
    text = Text(shown(summary.difference, metric.digits, "+"))
    low, high = summary.difference_low, summary.difference_high
    if metric.better and low * high > 0:  # False where they are NaN
        text.stylize("green" if (low > 0) == (metric.better == "higher") else "red")
    return text


def _outcomes(counted: dict[str, int]) -> str:
    others = ", ".join(f"{counted[name]:,} {name}" for name in OUTCOMES[1:] if counted[name])
    return f"{counted['ok']:,}" + (f" ({others})" if others else "")


def _number(count: int) -> str:
    return f"{count:,}" if count else "–"


def _named(metric: Metric) -> str:
    return f"{metric.title} ({metric.unit})" if metric.unit else metric.title
