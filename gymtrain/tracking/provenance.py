"""What a run was made from, beside its spec: the checkout that the program lies in, and the packages that it uses."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys

GIT_SECONDS = 5.0


def checkout() -> dict[str, str]:
    """Return commit, branch and whether tracked files were changed, of the checkout around the working directory.

    Empty where there is none, git is not installed, or it does not answer in time.
    """
    command = ["git", "status", "--porcelain=v2", "--branch", "--untracked-files=no"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=GIT_SECONDS)
        told.check_returncode()
    except (OSError, subprocess.SubprocessError):
        return {}
    lines = told.stdout.splitlines()
    heads = dict(line.removeprefix("# branch.").partition(" ")[::2] for line in lines if line.startswith("# branch."))
    if heads.get("oid", "(initial)") == "(initial)":
        return {}
    is_dirty = any(not line.startswith("#") for line in lines)
    return {
        "git_commit": heads["oid"],
        "git_branch": heads.get("head", "(detached)"),
        "git_dirty": str(is_dirty).lower(),
    }


def requirements() -> str:
    """Return the distributions of all modules that are imported, as `requirements.txt` has them.

    Example:
        >>> "numpy==" in requirements()
        True
    """
    owners = importlib.metadata.packages_distributions()
    imported = {name.partition(".")[0] for name in list(sys.modules)}
    names = sorted({owner for name in imported for owner in owners.get(name, ())}, key=str.lower)
    return "".join(f"{name}=={importlib.metadata.version(name)}\n" for name in names)
