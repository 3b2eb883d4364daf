"""The results of a run, as text."""

import statistics

from results import (NAMES, best, names_of, number, rows_of, title_of, value_of,
                     values_of)

FIRST, WIDTH = 40, 10
TITLES = {
    "handshakes": "Server CPU for a connection: handshake, one byte there and "
                  "back, close",
    "client": "CPU of the client's side: plain connections in, TLS to one "
              "server out, which is verified",
    "bulk": "Server CPU for bulk data, to the client (down) and from it (up), "
            "by the client's suite",
    "trips": "Server CPU for a round trip of one byte",
    "latency": "Latency with 200 connections open, for the client",
    "workers": "Full TLS 1.3 handshakes, 32 at a time: workers, and CPUs for "
               "them",
    "crowd": "Very many connections",
    "memory": "Memory, proportional share",
    "process": "Processes",
    "http": "HTTP through each of them, server CPU"}


AGREED = {"TLS_AES_256_GCM_SHA384": "AES-256-GCM",
          "TLS_AES_128_GCM_SHA256": "AES-128-GCM",
          "TLS_CHACHA20_POLY1305_SHA256": "ChaCha20-Poly1305"}


def ratio(value):
    if value is None:
        return "-"
    return "∞" if value == float("inf") else f"{value:.2f}"


def divide(a, b):
    """0 / 0 is 1; otherwise x / 0 is infinity."""
    if a is None or b is None:
        return None
    return a / b if b else float("inf") if a else 1


def line(title, cells):
    return title.ljust(FIRST) + "".join(c.rjust(WIDTH) for c in cells)


def figures(results, groups, is_http=False):
    """The values, and the ratio of each tunnel's value to the best peer's."""
    ours = names_of(results, "tunnel", is_http)
    peers = names_of(results, "peer", is_http)
    for group in groups:
        rows = rows_of(results, group)
        names = [n for n in ours + peers if any(n in f["values"]
                                                for f in rows)]
        if not names:
            continue
        width = len(names) * WIDTH + FIRST
        yield TITLES[group].ljust(width) + "  ÷ the best peer"
        yield line("", names + [n for n in names if n in ours])
        for f in rows:
            values = f["values"]
            low = best(values, peers)[0]
            yield line(title_of(f),
                       [number(values.get(n)) for n in names] +
                       [ratio(divide(values.get(n), low)) for n in names
                        if n in ours])
        yield ""


def ratios(results, groups, is_http=False):
    """The ratio of each tunnel's value to each peer's."""
    peers = names_of(results, "peer", is_http)
    for name in names_of(results, "tunnel", is_http):
        yield f"{name} ÷ each peer (below 1: {name} takes less)"
        yield line("", ["÷" + p[:WIDTH - 2] for p in peers] +
                   ["÷best", "which is"])
        for f in (f for g in groups for f in rows_of(results, g)):
            values = f["values"]
            low, which = best(values, peers)
            value = values.get(name)
            yield line(title_of(f, False), [
                ratio(divide(value, values.get(p)) if p in values else None)
                for p in peers] + [ratio(divide(value, low)), which or "-"])
        yield ""


def bounds(results):
    """CPU for bulk data, relative to cryptography plus copying, the minimum.
    """
    yield "The floor: the engine without TLS, and cryptography without engine"
    yield line("CPU s/GB", ["bulk", "crypto", "copy", "÷both"])
    for name in names_of(results, "tunnel"):
        for suite, way in ((s, w) for s in NAMES for w in ("down", "up")):
            bulk = value_of(results, f"{way}_{suite}", name)
            plain = value_of(results, f"{way}_default", "copy")
            agreed = results["suites"].get(f"{way}_{suite}", {}).get(name)
            crypto = results["crypto"].get(name, {}).get(agreed, {}).get(way)
            both = crypto + plain if crypto and plain else None
            yield line(f"{name}, {way}, {NAMES[suite]}",
                       [*map(number, (bulk, crypto, plain)),
                        ratio(divide(bulk, both))])
    for suite, table in results["crypto"].get("openssl", {}).items():
        for way in ("down", "up"):
            yield line(f"openssl, {way}, {AGREED.get(suite, suite)}",
                       ["-", number(table[way]), "-", "-"])
    yield ""


def without_tls(results, figure, server):
    """The value of the same server without TLS."""
    kind = next(s["kind"] for s in results["servers"] if s["name"] == server)
    return value_of(results, figure,
                    "copy" if kind == "tunnel" else server + " plain")


def plain(results):
    """The cost of a TLS connection in plain TCP connections."""
    names = names_of(results, "tunnel") + names_of(results, "peer")
    plains = [without_tls(results, "full1.3", name) for name in names]
    yield "Server CPU of a TLS connection ÷ that of one through the same " \
        "engine without TLS"
    yield line("", names)
    yield line("without TLS, µs", map(number, plains))
    for f in rows_of(results, "handshakes"):
        yield line(title_of(f, False),
                   [ratio(divide(f["values"].get(name), without))
                    for name, without in zip(names, plains)])
    yield ""


def spread(results):
    """The spread of the rounds: (largest - smallest) / median."""
    found = [(max(rounds) - min(rounds)) / statistics.median(rounds)
             for f in results["figures"] for rounds in f["rounds"].values()
             if len(rounds) > 1 and statistics.median(rounds)]
    return statistics.median(found) if found else None


def about(results):
    m = results["machine"]
    yield (f"{m['date']}, {m['cpus']} CPUs ({m['cpu']}), {m['system']}, Linux "
           f"{m['kernel']}, OpenSSL {m['openssl']}"
           f"{', a quick run' if results['quick'] else ''}")
    yield ", ".join(f"{s['name']} {s['version']}" for s in results["servers"]
                    if not s["missing"])
    for s in results["servers"]:
        if s["missing"]:
            yield f"left out: {s['name']}: {s['missing']}"
    yield ("One worker each, on a CPU that client and service don't use"
           + (":" if m["cpus"] > 1 else "; but here there is one CPU only:")
           + " medians over rounds in which")
    apart = spread(results)
    yield ("the servers take turns"
           + (f"; those of a figure lie {apart:.0%} apart, in the median"
              if apart is not None else "") + ".")
    yield (f"The load of the machine was {m['load']:.1f} before. System calls "
           f"were counted by {results['counter'] or 'nothing'}.")
    yield (f"Each latency is that of {results['samples']:,} samples or more in "
           "a round.")
    agreed = results["suites"].get("down_default", {})
    for suite in sorted(set(agreed.values()) - {"none"}):
        yield (f"The client's default suite is {AGREED.get(suite, suite)} with "
               + ", ".join(s for s in agreed if agreed[s] == suite) + ".")
    yield ""


def shared_keys(results):
    """The cost of a handshake with a shared key, relative to a certificate."""
    values = {v: values_of(results, f"psk{v}") for v in ("1.3", "1.2")}
    names = [n for kind in ("tunnel", "peer") for n in names_of(results, kind)
             if n in values["1.3"] or n in values["1.2"]]
    if not names:
        return
    yield "Server CPU for a connection with a shared key ÷ that with a certificate"
    yield line("", names)
    for version, found in values.items():
        yield line(f"full, TLS {version}", [
            ratio(divide(found.get(n), value_of(results, f"full{version}", n)))
            for n in names])
    for s in results["servers"]:
        if s["kind"] == "pair" and s["name"] in values["1.3"]:
            yield (f"{s['name']} {s['version']}, with such a key and a protocol "
                   f"of its own: {number(values['1.3'][s['name']])} µs.")
    yield ""


def resumed(results):
    """Resumption in the client role, with the default configuration."""
    shares = results.get("resumed")
    if shares:
        yield "Of the client's side's connections as it comes, so many are " \
            "resumed: " + ", ".join(f"{name} {share:.0%}"
                                    for name, share in shares.items()) + "."
        yield ""


def main_part(results):
    """The part for README, without ratios to each peer."""
    groups = [g for g in TITLES if g != "http"]
    for part in (about(results), figures(results, groups), resumed(results),
                 figures(results, ["http"], True), shared_keys(results),
                 plain(results)):
        yield from part


def table(results):
    groups = [g for g in TITLES if g != "http"]
    for part in (main_part(results), bounds(results), ratios(results, groups),
                 ratios(results, ["http"], True)):
        yield from part
    for note in results["notes"]:
        yield f"no {note['figure']} of {note['server']}: {note['why']}"
