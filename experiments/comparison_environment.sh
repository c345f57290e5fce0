#!/usr/bin/env bash
# Usage: comparison_environment.sh PYTHON
# Installs what the systems of other people need, as experiments/baselines/systems.py lists it, into
# PYTHON's environment, in which sccunet is installed.
set -euo pipefail
python=$1
install=("$python" -m pip install --quiet --disable-pip-version-check)
list() {
  "$python" -c "from experiments.baselines.systems import SYSTEMS
print(*sorted({package for kind in SYSTEMS.values() for package in kind.$1}))"
}

# experiments.benchmark measures musdb, which reads audio with the program ffmpeg.
packages=$(list packages)
"${install[@]}" $packages imageio-ffmpeg==0.6.0
# Last, since pip complains of what they lack in whatever it installs after them.
packages=$(list packages_alone)
"${install[@]}" --no-deps $packages

# torchaudio refuses another torch than the one that it was built for. Open-Unmix imports it, and uses
# nothing of it that is compiled.
libraries=$("$python" -c 'import sysconfig; print(sysconfig.get_path("platlib"))')
rm -f "$libraries"/torchaudio/lib/*.so "$libraries"/torio/lib/*.so
