"""The keys of the configuration, as tunnel -h, tunnel.conf(5) and the example
have them.
"""

import re

import support
from documents import read
from support import run


def table():
    """The keys, in the groups of tunnel -h."""
    keys = run(support.TUNNEL, "-h").decode().split(" explains them:\n")[1]
    return re.findall(r"(?<= )[a-z_]+", re.sub("^ {,2}.{13}", "", keys,
                                               flags=re.M))


def manual_items():
    """Each key's text in tunnel.conf(5), from its .It to the next."""
    text = read("man", "tunnel.conf.5")
    parts = re.split(r"^\.It Ic ([a-z_]+) =.*$", text, flags=re.M)[1:]
    items = dict(zip(parts[::2], parts[1::2]))
    assert len(items) == len(parts) // 2, "a key has two items"
    return {key: re.split(r"^\.S[hs] ", body, flags=re.M)[0]
            for key, body in items.items()}


def plain(mdoc):
    """The words, without the markup."""
    text = re.sub(r"^\.\w\w +", "", mdoc, flags=re.M)
    return re.sub(r" (?=[.,;](?: |$))", "", " ".join(text.split()))


def manual_closings():
    """Key -> its default and what is allowed, by the end of its text."""
    found = {}
    for key, body in manual_items().items():
        end = re.search(r"\n\.Pp\nDefault:((?:\n| ).*?)\nAllowed:((?:\n| ).*?)"
                        r"\n(?:\.El\n)?$", body, re.S)
        assert end, f"{key} does not end with its default and limits"
        found[key] = [plain(part).removesuffix(".") for part in end.groups()]
    return found


def example():
    """The keys in the example: key -> its values."""
    found = {}
    for line in read("tunnel.conf.example").splitlines():
        match = re.fullmatch(r"#?([a-z_]+) = (.+)", line)
        if match:
            found.setdefault(match.group(1), []).append(match.group(2))
    return found
