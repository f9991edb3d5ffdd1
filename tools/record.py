#!/usr/bin/env python3
"""Records a command in a pseudo-terminal (asciicast v2) and draws the recording as an animated SVG.

    record.py record CAST [--after TEXT] [--title TITLE] -- COMMAND...   run it, keep what it prints and when
    record.py render CAST SVG                                            draw a recording

Called by `./x demo --record`. The recording is what happened, with its real times. The drawing keeps the order and the
text and changes only the pace: long waits are cut, and what comes at once stays long enough to be read; it says so in its
title bar. GitHub shows no asciicast and runs no script, so the drawing is one SVG with CSS keyframes: all lines in one tall
column that is scrolled in steps, under a cover that is moved down as lines appear. Only the standard library is used.

The terminal understood here is a small one: lines that wrap, colours and weights, carriage return, backspace, tabs,
erasing in a line, moving up and sideways. A program that draws a whole screen is not for this.
"""

import argparse
import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time
from html import escape

COLUMNS, ROWS = 100, 28
# Seconds that the drawing may play, its last picture included.
LONGEST = 44.0
# Seconds that the last picture stays.
LAST = 4.0
# Longest pause drawn, seconds.
PAUSE = 1.0
# Seconds that text stays before the next comes: for each piece, and for each of its lines.
PIECE, LINE = 0.2, 0.4

FONT, LEADING, ADVANCE = 14, 19, 8.43
MARGIN, BAR = 16, 34
GROUND, TEXT = "#0d1117", "#d1d7e0"
# The eight colours of a terminal, as GitHub's dark theme has them.
COLOURS = ["#6e7681", "#ff7b72", "#7ee787", "#e3b341", "#79c0ff", "#d2a8ff", "#76e3ea", "#f0f6fc"]


class Screen:
    """A terminal's lines from the first to the last, nothing ever scrolled away."""

    def __init__(self, columns):
        self.columns = columns
        self.rows = [[]]
        self.row = self.column = 0
        self.style = ()
        self.changed = set()
        self.rest = ""

    TOKEN = re.compile(
        r"\x1b\[(?P<args>[0-9;?]*)(?P<final>[@-~])"  # control sequence
        r"|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)"  # title of the window and the like
        r"|\x1b[^\[\]]"
        r"|(?P<char>[^\x1b])",
        re.S,
    )

    def feed(self, text):
        """Prints `text`; the rows that it changed are in `changed`."""
        text, self.rest = self.rest + text, ""
        at = 0
        while at < len(text):
            token = self.TOKEN.match(text, at)
            if not token:  # a sequence that is not all there yet
                self.rest = text[at:]
                return
            at = token.end()
            if token["char"]:
                self.put(token["char"])
            elif token["final"]:
                self.control(token["args"], token["final"])

    def put(self, char):
        if char == "\n":
            self.down()
        elif char == "\r":
            self.column = 0
        elif char == "\b":
            self.column = max(0, self.column - 1)
        elif char == "\t":
            self.column = min(self.columns - 1, (self.column // 8 + 1) * 8)
        elif char >= " " and char != "\x7f":
            if self.column == self.columns:
                self.column = 0
                self.down()
            line = self.rows[self.row]
            line.extend([(" ", ())] * (self.column + 1 - len(line)))
            line[self.column] = (char, self.style)
            self.column += 1
            self.changed.add(self.row)

    def down(self):
        self.row += 1
        if self.row == len(self.rows):
            self.rows.append([])
            self.changed.add(self.row)

    def control(self, args, final):
        numbers = [int(n) if n.isdigit() else 0 for n in args.split(";")]
        count = max(1, numbers[0])
        if final == "m":
            self.rendition(numbers)
        elif final == "K":
            line = self.rows[self.row]
            if numbers[0] == 2:
                line.clear()
            elif numbers[0] == 1:
                line[: self.column + 1] = [(" ", ())] * min(self.column + 1, len(line))
            else:
                del line[self.column :]
            self.changed.add(self.row)
        elif final == "A":
            self.row = max(0, self.row - count)
        elif final == "C":
            self.column = min(self.columns - 1, self.column + count)
        elif final == "D":
            self.column = max(0, self.column - count)
        elif final == "G":
            self.column = min(self.columns, count) - 1

    def rendition(self, numbers):
        style = dict(self.style)
        for n in numbers:
            if n == 0:
                style = {}
            elif n == 1:
                style["bold"] = True
            elif n == 2:
                style["dim"] = True
            elif n == 22:
                style.pop("bold", None)
                style.pop("dim", None)
            elif 30 <= n <= 37 or 90 <= n <= 97:
                style["colour"] = n % 10
            elif n == 39:
                style.pop("colour", None)
        self.style = tuple(sorted(style.items()))


def record(cast, command, after, title):
    """Runs `command` in a pseudo-terminal, keeps what it prints from the line that holds `after` on; returns its code."""
    child, terminal = pty.fork()
    if child == 0:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, and a child would inherit that
        os.environ.update(TERM="xterm-256color", COLUMNS=str(COLUMNS), LINES=str(ROWS))
        try:
            os.execvp(command[0], command)
        except OSError as error:
            os.write(2, f"record: cannot run `{command[0]}`: {error.strerror}\n".encode())
            os._exit(127)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    events, began, before, tail = [], None, "", b""
    while True:
        select.select([terminal], [], [])
        try:
            read = os.read(terminal, 65536)
        except OSError:  # Linux says so when the other side is gone
            read = b""
        if not read:
            break
        sys.stdout.buffer.write(read)
        sys.stdout.buffer.flush()
        # A character may come in two pieces.
        data = tail + read
        text = data.decode("utf-8", "ignore")
        tail = data[len(text.encode()) :] if len(data) - len(text.encode()) < 4 else b""
        now = time.monotonic()
        if began is None:
            before += text
            found = before.find(after)
            if found < 0:
                continue
            text, began = before[before.rfind("\n", 0, found) + 1 :], now
        events.append((round(now - began, 3), text))
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code == 0 and not events:
        print(f"record: nothing to keep: no line with `{after}`", file=sys.stderr)
        return 1
    if code == 0:
        header = {"version": 2, "width": COLUMNS, "height": ROWS, "title": title, "idle_time_limit": PAUSE}
        lines = [header] + [[t, "o", text] for t, text in events]
        partial = cast + ".partial"
        with open(partial, "w", encoding="utf-8") as file:
            file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        os.replace(partial, cast)
    return code


def read_cast(path):
    """A recording's header and its output, as pairs of seconds and text."""
    with open(path, encoding="utf-8") as file:
        lines = [json.loads(line) for line in file if line.strip()]
    header = lines[0] if lines else {}
    if not isinstance(header, dict) or header.get("version") != 2:
        raise ValueError(f"`{path}` is no asciicast of version 2")
    return header, [(t, text) for t, kind, text in lines[1:] if kind == "o"]


def paced(events):
    """The same events at a pace to read by, in at most LONGEST seconds with LAST at the end."""
    times, now = [], 0.0
    for (at, text), following in zip(events, events[1:] + [None]):
        times.append(now)
        gap = following[0] - at if following else 0
        now += max(min(gap, PAUSE), PIECE + LINE * text.count("\n"))
    scale = min(1.0, (LONGEST - LAST) / now) if now else 1.0
    return [(t * scale, text) for t, (_, text) in zip(times, events)], now * scale + LAST


def states(events, columns):
    """Every row's texts, each with the time it appears, and the times at which there are more rows."""
    screen, versions, heights = Screen(columns), {}, []
    for at, text in events:
        screen.feed(text)
        for row in sorted(screen.changed):
            versions.setdefault(row, []).append((at, list(screen.rows[row])))
        screen.changed.clear()
        filled = len(screen.rows) - (not screen.rows[-1])
        if not heights or filled > heights[-1][1]:
            heights.append((at, filled))
    for row, texts in versions.items():
        # A line that was only added to need not be drawn twice for it.
        kept = []
        for at, cells in texts:
            if kept and cells[: len(kept[-1][1])] == kept[-1][1] and (not kept[-1][1] or at - kept[-1][0] < 0.5):
                kept[-1] = (at if not kept[-1][1] else kept[-1][0], cells)
            else:
                kept.append((at, cells))
        versions[row] = kept
    return versions, heights


def spans(cells):
    """A line's text in SVG, a span for every run of one style."""
    while cells and cells[-1][0] == " ":
        cells = cells[:-1]
    out, at = [], 0
    while at < len(cells):
        style, end = cells[at][1], at
        while end < len(cells) and cells[end][1] == style:
            end += 1
        text = escape("".join(char for char, _ in cells[at:end]), quote=False)
        names = [f"c{value}" if name == "colour" else name[0] for name, value in style]
        out.append(f'<tspan class="{" ".join(names)}">{text}</tspan>' if names else text)
        at = end
    return "".join(out)


def keyframes(name, steps, length, unit):
    """Keyframes that jump; `steps` are pairs of seconds and value."""
    stops = {}
    for at, value in steps:
        percent = f"{100 * at / length:.2f}".rstrip("0").rstrip(".")
        # The last value of a moment counts, and only a new value is a step.
        if stops.get(percent) is not None or not stops or list(stops.values())[-1] != value:
            stops[percent] = value
    return f"@keyframes {name}{{{''.join(f'{at}%{{{unit.format(value)}}}' for at, value in stops.items())}}}"


def render(header, events):
    """The recording as one SVG that plays by itself, over and over."""
    columns, shown = header["width"], header["height"]
    real = events[-1][0] if events else 0
    timed, length = paced(events)
    versions, heights = states(timed, columns)
    total = heights[-1][1] if heights else 0
    width, height = round(columns * ADVANCE) + 2 * MARGIN, shown * LEADING + BAR + 2 * MARGIN - 8
    move = "transform:translateY({}px)"
    scroll = [(at, -max(0, rows - shown) * LEADING) for at, rows in heights]
    cover = [(at, rows * LEADING) for at, rows in heights]
    css = [
        f"text{{font:{FONT}px ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono','Liberation Mono',monospace;"
        f"fill:{TEXT};white-space:pre}}",
        ".b{font-weight:700;fill:#f0f6fc}.d{fill:#8b949e}.t{font-size:12px;fill:#8b949e}",
        "".join(f".c{i}{{fill:{colour}}}" for i, colour in enumerate(COLOURS)),
        keyframes("s", [(0, 0)] + scroll, length, move),
        keyframes("v", [(0, 0)] + cover, length, move),
        # Who wants no motion sees the end.
        f"#s{{{move.format(scroll[-1][1] if scroll else 0)};animation:s {length:.2f}s step-end infinite}}",
        f"#v{{{move.format(cover[-1][1] if cover else 0)};animation:v {length:.2f}s step-end infinite}}",
        "@media(prefers-reduced-motion:reduce){*{animation:none!important}}",
    ]
    rows, number = [], 0
    for row in range(total):
        texts = versions.get(row, [])
        for index, (at, cells) in enumerate(texts):
            text = spans(cells)
            if not text:
                continue
            attributes = f'y="{row * LEADING + FONT}"'
            if len(texts) > 1:
                until = texts[index + 1][0] if index + 1 < len(texts) else length
                steps = [(0, "hidden")] * (at > 0) + [(at, "visible")] + [(until, "hidden")] * (until < length)
                css.append(keyframes(f"r{number}", steps, length, "visibility:{}"))
                still = "visible" if until == length else "hidden"
                css.append(f"#r{number}{{visibility:{still};animation:r{number} {length:.2f}s step-end infinite}}")
                attributes += f' id="r{number}"'
                number += 1
            rows.append(f"<text {attributes}>{text}</text>")
    title = escape(header.get("title", ""))
    caption = f"a real run of {real:.0f} s, waits shortened"
    lights = "".join(
        f'<circle cx="{MARGIN + 6 + 20 * i}" cy="17" r="6" fill="{colour}"/>'
        for i, colour in enumerate(["#ff5f56", "#ffbd2e", "#27c93f"])
    )
    inner = shown * LEADING
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
            f' role="img" aria-label="{title}, {caption}">',
            f"<title>{title}</title>",
            "<style>" + "\n".join(css) + "</style>",
            f'<rect width="{width}" height="{height}" rx="8" fill="{GROUND}"/>',
            f'<path d="M0 8a8 8 0 0 1 8-8h{width - 16}a8 8 0 0 1 8 8v{BAR - 8}H0z" fill="#21262d"/>',
            lights,
            f'<text class="t" x="{width / 2:.0f}" y="21" text-anchor="middle">{title}</text>',
            f'<text class="t" x="{width - MARGIN}" y="21" text-anchor="end">{caption}</text>',
            f'<svg x="{MARGIN}" y="{BAR + MARGIN - 6}" width="{width - MARGIN}" height="{inner}">',
            '<g id="s">',
            *rows,
            f'<rect id="v" x="-4" width="{width}" height="{max(total, shown) * LEADING + 8}" fill="{GROUND}"/>',
            "</g></svg></svg>",
            "",
        ]
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="what", required=True)
    one = commands.add_parser("record")
    one.add_argument("cast")
    one.add_argument("--after", default="", help="what is printed before a line with this is left out")
    one.add_argument("--title", default="")
    one.add_argument("command", nargs="+")
    two = commands.add_parser("render")
    two.add_argument("cast")
    two.add_argument("svg")
    args = parser.parse_args()
    if args.what == "record":
        return record(args.cast, args.command, args.after, args.title)
    drawn = render(*read_cast(args.cast))
    with open(args.svg, "w", encoding="utf-8") as file:
        file.write(drawn)
    return 0


if __name__ == "__main__":
    sys.exit(main())
