"""The commands and files in the README and the manuals."""

import glob
import os
import re

from support import TOP

MANUALS = sorted(glob.glob("*.[578]", root_dir=os.path.join(TOP, "man")))


def read(*path):
    with open(os.path.join(TOP, *path)) as f:
        return f.read()


def blocks(heading=None, language="sh"):
    """The code blocks of the README, or under one of its headings."""
    text = read("README.md")
    if heading:
        text = re.split(rf"^#+ {re.escape(heading)}\n", text, flags=re.M)[1]
        # "# " may also begin a comment in a code block.
        text = re.split(r"^##+ ", text, flags=re.M)[0]
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)


def plain(text):
    """The text of a display, without the escapes of mdoc."""
    return text.replace("\\e", "\\").replace("\\&", "")


def section(page, heading):
    """The source of a section or subsection of a manual."""
    level, text = re.search(
        rf"^\.(S[hs]) \"?{re.escape(heading)}\"?\n(.*)", read("man", page),
        re.M | re.S).groups()
    ends = r"^\.Sh " if level == "Sh" else r"^\.S[hs] "
    return re.split(ends, text, flags=re.M)[0]


def displays(page, heading=None):
    """The displays of a manual, or of one of its sections or subsections."""
    text = section(page, heading) if heading else read("man", page)
    return [plain(x) for x in re.findall(r"^\.Bd -literal.*?\n(.*?)^\.Ed$", text,
                                         re.M | re.S)]
