"""Charts of the results, an SVG for each group of figures: a panel per figure,
with a bar per server and system.
"""

from html import escape

from results import (BUILDS, best, names_of, number, rows_of, system_of,
                     title_of, value_of, values_of)

GROUPS = {
    "handshakes": ("Server CPU for a connection: handshake, one byte there and "
                   "back, close", ["handshakes"]),
    "bulk": ("Server CPU for bulk data, by the client's suite", ["bulk"]),
    "latency": ("Round trips and new connections", ["trips", "latency"]),
    "memory": ("Memory and size", ["memory"]),
    "crowd": ("Very many connections; full handshakes as fast as can be, with "
              "one worker and with two", ["crowd", "workers"])}
ONE_SCALE = ("handshakes", "bulk")  # comparable figures

WIDTH, COLUMNS = 860, 3
MARGIN, GAP = 20, 24
PANEL = (WIDTH - 2 * MARGIN - (COLUMNS - 1) * GAP) / COLUMNS
NAME, VALUE = 54, 40  # widths of name and value beside a bar
BAR, PITCH = 8, 9
TITLE, HEAD, LINE = 22, 42, 15

STYLE = """
text { font: 12px system-ui, "Segoe UI", "DejaVu Sans", sans-serif;
  fill: #1f2328 }
.title { font-size: 15px; font-weight: 600 }
.about, .name, .value { fill: #59636e }
.about { font-size: 11px }
.value { font-size: 9px; paint-order: stroke; stroke: #ffffff;
  stroke-width: 3px }
.panel { font-weight: 600 }
.name { text-anchor: end }
.ours { font-weight: 600; fill: #1f2328 }
.ground { fill: #ffffff }
.bar { fill: #a9b4bf }
.bar0 { fill: #0969da }
.bar1 { fill: #1b8a5a }
.bar2 { fill: #8250df }
.bar3 { fill: #bf8700 }
.old { opacity: .55 }
.best { stroke: #59636e; stroke-dasharray: 2 2 }
@media (prefers-color-scheme: dark) {
  text, .ours { fill: #f0f6fc }
  .about, .name, .value { fill: #9da7b3 }
  .ours { fill: #f0f6fc }
  .value { stroke: #0d1117 }
  .ground { fill: #0d1117 }
  .bar { fill: #57606a }
  .bar0 { fill: #4493f8 }
  .bar1 { fill: #3fb950 }
  .bar2 { fill: #ab7df8 }
  .bar3 { fill: #d29922 }
  .best { stroke: #9da7b3 }
}
"""


def text(x, y, what, kind):
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}">{escape(what)}</text>'


def servers_of(runs):
    """Name -> kind, ours first, of the servers in any of the runs."""
    return {name: kind for kind in ("tunnel", "peer") for r in runs
            for name in names_of(r, kind)}


def columns_of(runs, groups):
    """The names and titles of the figures, in order; up below down."""
    found = {f["name"]: title_of(f) for r in runs for group in groups
             for f in rows_of(r, group) if f["values"]}
    return sorted(found.items(), key=lambda item: item[0].startswith("up_"))


def bar(left, y, length, kind, value, is_ours):
    yield (f'<rect x="{left:.1f}" y="{y:.1f}" width="{length:.1f}" '
           f'height="{BAR}" class="{kind}"/>')
    yield text(left + length + 4, y + BAR - 1, number(value),
               "value ours" if is_ours else "value")


def panel(name, title, runs, x, y, top):
    """The bars of a figure: a group per server, a bar per system; top: the
    longest value.
    """
    scale = (PANEL - NAME - VALUE) / top if top else 0
    left = x + NAME
    yield text(x, y + 12, title, "panel")
    y += TITLE
    servers = servers_of(runs)
    step = len(runs) * PITCH + 6
    for run in runs:
        least = best(values_of(run, name), names_of(run, "peer"))[0]
        if least is not None:
            at = left + least * scale
            yield (f'<line x1="{at:.1f}" y1="{y - 3}" x2="{at:.1f}" '
                   f'y2="{y + len(servers) * step - 4}" class="best"/>')
    ours = 0
    for i, (server, kind) in enumerate(servers.items()):
        is_ours = kind == "tunnel"
        at = y + i * step
        yield text(left - 6, at + len(runs) * PITCH / 2 + 4, server,
                   "name ours" if is_ours else "name")
        color = f"bar bar{ours % 4}" if is_ours else "bar"
        ours += is_ours
        for j, run in enumerate(runs):
            value = value_of(run, name, server)
            if value is not None:
                old = " old" if j < len(runs) - 1 else ""
                yield from bar(left, at + j * PITCH, value * scale,
                               color + old, value, is_ours)


def legend(runs):
    systems = [system_of(r) for r in runs]
    where = systems[0] if len(runs) == 1 else \
        f"Paler bars: {' and '.join(systems[:-1])}; others: {systems[-1]}"
    yield (f"{where}. Shorter is better. Dashed lines: the best of the other "
           "servers, on each.")
    yield "Builds of tunnel: " + ", ".join(
        f"{name} ({BUILDS[name]})" for name, kind in servers_of(runs).items()
        if kind == "tunnel") + ". No bar: it can't do this, or was not there."
    yield "; ".join(
        f"{system_of(r)}: {r['machine']['cpu']}, {r['machine']['date']}"
        + (", a quick run" if r["quick"] else "") for r in runs) + "."


def chart(runs, group):
    title, groups = GROUPS[group]
    columns = columns_of(runs, groups)
    servers = servers_of(runs)
    tops = [max(value for r in runs for server, value in
                values_of(r, name).items() if server in servers)
            for name, _ in columns]
    if group in ONE_SCALE:
        tops = [max(tops)] * len(tops)
    step = TITLE + len(servers) * (len(runs) * PITCH + 6) + GAP
    words = list(legend(runs))
    head = HEAD + LINE * len(words)
    height = head + MARGIN + step * -(-len(columns) // COLUMNS)
    yield (f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" '
           f'height="{height}" viewBox="0 0 {WIDTH} {height}" role="img">')
    yield f"<title>{escape(title)}</title><style>{STYLE}</style>"
    yield f'<rect width="{WIDTH}" height="{height}" class="ground" rx="6"/>'
    yield text(MARGIN, 28, title, "title")
    for i, line in enumerate(words):
        yield text(MARGIN, 46 + LINE * i, line, "about")
    for i, (name, figure) in enumerate(columns):
        x = MARGIN + i % COLUMNS * (PANEL + GAP)
        y = head + 8 + i // COLUMNS * step
        yield from panel(name, figure, runs, x, y, tops[i])
    yield "</svg>"
