"""Installs sccunet, its data pipeline and its programs, in layers: docs/installation.md."""

from pathlib import Path

from setuptools import find_packages, setup

# What training, scoring and plotting need beside TensorFlow.
_TRAINING = [
    "keras>=3.11",  # older ones do not tell callbacks which step of several was the last
    "matplotlib>=3.10",
    "ml_collections",
    "musdb",
    "museval",
    "pyyaml",
    "sccunet[wiener]",
    "scipy",
    "tensorboard",
]
_TENSORFLOW = ">=2.17,<2.22"

setup(
    name="sccunet",
    version="0.1.0",
    description="Spectrogram-Channels U-Net for music source separation, in TensorFlow/Keras",
    long_description=Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    packages=find_packages(include=["sccunet*", "data_pipeline*", "experiments*"]),
    package_data={
        "": ["*.json", "*.sh"],
        "sccunet": ["py.typed", "pretrained/*/*"],
        "experiments.playing": ["static/*"],
        "experiments.recordings": ["*"],
    },
    entry_points={"console_scripts": ["sccunet = experiments.command:main"]},
    python_requires=">=3.11",
    # What separating needs. `sccunet.files` locks folders with filelock, which knows the locks of
    # every system.
    install_requires=[
        "absl-py",
        "av>=16.1",
        "filelock>=3.13",
        "numpy",
        "openvino>=2025.0",
        "soundfile>=0.13",
        "soxr",
        "tqdm",
    ],
    # `experiments.missing` says which extra brings a module.
    extras_require={
        # An export has warm-up requests for TensorFlow Serving, whose form `serve` brings.
        "train": [f"tensorflow{_TENSORFLOW}", "sccunet[serve]", *_TRAINING],
        "gpu": ["sccunet[train]", f"tensorflow[and-cuda]{_TENSORFLOW}"],
        # In place of `train`: both packages contain the module tensorflow. Keras supports TPUs up
        # to this TensorFlow.
        "tpu": ["tensorflow-tpu==2.19.*", *_TRAINING],
        # Keras on JAX, without TensorFlow: `KERAS_BACKEND=jax sccunet train`. JAX's own extras
        # bring the devices: jax[cuda12] GPUs, jax[tpu] TPUs.
        "jax": ["jax", "keras>=3.11", "ml_collections", "musdb", "pyyaml", "scipy"],
        # A second reader of WAV files, see `data_pipeline.readers`. The ops of tensorflow-io's last
        # release load with TensorFlow 2.16 and 2.17 only.
        # TensorBoard 2.17 imports pkg_resources, which newer setuptools lack.
        "tfio": [
            "sccunet[train]",
            "tensorflow==2.17.*",
            "tensorflow-io==0.37.1",
            "setuptools<81",
        ],
        # Requests by gRPC; those by REST need nothing.
        "serve": [f"tensorflow{_TENSORFLOW}", f"tensorflow-serving-api{_TENSORFLOW}"],
        # `experiments.catalogue` uses parts of Beam that other versions may not have.
        "beam": ["apache-beam==2.77.*"],
        "dask": ["sccunet[beam]", "dask>=2026.8", "distributed>=2026.8"],
        "player": ["starlette", "uvicorn"],
        "tags": ["mutagen"],
        # The module pyworld, with wheels; pyworld itself has to be compiled.
        "free": ["pyworld-prebuilt", "scipy"],
        "wiener": ["norbert"],
        # setuptools of 70.1 or newer builds a wheel without another package.
        "test": [
            "sccunet[train,dask,player,tags,free]",
            "axe-playwright-python",
            "librosa",
            "playwright",
            "pytest",
            "pytest-xdist",
            "ruff",
            "setuptools>=70.1",
        ],
    },
)
