"""One table of everything that a table of methods shows, and what stands out of its noise."""

from collections.abc import Sequence

from pipelines.reports.comparison import Comparison, Row, headings, relative_time
from pipelines.reports.tables import Cell, Heading, Line, Table, section, texts, to_markdown
from vlp.metrics.group_means import GroupMean
from vlp.metrics.intervals import Difference, Interval

CHANCE = "(chance)"
TITLE = "Method x metrics x relative training time"


def summary_tables(comparison: Comparison) -> list[Table]:
    """Methods side by side, the means of groups if there are any, and differences if there is a baseline."""
    found = [_methods(comparison)]
    if any(row.groups for row in comparison.rows):
        found.append(_groups(comparison.rows))
    if comparison.baseline is not None:
        found.append(_differences(comparison))
    return found


def remarks(comparison: Comparison) -> list[str]:
    """What the numbers mean, a line for each kind."""
    lines = []
    if any(row.intervals for row in comparison.rows):
        over = "other images" if comparison.seeds == 1 else "other images and other seeds"
        lines.append(
            f"±: the farther end of the 95 % interval over {over}, in points; report.json has both ends"
        )
    if comparison.baseline is not None:
        paired = "by image" if comparison.seeds == 1 else "by image and seed"
        lines.append(
            f"*: stands out of its noise: the 95 % interval of the difference, paired {paired}, leaves 0 out"
        )
    if comparison.seeds > 1:
        lines.append(f"numbers are means over {comparison.seeds} seeds; report.json has their spread")
    return [*lines, _about_time(comparison.rows)]


def summary_markdown(comparison: Comparison) -> str:
    """The table, with what guessing gives, the differences from the baseline, and what all of it means."""
    first, *others = (table.plain() for table in summary_tables(comparison))
    about = "\n\n".join(remarks(comparison))
    return "\n".join([to_markdown(first), *(section(table, level=3) for table in others), f"{about}\n"])


def number_cell(row: Row, key: str) -> Cell:
    """A number of a method, with the half-width of its interval: brackets would take twice the room."""
    if key not in row.metrics:
        return Cell("-")
    value, interval = row.metrics[key], row.intervals.get(key)
    noise = "" if interval is None else _noise(value, interval)
    difference = row.differences.get(key)
    return Cell(f"{value:.1%}{noise}", row.link, _note(key, interval, difference), _kind(difference))


def mean_cell(one: GroupMean, link: str = "") -> Cell:
    """A mean over sets, in the same form."""
    interval = Interval(one.low, one.high)
    note = f"mean of {', '.join(one.over)}: {_ends(interval)}"
    return Cell(f"{one.value:.1%}{_noise(one.value, interval)}", link, note)


def chance_line(comparison: Comparison, keys: Sequence[str], *, before: int, after: int) -> Line:
    """What guessing gives, in the columns of some metrics with others beside them."""
    shares = [f"{comparison.chance[key]:.1%}" if key in comparison.chance else "-" for key in keys]
    return Line([Cell(text) for text in (CHANCE, *"-" * before, *shares, *"-" * after)], "chance")


def time_text(row: Row, rows: Sequence[Row]) -> str:
    """Relative training time."""
    time = relative_time(row, rows)
    return "-" if time is None else f"{time:.2f}x"


def _methods(comparison: Comparison) -> Table:
    rows, shown = comparison.rows, headings(comparison.rows)
    header = ["method", "objective", "mask", *shown.values(), "time"]
    lines = [
        Line(
            [
                Cell(row.method, row.link),
                Cell(row.objective),
                Cell(row.mask),
                *(number_cell(row, key) for key in shown),
                Cell(time_text(row, rows)),
            ]
        )
        for row in rows
    ]
    if any(key in comparison.chance for key in shown):
        lines.append(chance_line(comparison, list(shown), before=2, after=1))
    return Table(TITLE, [Heading(text) for text in header], lines)


def _groups(rows: Sequence[Row]) -> Table:
    """A line for each mean, as it is over other sets for other methods where these cannot be measured so."""
    header = ["group", "protocol", "method", "mean", "over", "lacks"]
    keys = dict.fromkeys(key for row in rows for key in row.groups)
    lines = []
    for key, row in ((key, row) for key in keys for row in rows if key in row.groups):
        group, _, protocol = key.partition("/")
        one = row.groups[key]
        said = [Cell(text) for text in (group, protocol, row.method)]
        over = [Cell(", ".join(one.over)), Cell(", ".join(one.missing) or "-")]
        lines.append(Line([*said, mean_cell(one, row.link), *over]))
    return Table("Means of groups of sets", [Heading(text) for text in header], lines)


def _differences(comparison: Comparison) -> Table:
    shown = headings(comparison.rows)
    others = [row for row in comparison.rows if row.method != comparison.baseline]
    lines = [texts([row.method, *(_difference(row.differences.get(key)) for key in shown)]) for row in others]
    header = [Heading(text) for text in ("method", *shown.values())]
    return Table(f"Differences from {comparison.baseline}", header, lines)


def _difference(one: Difference | None) -> str:
    if one is None:
        return "-"
    mark = "*" if one.stands_out else ""
    return f"{100 * one.value:+.1f}{_noise(one.value, Interval(one.low, one.high))}{mark}"


def _noise(value: float, interval: Interval) -> str:
    """The farther end of an interval, in points; exact intervals are not symmetric."""
    return f" ±{100 * max(value - interval.low, interval.high - value):.1f}"


def _ends(interval: Interval) -> str:
    return f"95 % interval {interval.low:.2%} to {interval.high:.2%}"


def _note(key: str, interval: Interval | None, difference: Difference | None) -> str:
    parts = [key] if interval is None else [key, _ends(interval)]
    if difference is not None:
        ends = f"{100 * difference.low:+.2f} to {100 * difference.high:+.2f}"
        parts.append(f"{100 * difference.value:+.2f} from the baseline, {ends}")
    return "; ".join(parts)


def _kind(one: Difference | None) -> str:
    if one is None or not one.stands_out:
        return ""
    return "better" if one.value > 0 else "worse"


def _about_time(rows: Sequence[Row]) -> str:
    """What the last column is."""
    first = next((row.method for row in rows if row.training_seconds), "")
    if not first:
        is_timed = any(row.training_seconds is not None for row in rows)
        return "time: no method was trained" if is_timed else "time: known of pipelines, which time the steps"
    return f"time: steps x seconds per step, in those of {first}; steps measured in turn on one worker"
