"""The pictures of the HTML report: a bar, and the leak path from the gradients to the input.

Colours come from the page's style sheet, so that they follow light, dark and print.
"""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Iterable, Sequence
from itertools import pairwise

from leakaudit.findings import Counts, LeakPathReport, PathStep
from leakaudit.report import wording
from leakaudit.report.escape import plain, shorten
from leakaudit.report.html.text import text

_WIDTH = 360  # about a phone's, so that the picture is read there at its own size
_MARGIN = 12
_GAP = 26  # between boxes, for the arrow
_CHIP = 22
_LINE = 16
_MOST_STATIONS = 60
_SHOWN_AT_ENDS = 25
_NARROW_CHIP, _WIDE_CHIP = 23, 48  # characters that fit
_PROSE, _LARGER_PROSE = 55, 50  # characters of a line

_Station = list[tuple[int, PathStep]]  # what one layer contributes: steps and their numbers


def bar(counts: Counts) -> str:
    """Return a bar of the determined fraction; what no output depends on is hatched at its end."""
    if not counts.unknowns:
        return ""
    filled = 100 * counts.rank_bound / counts.unknowns
    unread = 100 * counts.unread / counts.unknowns
    kind = "all" if counts.fixes_input else "part"
    return (
        '<svg class="bar" viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="track" width="100" height="8"/>'
        f'<rect class="unread" x="{100 - unread:.2f}" width="{unread:.2f}" height="8"/>'
        f'<rect class="{kind}" width="{filled:.2f}" height="8"/></svg>'
    )


def leak_path(path: LeakPathReport, inputs: Sequence[str], identity: str) -> str:
    """Return the path as a flow from top to bottom: gradients, layer by layer, the input.

    Args:
        path: At least one step or stop.
        inputs: Names of the model's inputs.
        identity: Prefix of the element ids, unique in the page.
    """
    drawing = _Drawing()
    drawing.pill("source", "the shared gradients", "of every trainable parameter")
    stations = _stations(path.steps)
    if len(stations) <= _MOST_STATIONS:
        parts: list[list[_Station]] = [stations]
    else:
        parts = [stations[:_SHOWN_AT_ENDS], stations[-_SHOWN_AT_ENDS:]]
    for number, part in enumerate(parts):
        if number:
            left_out = len(stations) - 2 * _SHOWN_AT_ENDS
            drawing.arrow()
            drawing.remark(f"{left_out} more layers, in the list of steps")
        for station in part:
            drawing.arrow()
            drawing.station(station)
    if path.reaches_input:
        drawing.arrow()
        size = wording.quantity(path.furthest_size, "value")
        drawing.pill("reached", "the input", f"{path.furthest}: {size} computed back")
    else:
        for stop in path.stopped:
            drawing.arrow(broken=True)
            drawing.stop(stop.at, stop.reason)
        drawing.arrow(broken=True)
        how = "known in part" if path.furthest in inputs else "not reached"
        drawing.pill("unreached", "the input", f"{', '.join(inputs)}: {how}")
    title, description = f"{identity}-title", f"{identity}-description"
    return (
        f'<svg class="path" role="img" aria-labelledby="{title} {description}" '
        f'viewBox="0 0 {_WIDTH} {drawing.height}" width="{_WIDTH}" height="{drawing.height}">\n'
        f'<title id="{title}">Leak path</title>\n'
        f'<desc id="{description}">{text(_description(path))}</desc>\n'
        + "\n".join(drawing.shapes)
        + "\n</svg>"
    )


def _stations(steps: Iterable[PathStep]) -> list[_Station]:
    """Group the steps per layer, in the order in which the path first comes to each."""
    stations: dict[str, _Station] = {}
    for number, step in enumerate(steps, start=1):
        key = step.layer or f"\0{number}"  # steps of no layer stay apart
        stations.setdefault(key, []).append((number, step))
    return list(stations.values())


def _description(path: LeakPathReport) -> str:
    layers = dict.fromkeys(step.layer for step in path.steps if step.layer)
    through = f", through {', '.join(layers)}" if layers else ""
    stops = "".join(f" It stops at {stop.at}: {stop.reason}." for stop in path.stopped)
    return f"{wording.reach(path)}{through}.{stops}"


class _Drawing:
    """Draws downwards; `height` is where the next shape starts."""

    def __init__(self) -> None:
        self.height = 1
        self.shapes: list[str] = []

    def pill(self, kind: str, title: str, subtitle: str) -> None:
        """A start or an end."""
        middle = _WIDTH // 2
        self.shapes += [
            f'<rect class="pill {kind}" x="30" y="{self.height}" width="{_WIDTH - 60}" '
            'height="48" rx="24"/>',
            _text(f"pill-title {kind}", middle, self.height + 21, title),
            _text(f"pill-more {kind}", middle, self.height + 37, _fit(subtitle, 44)),
        ]
        self.height += 49

    def arrow(self, *, broken: bool = False) -> None:
        """From the last shape to the next."""
        middle, end = _WIDTH // 2, self.height + _GAP - 3
        kind = "arrow broken" if broken else "arrow"
        self.shapes.append(
            f'<path class="{kind}" d="M{middle} {self.height + 3}V{end}'
            f'M{middle - 4} {end - 5}L{middle} {end}L{middle + 4} {end - 5}"/>'
        )
        self.height += _GAP

    def remark(self, words: str) -> None:
        """A line between boxes."""
        self.shapes.append(_text("equations middle", _WIDTH // 2, self.height + 12, words))
        self.height += 16

    def station(self, station: _Station) -> None:
        """A layer's box: name, what becomes known, the equations solved."""
        numbers, steps = zip(*station, strict=True)
        top, below = self.height, len(self.shapes)
        self.shapes += [
            _text("layer", _MARGIN, top + 20, _fit(steps[0].layer or "all uses", 28)),
            _text("steps", _WIDTH - _MARGIN, top + 20, _numbers(numbers)),
        ]
        self.height += 30
        self.chips([plain(step.fact) for step in steps])
        for step in steps:
            self.prose("equations", wording.equations(step.counts))
        self.height += 8
        self.shapes.insert(below, _box("station", top, self.height - top))

    def stop(self, at: str, reason: str) -> None:
        """Where the path ends and why."""
        top, below = self.height, len(self.shapes)
        self.shapes.append(_text("layer", _MARGIN, top + 20, f"stops at {_fit(at, 32)}"))
        self.height += 30
        self.prose("reason", plain(reason.strip()))
        self.height += 10
        self.shapes.insert(below, _box("stop", top, self.height - top))

    def chips(self, facts: Sequence[str]) -> None:
        """What becomes known: two beside each other where they are short enough."""
        narrow = all(_columns(fact) <= _NARROW_CHIP for fact in facts)
        per_row = 2 if narrow and len(facts) > 1 else 1
        width = (_WIDTH - 2 * _MARGIN - 8 * (per_row - 1)) // per_row
        limit = _NARROW_CHIP if per_row == 2 else _WIDE_CHIP
        for number, fact in enumerate(facts):
            row, column = divmod(number, per_row)
            x, y = _MARGIN + column * (width + 8), self.height + row * (_CHIP + 4)
            kind = "gradient" if fact.startswith("gradient(") else "value"
            self.shapes += [
                f'<rect class="chip {kind}" x="{x}" y="{y}" width="{width}" height="{_CHIP}" '
                'rx="5"/>',
                _text(f"fact {kind}", x + 8, y + 15, _fit(fact, limit)),
            ]
        self.height += -(-len(facts) // per_row) * (_CHIP + 4)

    def prose(self, kind: str, words: str) -> None:
        """Lines of text; nothing where there are no words."""
        columns = _PROSE if kind == "equations" else _LARGER_PROSE
        for line in textwrap.wrap(words, columns):
            self.height += _LINE
            self.shapes.append(_text(kind, _MARGIN, self.height - 3, _fit(line, columns)))


def _box(kind: str, top: int, height: int) -> str:
    return (
        f'<rect class="box {kind}" x="1" y="{top}" width="{_WIDTH - 2}" height="{height}" rx="8"/>'
    )


def _text(kind: str, x: int, y: int, words: str) -> str:
    return f'<text class="{kind}" x="{x}" y="{y}">{text(words)}</text>'


def _columns(words: str) -> int:
    """How many columns a line of fixed width takes: letters of some scripts are two wide."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in words)


def _fit(words: str, columns: int) -> str:
    shown = plain(words)
    limit = columns
    while _columns(shortened := shorten(shown, limit)) > columns and limit > 4:
        limit -= 1
    return shortened


def _numbers(numbers: Sequence[int]) -> str:
    """Return "step 3", "steps 1-3", "steps 1, 2, 4"; a long list as "7 steps"."""
    if len(numbers) == 1:
        return f"step {numbers[0]}"
    if len(numbers) > 2 and all(after - before == 1 for before, after in pairwise(numbers)):
        return f"steps {numbers[0]}–{numbers[-1]}"
    if len(numbers) > 4:
        return f"{len(numbers)} steps"
    return f"steps {', '.join(map(str, numbers))}"
