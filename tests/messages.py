"""The messages of the program, out of its sources; examples of them, out of the
tests; and what the manual says of them.

As a program: the list of all, to be read from top to bottom.
"""

import ast
import collections
import glob
import os
import re

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

Message = collections.namedtuple("Message", "place level call text")

# What takes a message, and which of its arguments that is.
LEVELS = {"log_error": "error", "log_warning": "warning",
          "log_notice": "notice", "log_info": "info", "log_debug": "debug"}
TAKERS = {**{name: 0 for name in LEVELS}, "log_at": 1, "tls_fail": 1,
          "tls_pem_fail_shape": 3, "tls_pem_fail_to_find": 2,
          "tls_reject": 2, "warn": 1, "conn_set_reason": 1, "conn_end": 3,
          "conn_dial": 2, "connection_fail": 1, "abort_all": 1,
          "forward_abort_all": 1, "worker_drain": 2, "printf": 0,
          "fprintf": 1, "dprintf": 1,
          "snprintf": 2, "text_add": 1, "return": 0, "MARK": 9}
# Strings that nobody reads as a sentence: Prometheus, systemd, wire formats.
NO_TAKERS = {"print_metric", "begin_metric", "print_sample", "daemon_notify",
             "expand_label", "strstr", "strcmp", "strncmp", "strspn",
             "strcspn", "strpbrk", "getenv", "setenv", "open", "fopen",
             "fdopen", "strtok_r", "strsep", "strchr", "strftime", "openlog",
             "memfd_create", "_Static_assert", "static_assert", "setsockopt",
             "memcmp", "send", "take_descriptor"}

TOKEN = re.compile(r"""
    /\*.*?\*/ | //[^\n]* | ^\#[ ]*(?:include|error|if|elif)(?:\\\n|[^\n])*
  | ^\#[ ]*define[ \t]+\w+ | '(?:\\.|[^'\\])+'
  | (?P<string>"(?:\\.|[^"\\])*") | (?P<word>[A-Za-z_]\w*)
  | (?P<mark>[()\[\]{},;]) | (?P<line>\n) | [^\S\n]+ | .
""", re.S | re.X | re.M)
CONVERSION = re.compile(r"%[-+ #0]*(?:\*|\d+)?(?:\.(?:\*|\d+))?"
                        r"(?:hh|h|ll|l|j|z|t)?[a-zA-Z]")


def plain(literal):
    """What the program has in memory."""
    return re.sub(r"\\(x[0-9a-f]{2}|[0-7]{1,3}|\n|.)", lambda m: {
        "n": "\n", "t": "\t", "r": "\r", '"': '"', "\\": "\\", "'": "'",
        "\n": "", "a": "\a"}.get(m.group(1), "\0"), literal, flags=re.S)


def string_macros(text):
    """Name -> string, also of those composed of others: the last of a name."""
    part = r'"(?:\\.|[^"\\\n])*"|\b\w+\b|[ \t]'
    found = {}
    for name, value in re.findall(
            rf"^#define[ \t]+(\w+)[ \t]+((?:{part})+)$", text, re.M):
        parts = re.findall(r'"((?:\\.|[^"\\])*)"|(\w+)', value)
        if '"' in value and all(word in found for _, word in parts if word):
            found[name] = "".join(found.get(word, string)
                                  for string, word in parts)
    return found


def literals(text):
    """Each string of a C source, joined: (line, call, argument, string)."""
    calls, line, word, found, last = [], 1, "", [], None
    macros = string_macros(text)
    for match in TOKEN.finditer(text):
        kind, token = match.lastgroup, match.group()
        if kind == "string" or (kind == "word" and token in macros):
            string = macros[token] if kind == "word" else token[1:-1]
            if last is not None:
                last[3] += plain(string)
            else:
                call, argument = calls[-1] if calls else ("", 0)
                last = [line, call, argument, plain(string)]
                found.append(last)
        elif kind == "word":
            if token == "return":
                calls = [("return", 0)]
            if not token.startswith("PRI"):
                word, last = token, None
        elif kind == "mark":
            last = None
            if token in "([{":
                calls.append((word if token == "(" and word != "return" else
                              calls[-1][0] if token == "(" and calls else "",
                              0))
            elif token in ")]}" and calls:
                calls.pop()
            elif token == "," and calls:
                calls[-1] = (calls[-1][0], calls[-1][1] + 1)
            elif token == ";":
                calls = []
            word = ""
        elif not token.isspace() and not token.startswith(("/*", "//")):
            last = None
            if token != "*":
                word = ""
        line += token.count("\n")
    return found


# Commands, and names of things.
NO_SENTENCES = ("openssl ", "tunnel handover ", "tunnel: the key", "ca verify")


def is_sentence(text):
    """Two words, at least."""
    return re.search(r"[a-z]{2,}:? +[a-z%\"(]", text) is not None and \
        not text.startswith(NO_SENTENCES)


def messages():
    """All that the program may say, in the order of its sources."""
    found = []
    for path in ["tunnel.c", "forward.c", "tls.c",
                 *sorted(glob.glob("lib/*.c", root_dir=TOP))]:
        with open(os.path.join(TOP, path)) as f:
            text = f.read()
        for line, call, argument, string in literals(text):
            if call in NO_TAKERS or not re.search("[a-z]{2}", re.sub(
                    CONVERSION, "", string)):
                continue
            is_taken = TAKERS.get(call) == argument
            if (is_taken and call not in ("return", "printf", "fprintf",
                                          "snprintf", "text_add", "dprintf")
                    ) or is_sentence(string):
                found.append(Message(f"{path}:{line}", LEVELS.get(
                    call if is_taken else "", ""), call, string))
    return found


def fragments(text):
    """Its parts that are always the same."""
    return [x for x in re.split(CONVERSION, text.replace("%%", "%")) if x]


def python_strings(text):
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.JoinedStr):
            yield "".join(x.value if isinstance(x, ast.Constant) else
                          "{" + ast.unparse(x.value) + "}"
                          for x in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def examples():
    """What the tests expect, without what a regular expression escapes."""
    found = []
    for path in sorted(glob.glob("tests/**/*.py", root_dir=TOP,
                                 recursive=True)):
        with open(os.path.join(TOP, path)) as f:
            found += [(path, x) for x in python_strings(f.read())]
    for path in sorted(glob.glob("tests/unit/*.c", root_dir=TOP)):
        with open(os.path.join(TOP, path)) as f:
            found += [(path, x[3]) for x in literals(f.read())]
    return [(path, re.sub(r"\\(\W)", r"\1", x)) for path, x in found
            if len(x) > 4]


def find_example(text, among):
    """The best one: all of the message, or a part that is no other's."""
    parts = [x.strip(" ,;:()\"\n") for x in fragments(text)]
    parts = [x for x in parts if len(x) > 3]
    whole = re.compile(".*".join(map(re.escape, parts)), re.S)
    longest = max(parts, key=len, default="")
    best = None
    for path, x in among:
        if whole.search(x):
            return path, x
        bare = x.strip(" :;,^$\n")
        if longest in x or (bare in longest and " " in bare and
                            (len(bare) > 14 or 2 * len(bare) > len(longest))):
            best = best or (path, x)
    return best


def words(text):
    """Without anything but letters, digits and single blanks."""
    return " ".join(re.findall(r"[A-Za-z0-9]+", text))


def diagnostics():
    """That section of tunnel(8), as words."""
    with open(os.path.join(TOP, "man", "tunnel.8")) as f:
        text = f.read().split("\n.Sh DIAGNOSTICS\n")[1].split("\n.Sh ")[0]
    text = re.sub(r"\\\n", "", text)
    text = re.sub(r"^\.[A-Z][a-z] |(?<= )(?:Ar|No|Ns|Qo|Qc|Qq|Op|Ic|Dv|Cm|Pq|"
                  r"Sq|Fl)(?= |$)", "", text, flags=re.M)
    return words(text)


if __name__ == "__main__":
    among = examples()
    for m in messages():
        print(f"{m.place}: {m.level or '-'}: {m.text!r}")
        print("        ", repr((find_example(m.text, among) or ["", ""])[1]))
