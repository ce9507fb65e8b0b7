"""nodebench as a wheel, installed where its source tree is not."""

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

ROOT = Path(__file__).parents[2]


def build(folder: Path, *targets: str, source: Path = ROOT) -> dict[str, Path]:
    """The distributions of a source tree: `wheel` and `sdist`, without network."""
    words = [word for target in targets for word in ("-t", target)]
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", str(folder), *words],
        cwd=source, check=True, capture_output=True,
    )  # fmt: skip
    endings = {"wheel": "*.whl", "sdist": "*.tar.gz"}
    return {target: next(folder.glob(endings[target])) for target in targets}


def installed(wheel: Path, folder: Path) -> Path:
    """The scripts of a new environment with the wheel in it; its dependencies are those here."""
    venv.create(folder, symlinks=True)
    names = {"base": str(folder), "platbase": str(folder)}
    packages = Path(sysconfig.get_path("purelib", "venv", names))
    # A path in a .pth file is searched last, and .pth files there, as this one's own, are not read.
    (packages / "shared.pth").write_text(sysconfig.get_path("purelib"))
    python = folder / "bin" / "python"
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps",
         "--no-index", "--disable-pip-version-check", str(wheel)],
        check=True, capture_output=True,
    )  # fmt: skip
    return python.parent


def command(scripts: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The installed command line in a folder, without anything of this process's paths."""
    known = {"PYTHONPATH", "NODEBENCH_RUNS", "NODEBENCH_DATA", "VIRTUAL_ENV"}
    environment = {name: value for name, value in os.environ.items() if name not in known}
    return subprocess.run(
        [str(scripts / "nodebench"), *arguments],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
