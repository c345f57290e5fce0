"""Where a model comes from: texts for its metadata and its card."""

import subprocess
from pathlib import Path

NOT_STATED = "not stated"


def git_commit() -> str:
    """Returns the checkout's commit, with `-dirty` if it was changed; "unknown" outside of one."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)  # not a repository around it
        return git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
