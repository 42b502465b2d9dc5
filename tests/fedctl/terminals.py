"""A terminal that can be closed: a pty, with a thread that reads what is written to it."""

import fcntl
import os
import pty
import struct
import termios
import threading
from select import select


class Terminal:
    """`slave` is what a process has as its terminal, `shown` what it has written there."""

    def __init__(self) -> None:
        self._master, self.slave = pty.openpty()
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        self.shown, self._open = b"", True
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while self._open:
            if select([self._master], [], [], 0.05)[0]:
                self.shown += os.read(self._master, 1 << 16)

    def control(self) -> None:
        """In a process that starts a session: make this its terminal."""
        fcntl.ioctl(self.slave, termios.TIOCSCTTY, 0)

    def close(self) -> None:
        """Close the window: the kernel sends SIGHUP, and every later write fails."""
        if self._open:
            self._open = False
            self._reader.join()
            os.close(self.slave)
            os.close(self._master)
