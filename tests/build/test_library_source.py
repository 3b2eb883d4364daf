"""The version of mbed TLS that "make deps" fetches, from a simulated Debian.
"""

import os
import re
import shutil
import subprocess

import pytest

from support import TOP

TESTED = "# Comment.\n3.6.7\n3.6.6\tCVE-2026-49300: it is bad\n"
PATCH = """\
A reason.
--- a/library/a.c
+++ b/library/a.c
@@ -1,1 +1,1 @@
-int a = 1;
+int a = 2;
"""
APT_GET = """\
#!/bin/sh
case $* in
*" Label: Debian-Security") cat "$DEBIAN/security" ;;
*" Label: Debian") cat "$DEBIAN/main" ;;
*" update")
	cat "$DEBIAN/says" >&2
	exit "$(cat "$DEBIAN/fails")" ;;
*" source "*)
	for word; do :; done
	package=${word%=*}
	version=${word#*=}
	echo "$version" >>"$DEBIAN/fetched"
	grep -q "^$version " "$DEBIAN/pool" || exit 100
	mkdir "$package-0"
	cd "$package-0"
	mkdir 3rdparty aws-lc debian framework include library scripts
	! grep -q "^$version cmake" "$DEBIAN/pool" || : >aws-lc/CMakeLists.txt
	echo "$package ($version) sid; urgency=low" >debian/changelog
	grep "^$version " "$DEBIAN/pool" | cut -d ' ' -f 2- >library/a.c ;;
esac
"""
APT_CACHE = """\
#!/bin/sh
cat "$DEBIAN/madison"
"""


class Debian:
    """Stubs of apt's programs, and a directory with their data."""

    package, verb, name = "mbedtls", "source", "mbedtls-source"

    def __init__(self, top):
        self.top = str(top)
        self.dir = os.path.join(top, "build", self.name)
        for name, text in (("apt-get", APT_GET), ("apt-cache", APT_CACHE)):
            self.write(f"bin/{name}", text)
            os.chmod(os.path.join(top, "bin", name), 0o755)
        os.mkdir(os.path.join(top, "mbedtls"))
        shutil.copy(os.path.join(TOP, "mbedtls", "build"),
                    os.path.join(top, "mbedtls"))
        self.write("mbedtls/tested", TESTED)
        self.patch = self.write("a.patch", PATCH)
        self.write("main", "http://debian.example.org/debian/\n")
        self.write("security",
                   "http://security.example.org/debian-security/\n")
        self.write("says", "")
        self.write("fails", "0\n")
        self.has()

    def write(self, name, text):
        path = os.path.join(self.top, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as f:
            f.write(text)
        return path

    def read(self, name):
        try:
            with open(os.path.join(self.top, name)) as f:
                return f.read()
        except FileNotFoundError:
            return ""

    def has(self, *packages, line="int a = 1;"):
        """Set the available packages, each "VERSION SUITE"; line: of their
        source.
        """
        split = [package.split() for package in packages]
        self.write("madison", "".join(
            f"   {self.package} | {version:>10} | http://debian.example.org/debian "
            f"{suite}/main Sources\n" for version, suite in split))
        self.write("pool", "".join(
            f"{version} {line}\n" for version, _ in split))

    def fetch(self, status=0):
        """The outputs of mbedtls/build."""
        if os.path.exists(os.path.join(self.top, "fetched")):
            os.remove(os.path.join(self.top, "fetched"))
        p = subprocess.run(
            [os.path.join(self.top, "mbedtls", "build"), self.verb,
             f"build/{self.name}"],
            cwd=self.top, capture_output=True, text=True, timeout=60,
            env={**os.environ, "DEBIAN": self.top, "PATCHES": self.patch,
                 "PATH": os.path.join(self.top, "bin") + ":" +
                 os.environ["PATH"]})
        assert p.returncode == status, p.stderr
        assert sorted(os.listdir(os.path.join(self.top, "build"))) in (
            [self.name, self.name + ".apt"], [self.name + ".apt"])
        return p.stdout, p.stderr

    def fetched(self):
        return self.read("fetched").split()

    def version(self):
        changelog = self.read(f"build/{self.name}/debian/changelog")
        return changelog[changelog.find("(") + 1:changelog.find(")")]


@pytest.fixture
def debian(tmp_path):
    if not shutil.which("dpkg"):
        pytest.skip("dpkg is not installed")
    return Debian(tmp_path)


def test_newest_3_6_is_taken_and_its_suite_named(debian):
    debian.has("4.1.0-1 sid", "3.6.7-3 sid", "3.6.6-1~deb13u1 trixie")
    out, err = debian.fetch()
    assert out == ("mbed TLS 3.6.7-3 from Debian sid is in "
                   "build/mbedtls-source now\n")
    assert err == ""
    assert debian.fetched() == [debian.version()] == ["3.6.7-3"]


def test_all_suites_are_queried_at_this_machines_archive(debian):
    debian.has("3.6.7-3 sid")
    debian.fetch()
    asked = debian.read("build/mbedtls-source.apt/sources.list").splitlines()
    assert [line.split("] ")[1] for line in asked] == [
        "http://debian.example.org/debian/ trixie main",
        "http://debian.example.org/debian/ sid main",
        "http://security.example.org/debian-security/ trixie-security main"]
    assert all(line.startswith("deb-src [signed-by=/usr/share/keyrings/")
               for line in asked)


def test_without_security_archive_the_others_are_queried(debian):
    debian.write("security", "")
    debian.has("3.6.7-3 sid")
    debian.fetch()
    asked = debian.read("build/mbedtls-source.apt/sources.list")
    assert len(asked.splitlines()) == 2
    assert "security" not in asked
    assert debian.version() == "3.6.7-3"


def test_same_version_is_not_fetched_again(debian):
    debian.has("3.6.7-3 sid")
    debian.fetch()
    assert debian.fetch() == (
        "mbed TLS 3.6.7-3 stays in build/mbedtls-source\n", "")
    assert debian.fetched() == []


@pytest.mark.parametrize("newer", ["3.6.7-3+deb13u1 trixie-security",
                                   "3.6.7-4 sid"])
def test_update_is_fetched(debian, newer):
    debian.has("3.6.7-3 sid")
    debian.fetch()
    os.utime(debian.dir, (1, 1))
    debian.has("3.6.7-3 sid", newer)
    debian.fetch()
    assert debian.fetched() == [debian.version()] == [newer.split()[0]]
    assert os.stat(debian.dir).st_mtime > 1


def test_newer_release_is_taken_if_the_patches_fit(debian):
    debian.has("3.6.8-1 sid", "3.6.7-3 trixie")
    out, _ = debian.fetch()
    assert debian.version() == "3.6.8-1"
    assert "tunnel has not been tested with it" in out


def test_newer_release_is_refused_if_a_patch_does_not_fit(debian):
    debian.has("3.6.8-1 sid", "3.6.7-3 trixie")
    debian.write("pool", "3.6.8-1 int b = 1;\n3.6.7-3 int a = 1;\n")
    out, err = debian.fetch()
    assert debian.version() == "3.6.7-3"
    assert "a.patch does not fit" in err
    assert "from Debian trixie" in out


def test_source_is_replaced_if_the_patches_no_longer_fit(debian):
    debian.has("3.6.7-3 sid")
    debian.fetch()
    debian.write("a.patch", PATCH.replace("int a = 1;", "int c = 1;"))
    debian.write("pool", "3.6.7-3 int c = 1;\n")
    debian.fetch()
    assert debian.fetched() == ["3.6.7-3"]


def test_3_6_6_is_taken_with_a_warning_as_the_only_version(debian):
    debian.has("3.6.6-1~deb13u1 trixie", "4.1.0-1 sid")
    for _ in range(2):
        _, err = debian.fetch()
        assert err == ("mbedtls/build: warning: mbed TLS 3.6.6: "
                       "CVE-2026-49300: it is bad\n")
        assert debian.version() == "3.6.6-1~deb13u1"


@pytest.mark.parametrize("there", [[], ["3.6.5-1 sid"], ["4.1.0-1 sid"],
                                   ["2.28.3-1 trixie"]])
def test_no_suitable_version(debian, there):
    debian.has(*there)
    _, err = debian.fetch(status=1)
    assert err.splitlines()[-1] == (
        "mbedtls/build: no mbed TLS 3.6 can be had from Debian: use "
        "MBEDTLS=system or MBEDTLS=/prefix")
    assert debian.fetched() == []


@pytest.mark.parametrize("lost", ["network", "suite", "archive", "file"])
def test_present_source_stays_if_nothing_newer_is_available(debian, lost):
    debian.has("3.6.7-3 sid")
    debian.fetch()
    told = "mbed TLS 3.6.7-3 stays in build/mbedtls-source\n"
    if lost == "network":
        debian.has()
    elif lost == "suite":
        debian.has("3.6.6-1~deb13u1 trixie")
    elif lost == "archive":
        debian.write("main", "")
        debian.write("security", "")
    if lost == "file":
        debian.has("3.6.7-4 sid")
        debian.write("pool", "")
    else:
        debian.write("says", "Get:1\nE: No such host\nE: Some failed\n")
        debian.write("fails", "100\n")
        told = ("not all that Debian has could be seen (" +
                ("apt has no archive of Debian's here" if lost == "archive"
                 else "No such host") + "): " + told)
    out, err = debian.fetch()
    assert out == told
    assert ("3.6.7-4 can't be fetched" in err) == (lost == "file")
    assert debian.version() == "3.6.7-3"


def test_no_network_and_no_source(debian):
    debian.write("fails", "100\n")
    _, err = debian.fetch(status=1)
    assert "use MBEDTLS=system or MBEDTLS=/prefix" in err


class DebianOfAwsLc(Debian):
    package, verb, name = "rust-aws-lc-sys", "aws-lc-source", "aws-lc-source"

    def has(self, *packages, line="cmake"):
        super().has(*packages, line=line)


@pytest.fixture
def debian_of_aws_lc(tmp_path):
    if not shutil.which("dpkg"):
        pytest.skip("dpkg is not installed")
    debian = DebianOfAwsLc(tmp_path)
    debian.write("mbedtls/aws-lc/tested", "# Comment.\n0.42.0\n")
    return debian


def test_aws_lc_is_fetched_and_stays(debian_of_aws_lc):
    debian = debian_of_aws_lc
    debian.has("0.42.0+dfsg-1 sid", "0.41.0-1 sid")
    told = "rust-aws-lc-sys 0.42.0+dfsg-1 {} build/aws-lc-source{}\n"
    assert debian.fetch() == (told.format("from Debian sid is in", " now"), "")
    assert debian.fetched() == [debian.version()] == ["0.42.0+dfsg-1"]
    assert debian.fetch() == (told.format("stays in", ""), "")
    assert debian.fetched() == []
    debian.has()
    debian.write("fails", "100\n")
    out, _ = debian.fetch()
    assert out.endswith(told.format("stays in", ""))


def test_newer_aws_lc_is_taken_if_the_package_contains_it(debian_of_aws_lc):
    debian = debian_of_aws_lc
    debian.has("1.0.0-1 sid", "0.43.0-1 sid", "0.42.0+dfsg-1 sid")
    debian.write("pool", "1.0.0-1 nothing\n0.43.0-1 cmake\n")
    out, err = debian.fetch()
    assert "there is no AWS-LC in" in err
    assert debian.version() == "0.43.0-1"
    assert out.endswith("; tunnel has not been tested with it\n")


@pytest.mark.parametrize("there", [[], ["0.41.0-1 trixie"]])
def test_no_suitable_aws_lc(debian_of_aws_lc, there):
    debian_of_aws_lc.has(*there)
    _, err = debian_of_aws_lc.fetch(status=1)
    assert err.splitlines()[-1] == (
        "mbedtls/build: no rust-aws-lc-sys (AWS-LC) that will do can be had "
        "from Debian: leave ACCEL=aws-lc out")


def test_list_names_vulnerabilities_of_3_6_6():
    with open(os.path.join(TOP, "mbedtls", "tested")) as f:
        tested = [line.split(maxsplit=1) for line in f if line[0] != "#"]
    assert ["3.6.7\n".strip()] == tested[-2]
    assert tested[-1][0] == "3.6.6" and "CVE-2026-49300" in tested[-1][1]


def test_deps_without_apt(tmp_path):
    for name in ("sh", "dirname"):
        os.symlink(shutil.which(name), tmp_path / name)
    p = subprocess.run([os.path.join(TOP, "tests", "deps")],
                       capture_output=True, text=True,
                       env={"PATH": str(tmp_path)})
    assert p.returncode != 0
    assert len(p.stderr.splitlines()) == 1
    assert "make MBEDTLS=system" in p.stderr


def test_deps_without_root(tmp_path):
    """One message lists all missing packages, for root to install."""
    for name in ("sh", "dirname", "grep"):
        os.symlink(shutil.which(name), tmp_path / name)
    for name, text in {"id": "echo 1000", "dpkg-query": "exit 1",
                       "apt-get": "echo installing; exit 1"}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    p = subprocess.run([os.path.join(TOP, "tests", "deps"), "demo"],
                       capture_output=True, text=True,
                       env={"PATH": str(tmp_path), "MUSL": "1"})
    assert p.returncode != 0 and p.stdout == ""
    said, = p.stderr.splitlines()
    named = re.search('"apt-get install --no-install-recommends (.*)" as',
                      said)[1].split()
    assert {"gcc", "make", "curl", "python3", "dpkg-dev", "bzip2",
            "musl-tools"} <= set(named)
