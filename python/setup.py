"""Builds the extension and the tool with cargo and packs them beside the module: one wheel for every Python.

``KANBAN_VFS_PREBUILT`` names a directory that has them already, built for another platform (scripts/package.sh).
"""

import json
import os
import pathlib
import re
import shutil
import subprocess

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

HERE = pathlib.Path(__file__).resolve().parent
#: The Rust workspace: a source distribution brings it along, in a checkout it is around this directory.
CRATE = HERE / "rust" if (HERE / "rust").is_dir() else HERE.parent
#: Of the workspace, what cargo wants to see: all members, also those that are not built.
SOURCES = ["Cargo.toml", "Cargo.lock", "LICENSE-APACHE", "LICENSE-MIT", "README.md", "build.rs"]
SOURCES += ["benches", "cli", "examples", "include", "preload", "src", "vfs-tests"]
LIBRARY = "libkanban_vfs.so"
START_FILE = "kanban_vfs.pth"

#: For applications in other languages, and the tool: a package without them still serves Python.
BESIDE = [
    (["--lib", "--package", "kanban-vfs-preload"], "libkanban_vfs_preload.so"),
    (["--package", "kanban-vfs-cli", "--bin", "kanban-vfs"], "kanban-vfs"),
]


def version() -> str:
    """The crate's version, which is the package's."""
    manifest = (CRATE / "Cargo.toml").read_text(encoding="utf-8")
    found = re.search(r'^version = "(.+)"$', manifest, re.MULTILINE)
    if found is None:
        raise SystemExit("Cargo.toml has no version")
    return found.group(1)


def build(arguments: "list[str]", name: str) -> str:
    """Builds something with cargo; returns the path of the file of that name, which cargo's configuration decides."""
    prebuilt = os.environ.get("KANBAN_VFS_PREBUILT")
    if prebuilt:
        return os.path.join(prebuilt, name)
    try:
        built = subprocess.run(
            ["cargo", "build", "--release", "--locked", *arguments, "--message-format=json-render-diagnostics"],
            cwd=CRATE,
            stdout=subprocess.PIPE,
            check=True,
            text=True,
        )
    except FileNotFoundError:
        raise SystemExit("cargo is not on the PATH: kanban-vfs is built with Rust 1.85 or later")
    artifacts = (json.loads(line) for line in built.stdout.splitlines())
    for artifact in artifacts:
        for file in artifact.get("filenames", []):
            if file.endswith("/" + name):
                return str(file)
    raise SystemExit(f"cargo built no {name}")


class BuildWithExtension(build_py):
    """Adds the extension to the module's files."""

    def run(self) -> None:
        super().run()
        root = pathlib.Path("." if self.editable_mode else self.build_lib)
        where = root / "kanban_vfs"
        where.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(build(["--lib", "--package", "kanban-vfs"], LIBRARY), where / LIBRARY)
        for arguments, name in BESIDE:
            # Each by itself: cargo would link the extension with what the tool needs.
            try:
                shutil.copy(build(arguments, name), where / name)
            except subprocess.CalledProcessError:
                print(f"kanban-vfs: {name} was not built, which takes Rust 1.89; the package goes without")
        shutil.copyfile(CRATE / "cli" / "src" / "node.js", where / "kanban_vfs_node.js")
        if not self.editable_mode:
            # Beside the package: an interpreter reads it when it starts.
            shutil.copyfile(pathlib.Path(__file__).with_name(START_FILE), root / START_FILE)


class SourcesToo(sdist):
    """Adds the Rust workspace, so that what is unpacked can be built."""

    def make_release_tree(self, base_dir: str, files: "list[str]") -> None:
        super().make_release_tree(base_dir, files)
        left_out = shutil.ignore_patterns("target", "node_modules", "__pycache__")
        for name in SOURCES:
            source, to = CRATE / name, pathlib.Path(base_dir) / "rust" / name
            to.parent.mkdir(exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, to, ignore=left_out)
            else:
                shutil.copyfile(source, to)


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
    cmdclass={"build_py": BuildWithExtension, "bdist_wheel": PlatformWheel, "sdist": SourcesToo},
    distclass=PlatformDistribution,
)
