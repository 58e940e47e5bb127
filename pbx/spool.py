"""Lines that wait on disk, oldest first, and outlive the process that wrote them."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Sequence
from pathlib import Path


class Spool:
    """An append-only file that is emptied once every line of it has been taken.

    A line stays until it is forgotten, and after a crash those of the last, half-taken file come again: whoever
    takes them must bear to see a line twice. All methods block on the disk and raise OSError.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.waiting = 0  # lines not forgotten yet
        self._file = -1
        self._taken = 0  # bytes at the head of the file that are forgotten

    def open(self) -> None:
        """Takes up what an earlier process left. Raises BlockingIOError while another process has this spool."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.close()
            raise
        whole = 0
        with self.path.open("rb") as reader:
            for line in reader:
                if line.endswith(b"\n"):
                    self.waiting += 1
                    whole += len(line)
        # A crash in the middle of an append leaves a torn line, which was never promised to anybody.
        # It goes before the next line is joined to it.
        os.ftruncate(self._file, whole)

    def append(self, lines: Sequence[bytes]) -> None:
        """Adds the lines, all or none; they are on the disk when this returns."""
        end = os.fstat(self._file).st_size
        left = memoryview(b"".join(line + b"\n" for line in lines))
        try:
            while left:
                left = left[os.write(self._file, left):]
            os.fsync(self._file)
        except OSError:
            os.ftruncate(self._file, end)
            raise
        self.waiting += len(lines)

    def head(self, most: int) -> list[bytes]:
        """The oldest lines, without their line ends."""
        with self.path.open("rb") as reader:
            reader.seek(self._taken)
            return [reader.readline().rstrip(b"\n") for _ in range(min(most, self.waiting))]

    def forget(self, lines: Sequence[bytes]) -> None:
        """Takes away the oldest lines, as `head` gave them."""
        self.waiting -= len(lines)
        self._taken += sum(len(line) + 1 for line in lines)
        if not self.waiting:
            os.ftruncate(self._file, 0)
            self._taken = 0

    def close(self) -> None:
        os.close(self._file)
        self._file = -1
