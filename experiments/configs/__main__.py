"""Lists the configurations that --config accepts by name.

Example:
  sccunet configs
"""

import ast
from collections.abc import Sequence
from pathlib import Path

from experiments import cli, configs


def main(_: Sequence[str]) -> None:
    """Prints the name and the first docstring line of each configuration."""
    for name in configs.names():
        about = ast.get_docstring(ast.parse(Path(configs.path_of(name)).read_text()))
        print(f"{name:<14} {about.splitlines()[0]}")


if __name__ == "__main__":
    cli.run(main)
