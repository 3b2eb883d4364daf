#!/usr/bin/env python3
"""Have mbed TLS 3.6 heed all entry points that a driver's description names.

    dispatch.py TEMPLATE

Its generator of driver wrappers does so for a few of them.  In the others the
template has calls by hand, such as those of mbed TLS's own test driver.  Each of
these, as far as it is a transparent driver's and needs no context, is put behind
a loop that makes the same for every driver that has the entry point.
"""

import re
import sys

LOOP = """\
{%% for driver in drivers if driver.type == "transparent" -%%}
{%% for capability in driver.capabilities \
if "%s" in capability.entry_points -%%}
%s{%% endfor %%}
{%% endfor -%%}
"""


def main(path):
    with open(path) as f:
        text = f.read()
    blocks = re.compile(r"#if defined\(PSA_CRYPTO_DRIVER_TEST\)\n"
                        r"((?:(?! *#).*\n)*?"
                        r".*\bmbedtls_test_transparent_(\w+) *\((?:(?! *#).*\n)*)"
                        r"#endif.*\n")

    def with_loop(block):
        call, entry_point = block.groups()
        if "operation" in call:
            return block[0]
        call = re.sub(r"(?s)\n[^\n]*\bmbedtls_test_opaque_.*", "\n", call)
        return LOOP % (entry_point, call.replace(
            "mbedtls_test_transparent_", "{{driver.prefix}}_{{driver.type}}_"
            )) + block[0]

    text, n = blocks.subn(with_loop, text)
    if n == 0:
        sys.exit(f"{path}: no call of the test driver's is in it")
    with open(path, "w") as f:
        f.write(text)


main(*sys.argv[1:])
