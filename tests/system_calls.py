"""Runs a command with the system calls that a unit of systemd allows it; the kernel refuses all others.

python tests/system_calls.py @system-service ~@privileged -- COMMAND
"""

from __future__ import annotations

import ctypes
import ctypes.util
import errno
import os
import shutil
import subprocess
import sys

LIBRARY = ctypes.util.find_library("seccomp")
AVAILABLE = bool(LIBRARY and shutil.which("systemd-analyze"))
REFUSE, ALLOW = 0x0005_0000 | errno.EPERM, 0x7FFF_0000  # libseccomp's SCMP_ACT_ERRNO(EPERM) and SCMP_ACT_ALLOW
UNKNOWN = -1  # __NR_SCMP_ERROR: another processor's system call, or one that is newer than the library


def expand(name: str) -> set[str]:
    """The system calls in a group of systemd, which may contain other groups."""
    if not name.startswith("@"):
        return {name}
    listed = subprocess.run(
        ["systemd-analyze", "syscall-filter", "--no-pager", name], capture_output=True, text=True, check=True
    )
    words = [line.split()[0] for line in listed.stdout.splitlines()[1:] if line.strip() and "# " not in line]
    return set().union(*map(expand, words))


def restrict(filters: list[str]) -> None:
    """Let this process, and what it becomes, use only the system calls of the filters; `~` takes some away."""
    allowed = expand("@default")
    for each in filters:
        allowed = allowed - expand(each[1:]) if each.startswith("~") else allowed | expand(each)
    library = ctypes.CDLL(LIBRARY)
    library.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(library.seccomp_init(ctypes.c_uint32(REFUSE)))
    for name in sorted(allowed):
        number = library.seccomp_syscall_resolve_name(name.encode())
        if number != UNKNOWN:
            library.seccomp_rule_add(context, ctypes.c_uint32(ALLOW), number, 0)
    if library.seccomp_load(context) != 0:
        sys.exit("The kernel does not take the filter")


if __name__ == "__main__":
    end = sys.argv.index("--")
    restrict(sys.argv[1:end])
    os.execv(sys.argv[end + 1], sys.argv[end + 1 :])
