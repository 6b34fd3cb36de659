"""Content-addressed files: what was compiled once is found again.

In: text. Out: the path of a file that holds exactly that text, named after its hash.
Files are written beside their place and moved there, so that they are whole or absent,
whatever else writes at the same time. Not its job: what the text is.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Store:
    """A folder of files named `<stem>_<hash of the content><suffix>`."""

    root: Path

    def put(self, text: str, stem: str, suffix: str) -> Path:
        """The path of a file with this text, written unless it is there already.

        A file that was changed or damaged since is written again. Raises `OSError`
        if the folder cannot be written.
        """
        content = text.encode()
        key = hashlib.sha256(content).hexdigest()[:24]
        path = self.root / f"{stem}_{key}{suffix}"
        if path.is_file() and path.read_bytes() == content:
            return path
        self.root.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{stem}_", dir=self.root)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        return path


def default_store() -> Store:
    """The store of this user: `~/.cache/patternc`."""
    return Store(Path.home() / ".cache" / "patternc")
