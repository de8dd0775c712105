"""Filter the system calls of the supervisor and of its programs: only those that programs need remain.

The supervisor runs as the same user as its program. Without the filter, the kernel would let the program change the
supervisor's resource limits and priority. The server compiles the filter (pyexec/domain/seccomp), so that a start costs
no time for it. The filter that Docker has installed still applies: the kernel applies all filters.

Part of the supervisor (see bootstrap.py)."""

import binascii
import ctypes
import errno
import json
import os
import struct

PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, SECCOMP_MODE_FILTER = 22, 38, 2


def install_filter(filters):
    """Filter the system calls of this process and of all processes that it starts.

    `filters` is a JSON object with the filter of each machine in base64. Other machines and 32-bit Pythons, whose calls
    have other numbers, keep Docker's filter only."""
    encoded = json.loads(filters).get(os.uname().machine)
    if encoded is None or struct.calcsize("P") != 8:
        return
    code = binascii.a2b_base64(encoded)
    buffer = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("HP", len(code) // 8, ctypes.addressof(buffer))
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    zero = ctypes.c_ulong(0)
    prctl(PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1), zero, zero, zero)
    if prctl(PR_SET_SECCOMP, ctypes.c_ulong(SECCOMP_MODE_FILTER), program, zero, zero):
        number = ctypes.get_errno()
        # EINVAL: this kernel has no filters. The isolation check decides whether that is accepted.
        if number != errno.EINVAL:
            raise OSError(number, "prctl(PR_SET_SECCOMP)")
