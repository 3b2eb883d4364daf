"""Processes, and their measurement.  All started processes are in one list,
and are ended by their PIDs.
"""

import os
import re
import select
import signal
import socket
import subprocess
import time

from servers import PATIENCE, Missing

TICK = os.sysconf("SC_CLK_TCK")


class Process:
    started = []
    home = os.sched_getaffinity(0)  # the CPUs of the benchmark itself

    def __init__(self, command, cpus, **keywords):
        """cpus: the set of CPUs that it may use."""
        os.sched_setaffinity(0, cpus)
        try:
            self.popen = subprocess.Popen(command, **keywords)
        finally:
            os.sched_setaffinity(0, Process.home)
        self.pid = self.popen.pid
        Process.started.append(self)

    def pids(self):
        return [self.pid, *descendants(self.pid)]

    def cpu_seconds(self):
        return sum(map(cpu_seconds, self.pids()))

    def pin(self, cpus):
        """Pin all its threads, whatever affinity they chose."""
        for pid in self.pids():
            for tid in list_dir(f"/proc/{pid}/task"):
                try:
                    os.sched_setaffinity(int(tid), cpus)
                except OSError:
                    pass

    def cpu_by_thread(self):
        """(pid, thread) -> seconds, for live threads."""
        found = {}
        for pid in self.pids():
            for tid in list_dir(f"/proc/{pid}/task"):
                try:
                    with open(f"/proc/{pid}/task/{tid}/schedstat") as f:
                        found[pid, tid] = int(f.read().split()[0]) / 1e9
                except OSError:
                    pass
        return found

    def pss(self, of="Pss"):
        """Memory in bytes; shared memory is divided among its users.  Pss_Anon
        excludes file mappings: only this value is compared while clients come
        and go, since they map some of a server's libraries.
        """
        total = 0
        for pid in self.pids():
            with open(f"/proc/{pid}/smaps_rollup") as f:
                total += int(re.search(rf"^{of}: +(\d+)", f.read(),
                                       re.M).group(1))
        return total * 1024

    def read_line(self):
        """Read a line of its output."""
        fd = self.popen.stdout.fileno()
        line = b""
        while not line.endswith(b"\n"):
            if not select.select([fd], [], [], PATIENCE)[0]:
                raise Missing("there is no answer")
            byte = os.read(fd, 1)
            if not byte:
                raise Missing("the client failed" + self.complaint())
            line += byte
        return line.decode().strip()

    def complaint(self):
        if self.popen.stderr is None:
            return ""
        text = self.popen.stderr.read().decode(errors="replace").split("\n")
        return ": " + " ".join(text).strip()[-200:]

    def stop(self):
        if self not in Process.started:
            return
        pids = self.pids()
        for number, seconds in ((signal.SIGTERM, 1), (signal.SIGTERM, 3),
                                (signal.SIGKILL, 3)):
            if self.popen.poll() is None:
                self.popen.send_signal(number)
                try:
                    self.popen.wait(seconds)
                except subprocess.TimeoutExpired:
                    continue
        kill(pids[1:])
        for f in (self.popen.stdin, self.popen.stdout, self.popen.stderr):
            if f:
                f.close()
        Process.started.remove(self)


def list_dir(path):
    try:
        return os.listdir(path)
    except OSError:
        return []


def descendants(pid):
    """All descendants of a process."""
    found = []
    for task in list_dir(f"/proc/{pid}/task"):
        try:
            with open(f"/proc/{pid}/task/{task}/children") as f:
                found += map(int, f.read().split())
        except OSError:
            pass
    return found + [x for child in found for x in descendants(child)]


def kill(pids):
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def cpu_seconds(pid):
    """Of a process: from its clock, and in ticks for its ended children."""
    try:
        alive = time.clock_gettime(~pid << 3 | 2)
        with open(f"/proc/{pid}/stat") as f:
            fields = f.read().rsplit(")", 1)[1].split()
    except OSError:
        return 0
    return alive + sum(map(int, fields[13:15])) / TICK


def is_listening(port):
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]
