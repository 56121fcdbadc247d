"""Builds the extension with cargo and packs it beside the module: one wheel for every Python."""

import json
import pathlib
import re
import shutil
import subprocess

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

CRATE = pathlib.Path(__file__).resolve().parent.parent
LIBRARY = "libkanban_vfs.so"
START_FILE = "kanban_vfs.pth"


def version() -> str:
    """The crate's version, which is the package's."""
    manifest = (CRATE / "Cargo.toml").read_text(encoding="utf-8")
    found = re.search(r'^version = "(.+)"$', manifest, re.MULTILINE)
    if found is None:
        raise SystemExit("Cargo.toml has no version")
    return found.group(1)


def build_extension() -> str:
    """Builds the extension; returns its path, which cargo's configuration decides."""
    command = ["cargo", "build", "--release", "--lib", "--package", "kanban-vfs"]
    try:
        built = subprocess.run(
            [*command, "--message-format=json-render-diagnostics"],
            cwd=CRATE,
            stdout=subprocess.PIPE,
            check=True,
            text=True,
        )
    except FileNotFoundError:
        raise SystemExit("cargo is not on the PATH: kanban-vfs is built with Rust 1.85 or later")
    artifacts = (json.loads(line) for line in built.stdout.splitlines())
    for artifact in artifacts:
        for name in artifact.get("filenames", []):
            if name.endswith("/" + LIBRARY):
                return str(name)
    raise SystemExit(f"cargo built no {LIBRARY}")


class BuildWithExtension(build_py):
    """Adds the extension to the module's files."""

    def run(self) -> None:
        super().run()
        root = pathlib.Path("." if self.editable_mode else self.build_lib)
        where = root / "kanban_vfs"
        where.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(build_extension(), where / LIBRARY)
        if not self.editable_mode:
            # Beside the package: an interpreter reads it when it starts.
            shutil.copyfile(pathlib.Path(__file__).with_name(START_FILE), root / START_FILE)


class PlatformWheel(bdist_wheel):
    """The extension knows nothing of Python: any version will do, on one platform."""

    def get_tag(self) -> "tuple[str, str, str]":
        return ("py3", "none", super().get_tag()[2])


class PlatformDistribution(Distribution):
    """Not pure Python."""

    def has_ext_modules(self) -> bool:
        return True


setup(
    version=version(),
    cmdclass={"build_py": BuildWithExtension, "bdist_wheel": PlatformWheel},
    distclass=PlatformDistribution,
)
