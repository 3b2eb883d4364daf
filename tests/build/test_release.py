"""The version and the date of a release agree in all files."""

import datetime
import glob
import os
import re
import shutil

import pytest

import support
from documents import read
from support import TOP, run


def makefile_version():
    return re.search(r"^VERSION\s*= (\S+)$", read("Makefile"), re.M).group(1)


@pytest.fixture
def release():
    """The version and the date of the newest one in the changelog."""
    heading = re.search(r"^## (.*)$", read("CHANGELOG.md"), re.M).group(1)
    if heading == "Unreleased":
        pytest.skip("the changelog has what is not released yet")
    version, date = re.fullmatch(r"(\d+\.\d+\.\d+) - (\d{4}-\d\d-\d\d)",
                                 heading).groups()
    return version, datetime.date.fromisoformat(date)


def test_program_has_the_version_of_the_makefile():
    assert run(support.TUNNEL, "-V").decode().split()[1] == makefile_version()


def test_changelog_has_the_version_of_the_makefile(release):
    assert release[0] == makefile_version()


def test_packages_have_the_version_of_the_makefile():
    """Those of OpenWrt and Alpine, as the manual has them."""
    text = read("man", "tunnel-packages.7")
    found = re.findall(r"^(?:PKG_VERSION:|pkgver)=(.*)$", text, re.M) + \
        re.findall(r"tunnel-(\d[\d.]*\d)\b", text)
    assert len(found) >= 4 and set(found) == {makefile_version()}


def test_changelog_of_debian_has_version_and_date(release):
    if not shutil.which("dpkg-parsechangelog"):
        pytest.skip("it is not a Debian with dpkg-dev")
    version, date = release
    text = run("make", "-s", "-C", TOP, "deb-changelog").decode()
    fields = dict(re.findall(r"^(\w+): (.*)$", run(
        "dpkg-parsechangelog", "-l-", stdin=text.encode()).decode(), re.M))
    assert fields["Version"] == f"{version}-1"
    assert fields["Date"] == date.strftime("%a, %d %b %Y 00:00:00 +0000")
    assert fields["Maintainer"] in read("lib", "deb", "control")


@pytest.mark.parametrize("manual", sorted(glob.glob(os.path.join(
    TOP, "man", "*"))), ids=os.path.basename)
def test_manual_has_the_date_of_the_release(release, manual):
    told = re.match(r"\.Dd (\w+ \d+, \d+)\n", read(manual)).group(1)
    date = datetime.datetime.strptime(told, "%B %d, %Y").date()
    assert date == release[1]
