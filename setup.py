from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = next(
    line.split('"')[1]
    for line in (HERE / "skgate/__init__.py").read_text().splitlines()
    if line.startswith("__version__")
)

EXTRAS = {
    "plot": ["matplotlib"],
    "dask": ["dask[distributed]"],
    "reproduce": ["adversarial-robustness-toolbox", "matplotlib"],
    "cuda12": ["cupy-cuda12x[ctk]>=14"],
    "cuda13": ["cupy-cuda13x[ctk]>=14"],
    "bench": ["asv", "dask[distributed]"],
    "test": [
        "constriction",
        "dask[distributed]",
        "hypothesis",
        "import-linter",
        "matplotlib",
        "pandas",
        "polars",
        "pytest",
        "pytest-xdist",
        "ruff",
        "transformers",
        "zstandard",
    ],
    "doc": [
        "constriction",
        "matplotlib",
        "numpydoc",
        "pillow",
        "pydata-sphinx-theme",
        "sphinx",
        "sphinx-gallery",
        "sphinxcontrib-katex",
        "zstandard",
    ],
}

setup(
    name="skgate",
    version=VERSION,
    description="Complexity of the transformations in neural networks, in bits, scikit-learn style",
    long_description=(HERE / "README.rst").read_text(),
    long_description_content_type="text/x-rst",
    license="BSD-3-Clause",
    python_requires=">=3.11",
    packages=find_packages(include=["skgate", "skgate.*"]),
    package_data={"skgate.pairwise": ["*.cu"]},
    install_requires=[
        "joblib",
        "numkong>=7.8",
        "numpy>=2",
        "scikit-learn>=1.6",
        "scipy",
        "skorch>=1.0",
        "threadpoolctl",
        "torch>=2.6",
        "tqdm",
    ],
    extras_require=EXTRAS,
    classifiers=[
        "Intended Audience :: Science/Research",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
