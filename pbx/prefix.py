"""Runs the programs that `asterisk/install` unpacked, and finds their files; without a prefix, those of the system."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


_MODULES = ("usr/lib/*-linux-gnu*/asterisk/modules", "usr/lib/asterisk/modules", "usr/lib64/asterisk/modules")


class ProgramMissing(Exception):
    """A program is neither in the prefix nor on PATH; the message says what to do about it."""


class Prefix:
    """A folder made by `asterisk/install`, or `None` for a system that has Asterisk installed in the usual way."""

    def __init__(self, path: Path | None) -> None:
        self.path = path.absolute() if path else None
        # A prefix has its own libc, so that its programs run on older systems: they go through its own loader.
        self._loader = self._first("usr/lib*/ld-linux-*.so.*")
        self._libraries = self._first("usr/lib/*-linux-gnu*")

    def command(self, program: str) -> list[str]:
        """The words that start `program`, to be followed by its arguments. Raises ProgramMissing."""
        inside = self._first(f"usr/[bs]*in/{program}")
        if inside and self._loader and self._libraries:
            # libpulse, which sox and espeak-ng link to, keeps its private half in a folder of its own.
            search = f"{self._libraries}:{self._libraries}/pulseaudio"
            command = [str(self._loader), "--library-path", search, str(inside)]
            # Its data folder is compiled in as an absolute path; the other programs are told theirs by their settings.
            return [*command, f"--path={self._libraries}"] if program == "espeak-ng" else command
        outside = shutil.which(program, path=os.environ.get("PATH", os.defpath) + ":/usr/local/sbin:/usr/sbin")
        if outside:
            return [outside]
        raise ProgramMissing(
            f"{program} is not installed: run asterisk/install {self.path or 'var/asterisk'}, "
            "or install it so that it is on PATH"
        )

    @property
    def data(self) -> Path:
        """Asterisk's data folder (sounds/, moh/, rest-api/): where Debian has it, or where its own build puts it."""
        root = self.path or Path("/")
        folders = (root / "usr/share/asterisk", root / "var/lib/asterisk")
        return next((folder for folder in folders if (folder / "documentation").is_dir()), folders[0])

    @property
    def modules(self) -> Path:
        """Asterisk's loadable modules (*.so): where Debian has them, or where Asterisk's own build puts them.

        Raises ProgramMissing when there are none.
        """
        root = self.path or Path("/")
        folders = (folder for place in _MODULES for folder in sorted(root.glob(place)))
        folder = next(folders, None)
        if folder is None:
            raise ProgramMissing(f"no Asterisk modules under {root / 'usr/lib'}: run asterisk/install var/asterisk")
        return folder

    def _first(self, pattern: str) -> Path | None:
        return next(iter(sorted(self.path.glob(pattern))), None) if self.path else None
