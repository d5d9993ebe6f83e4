"""Limits how many threads a program has at one time; the zygote counts them, outside the program.

The kernel notifies the zygote before a thread starts and before one ends (seccomp_unotify(2)), so the count is exact
and has no race. RLIMIT_NPROC cannot replace it: it counts all processes of the user, and does not apply to root.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct

from harness.sandbox import seccomp

MOST = 32  # threads at one time, the main thread included
_RECEIVE, _SEND = 0xC0502100, 0xC0182101  # SECCOMP_IOCTL_NOTIF_RECV, SECCOMP_IOCTL_NOTIF_SEND
_GO_ON = 1  # SECCOMP_USER_NOTIF_FLAG_CONTINUE


class Threads:
    """Counts the threads of one program from the notifications of its ``listener``."""

    def __init__(self, listener: int):
        self.listener = listener
        self.alive = 1

    def answer(self) -> None:
        """Answers one notification; to be called when the listener is readable."""
        notice = bytearray(80)  # struct seccomp_notif: id, pid, flags, then struct seccomp_data
        try:
            fcntl.ioctl(self.listener, _RECEIVE, notice)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINTR):  # the thread has ended meanwhile
                return
            raise
        identity, _, _, number = struct.unpack_from("=QIIi", notice)
        begins = seccomp.begins_thread(number)
        refused = begins and self.alive >= MOST
        # struct seccomp_notif_resp; EAGAIN is the kernel's own error for too many threads
        answer = struct.pack("=QqiI", identity, 0, -errno.EAGAIN if refused else 0, 0 if refused else _GO_ON)
        try:
            fcntl.ioctl(self.listener, _SEND, answer)
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise
            return  # the call was interrupted and will be reported again
        if not refused:
            self.alive += 1 if begins else -1

    def close(self) -> None:
        os.close(self.listener)
