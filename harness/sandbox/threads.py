"""How many threads a program may have at one time: counted outside it, by the zygote.

The kernel asks before a thread begins and before one ends (seccomp_unotify(2)), so the count is exact and no
program can be quicker than it. A limit on processes (RLIMIT_NPROC) would not do: it counts everything of one
user, and is not held against root.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct

from harness.sandbox import seccomp

MOST = 32  # at one time, the first included
_RECEIVE, _SEND = 0xC0502100, 0xC0182101  # SECCOMP_IOCTL_NOTIF_RECV, SECCOMP_IOCTL_NOTIF_SEND
_GO_ON = 1  # SECCOMP_USER_NOTIF_FLAG_CONTINUE


class Threads:
    """The threads of one program, as its ``listener`` tells of them."""

    def __init__(self, listener: int):
        self.listener = listener
        self.alive = 1

    def answer(self) -> None:
        """Answer one question, once the listener can be read."""
        question = bytearray(80)  # struct seccomp_notif: id, pid, flags, then struct seccomp_data
        try:
            fcntl.ioctl(self.listener, _RECEIVE, question)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINTR):  # who asked has ended
                return
            raise
        identity, _, _, number = struct.unpack_from("=QIIi", question)
        begins = seccomp.begins_thread(number)
        refused = begins and self.alive >= MOST
        # struct seccomp_notif_resp; EAGAIN is what the kernel itself says where there are too many
        answer = struct.pack("=QqiI", identity, 0, -errno.EAGAIN if refused else 0, 0 if refused else _GO_ON)
        try:
            fcntl.ioctl(self.listener, _SEND, answer)
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise
            return  # interrupted: it asks again
        if not refused:
            self.alive += 1 if begins else -1

    def close(self) -> None:
        os.close(self.listener)
