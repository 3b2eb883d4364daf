"""Static analysis: cppcheck and clang-tidy report nothing."""

import glob
import os
import re

import pytest

from support import TOP, need, run, why_no_accel

SOURCES = [*run("make", "-s", "-C", TOP, "sources").decode().split(),
           "mbedtls/alloc.c"]
POLLER = "lib/poller.c"
ACCEL = sorted(glob.glob("mbedtls/aws-lc/*.c", root_dir=TOP))
WITH_ACCEL = "-DTUNNEL_AWS_LC -DMBEDTLS_USE_PSA_CRYPTO -Imbedtls/aws-lc " \
    "-isystem build/aws-lc-source/aws-lc/include"
DEFINES = ["-D_GNU_SOURCE", '-DVERSION="0"', "-I.", "-Ilib"]
CHECKS = [
    "bugprone-*", "cert-*", "clang-analyzer-*", "misc-redundant-expression",
    "performance-*",
    # Off: 24 * 60 * 60 fits an int; (void *)(uintptr_t) removes a const on
    # purpose.
    "-bugprone-implicit-widening-of-multiplication-result",
    "-performance-no-int-to-ptr",
    # Off: arrays of pointers are intended.
    "-bugprone-sizeof-expression",
    # Off: free() accepts any pointer.
    "-bugprone-multi-level-implicit-pointer-conversion",
    # Off: adjacent parameters of one type, and numbers as conditions, are
    # fine.
    "-bugprone-easily-swappable-parameters",
    "-bugprone-narrowing-conversions",
    # Off: an assignment in a condition is an idiom of this code.
    "-bugprone-assignment-in-if-condition",
    # Off: memcpy_s() and similar functions are not available.
    "-clang-analyzer-security.insecureAPI.DeprecatedOrUnsafeBufferHandling",
    # Off: on Linux, a successful call does not change errno.
    "-clang-analyzer-unix.Errno",
    # Off: -1 as a descriptor results in EBADF, as intended.
    "-clang-analyzer-unix.StdCLibraryFunctions",
    # Off: an enum is a named number, and conversions are fine.
    "-clang-analyzer-optin.core.EnumCastOutOfRange", "-cert-int09-c",
    # Off: a switch ignores unlisted values on purpose.
    "-bugprone-switch-missing-default-case",
    # Off: void * between two kinds of sockaddr asserts alignment.
    "-bugprone-casting-through-void",
    # Off: unchecked results of printf() and of clean-up; _exit() in signal
    # handlers.
    "-cert-err33-c", "-bugprone-unused-return-value",
]


def mbedtls():
    """The headers of our own library, on any architecture."""
    found = glob.glob(os.path.join(TOP, "build", "library", "*", "include"))
    return ["-isystem", found[0]] if found else []


def oids():
    """Macros of mbed TLS for strings within strings, for cppcheck."""
    found = set()
    for source in [*SOURCES, *glob.glob("lib/*.h", root_dir=TOP)]:
        with open(os.path.join(TOP, source)) as f:
            found |= set(re.findall(r"\bMBEDTLS_OID_\w+\b(?!\()", f.read()))
    return sorted(found)


def needed():
    """Definitions that mbed TLS needs to avoid an #error."""
    with open(os.path.join(TOP, "tls.c")) as f:
        text = f.read()
    return {"PSA_WANT_ALG_CHACHA20_POLY1305", "PSA_WANT_KEY_TYPE_CHACHA20",
            *re.findall(r"!defined\((MBEDTLS_\w+)\)", text),
            *re.findall(r"^#ifndef (MBEDTLS_\w+)$", text, re.M)}


@pytest.mark.seconds(120)
def test_cppcheck():
    need("cppcheck")
    print(run(
        "cppcheck", "--quiet", "--error-exitcode=1", "--std=c11",
        "--enable=warning,performance,portability", "--inline-suppr",
        "--library=posix", "--suppress=missingIncludeSystem",
        "--suppress=normalCheckLevelMaxBranches", "--template=gcc", "-j2",
        # mmap(2) requires -1 with MAP_ANONYMOUS; the program has a single
        # thread.
        "--suppress=invalidFunctionArg",
        "--suppress=getpwuidCalled", "--suppress=getpwnamCalled",
        "--suppress=getgrnamCalled", "--suppress=readdirCalled",
        "--suppress=getservbynameCalled", *DEFINES,
        "-DMBEDTLS_VERSION_NUMBER=0x03060700",
        '-DMBEDTLS_VERSION_STRING_FULL="mbed TLS"',
        *("-D" + name for name in needed()),
        *(f'-D{name}="x"' for name in oids()), *SOURCES, *ACCEL, cwd=TOP,
        timeout=120).decode())


@pytest.mark.seconds(600)
@pytest.mark.parametrize("source,flags", [
    *((source, "") for source in SOURCES), (POLLER, "-DPOLLER_POLL"),
    *((source, WITH_ACCEL) for source in [*ACCEL, "lib/tls_key.c", "tls.c"]),
])
def test_clang_tidy(source, flags):
    need("clang-tidy")
    if flags == WITH_ACCEL and why_no_accel():
        pytest.skip(why_no_accel())
    print(run("clang-tidy", "--quiet", "--warnings-as-errors=*",
              "--checks=-*," + ",".join(CHECKS), source, "--", "-std=c11",
              *DEFINES, *flags.split(), *mbedtls(), cwd=TOP,
              timeout=600).decode())
