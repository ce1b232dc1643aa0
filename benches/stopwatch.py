"""Runs one program and tells what it cost: `stopwatch.py DESCRIPTOR PROGRAM [ARGUMENT...]`.

A process of its own, and a small one: the kernel counts to a program's peak what the process that
started it had in memory (its pages are the child's until the exec), so that a large one, such as
the benchmark itself, would hide the peaks of small programs. What this one has, some 9 MiB, is the
least that can be told.
"""

import os
import sys
import time


def main() -> None:
    """Writes wait status, seconds and peak (KiB) to the descriptor."""
    descriptor, command = int(sys.argv[1]), sys.argv[2:]
    os.set_inheritable(descriptor, False)
    begin = time.perf_counter()
    child = os.posix_spawn(command[0], command, os.environ)
    _, status, usage = os.wait4(child, 0)
    seconds = time.perf_counter() - begin
    os.write(descriptor, f"{status} {seconds} {usage.ru_maxrss}".encode())


main()
