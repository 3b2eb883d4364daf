"""What the README and the manuals tell to type, and the files that they show."""

import glob
import os
import re

from support import TOP

MANUALS = sorted(glob.glob("*.[578]", root_dir=os.path.join(TOP, "man")))


def read(*path):
    with open(os.path.join(TOP, *path)) as f:
        return f.read()


def blocks(heading=None, language="sh"):
    """The blocks of code in the README, or under one of its headings."""
    text = read("README.md")
    if heading:
        text = re.split(rf"^#+ {re.escape(heading)}\n", text, flags=re.M)[1]
        # A comment in a block looks like a heading of the first level.
        text = re.split(r"^##+ ", text, flags=re.M)[0]
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)


def plain(text):
    """A display, as a reader sees it."""
    return text.replace("\\e", "\\").replace("\\&", "")


def displays(page, heading=None):
    """The displays of a manual, or of one of its sections or subsections."""
    text = read("man", page)
    if heading:
        level, text = re.search(
            rf"^\.(S[hs]) \"?{re.escape(heading)}\"?\n(.*)", text,
            re.M | re.S).groups()
        ends = r"^\.Sh " if level == "Sh" else r"^\.S[hs] "
        text = re.split(ends, text, flags=re.M)[0]
    return [plain(x) for x in re.findall(r"^\.Bd -literal.*?\n(.*?)^\.Ed$", text,
                                         re.M | re.S)]
