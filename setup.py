"""Installs sccunet, its data pipeline and its programs."""

from pathlib import Path

from setuptools import find_packages, setup

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
        "sccunet": ["models/*/*"],
        "experiments.recordings": ["*"],
    },
    entry_points={"console_scripts": ["sccunet = experiments.command:main"]},
    python_requires=">=3.11",
    install_requires=[
        "tensorflow>=2.17,<2.22",
        "keras>=3.8",
        "numpy",
        "absl-py",
        "filelock>=3.13",
        "ml_collections",
        "av>=16.1",
        "soundfile",
        "soxr",
        "scipy",
        "pyyaml",
        "norbert",
        "tensorflow-serving-api>=2.17,<2.22",
        "musdb",
        "museval",
        "matplotlib>=3.10",
        "tqdm",
        "tensorboard",
    ],
    extras_require={
        # A second reader of WAV files, see `data_pipeline.readers`. The ops of tensorflow-io's last
        # release load with TensorFlow 2.16 and 2.17 only.
        # TensorBoard 2.17 imports pkg_resources, which newer setuptools lack.
        "tfio": ["tensorflow==2.17.*", "tensorflow-io==0.37.1", "setuptools<81"],
        "gpu": ["tensorflow[and-cuda]>=2.17,<2.22"],
        # `experiments.catalogue` uses parts of Beam that other versions may not have.
        "beam": ["apache-beam==2.77.*"],
        # setuptools of 70.1 or newer builds a wheel without another package.
        "test": [
            "pytest",
            "pytest-xdist",
            "librosa",
            "ruff",
            "setuptools>=70.1",
            "apache-beam==2.77.*",
        ],
    },
)
