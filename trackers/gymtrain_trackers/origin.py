"""Whether a run was recorded where it lies, or came from elsewhere and says what anybody may have written."""

from __future__ import annotations

import os
from pathlib import Path

from .errors import TrackerError
from .files import is_within
from .starts import start_entries


def inode_of(directory: Path) -> int | None:
    """Return what tells a directory from a copy of it, and stays the same when it is moved; None where there is none.

    Example:
        >>> inode_of(Path("/nonexistent"))
    """
    try:
        return directory.stat().st_ino
    except OSError:
        return None


def is_ours(directory: Path) -> bool:
    """Whether a run was recorded in this very directory, by this user, and not copied, unpacked or downloaded.

    Every process that recorded the run wrote down the inode of the directory. Whoever sends a directory cannot know
    which one it gets where it is received.

    Raises:
        OSError: the journal cannot be read.

    Example:
        >>> import tempfile
        >>> from gymtrain_trackers import Recorder, Run
        >>> with tempfile.TemporaryDirectory() as root:
        ...     with Recorder([], Run.new(root)) as recorder:
        ...         pass
        ...     is_ours(recorder.run.directory)
        True
    """
    journal = directory / "journal.jsonl"
    inode, user = inode_of(directory), os.geteuid()
    return all(path.stat().st_uid == user for path in (directory, journal)) and all(
        entry.get("inode") == inode for entry in start_entries(journal)
    )


def check_links(directory: Path) -> None:
    """See that nothing which is written while a run is delivered is a link to somewhere else.

    Raises:
        TrackerError: something is.
    """
    ours = [directory / name for name in ("journal.jsonl", "journal.lock", "delivery")]
    for path in [*ours, *(directory / "delivery").glob("*")]:
        if path.is_symlink():
            raise TrackerError(
                f"{str(path)!r} is a symbolic link, which a run that was not recorded here may not have; remove it"
            )


def checked_file(path: Path, directory: Path) -> Path:
    """Return the path of a file or folder of a run that came from elsewhere.

    Raises:
        TrackerError: it is not in the run's directory, a link in it leads out of there, or it is no regular file.
    """
    for each in (path, *path.rglob("*")) if path.is_dir() else (path,):
        if not is_within(each, directory):
            raise TrackerError(
                f"{str(each)!r} is not in the run's directory, and the run was not recorded here: it is not read"
            )
        if each.exists() and not (each.is_file() or each.is_dir()):
            raise TrackerError(f"{str(each)!r} is no regular file; it is not read")
    return path
