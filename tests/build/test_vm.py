"""Kernel TLS in virtual machines, with an early suitable kernel, which has
faults, and the newest.
"""

import os
import platform
import subprocess
import sys

import pytest

from support import (SANITIZED, TESTS, TOP, TUNNEL, UNDER, Task, files_of,
                     run)

# Kernels by Debian release, and the tests for each: those of kernel TLS, and
# some whose results must not change with it.
KERNELS = {"6.1": "bookworm", "newest": "trixie-backports"}
SCENARIOS = {"6.1": ["ktls", "ktls_records", "end_of_stream", "endpoints"],
             "newest": ["ktls", "ktls_records", "transfer"]}
SECONDS = 1500  # for all kernels

pytestmark = [
    pytest.mark.more,
    pytest.mark.skipif(platform.machine() != "x86_64",
                       reason="the kernels are for x86-64"),
    pytest.mark.skipif(SANITIZED or bool(UNDER) or
                       "TUNNEL_VARIANT" in os.environ,
                       reason="runs beside the variants"),
    pytest.mark.seconds(SECONDS + 300),
]


def scenarios(kernel):
    release = KERNELS[kernel]
    run(os.path.join(TESTS, "vm", "kernel"), release, timeout=120)
    environment = {
        "TUNNEL_VM": "yes", "TUNNEL": TUNNEL, "TUNNEL_MB": "20",
        "TUNNEL_SLOW": "4", "TUNNEL_ARGS": "ktls=require",
        "TUNNEL_TRANSFERS": "42",  # 1,008 in all ways, in both kernels
    }
    p = subprocess.run(
        [os.path.join(TESTS, "vm", "boot"), "-t", str(SECONDS), release,
         "env", *(f"{k}={v}" for k, v in environment.items()),
         sys.executable, "-B", "-m", "pytest", "-q", "--color=no",
         "--tb=short", "-p", "no:cacheprovider", "-k", "not many_conn",
         *files_of(SCENARIOS[kernel])],
        cwd=TOP, stdout=subprocess.PIPE, text=True,
        stderr=subprocess.STDOUT, timeout=SECONDS + 300)
    assert p.returncode == 0, p.stdout[-20000:]


@pytest.fixture(scope="module")
def runs(request):
    """All selected kernels, started at once."""
    wanted = [item.callspec.params["kernel"] for item in request.session.items
              if item.module is request.module]
    return {kernel: Task(scenarios, kernel) for kernel in wanted}


@pytest.mark.parametrize("kernel", KERNELS)
def test_kernel(runs, kernel):
    runs[kernel].result(SECONDS + 300)
