"""Names of databases, https://www.sqlite.org/uri.html."""

import os
from typing import Optional, Union
from urllib.parse import quote, unquote, unquote_to_bytes

#: What :func:`open` takes: the name of a file.
Path = Union[str, bytes, "os.PathLike[str]", "os.PathLike[bytes]"]


def is_uri(path: Path) -> bool:
    """Whether a name is a URI already: a string, never a path object, that begins with ``file:``."""
    return isinstance(path, str) and path.startswith("file:")


def file_of(path: Path) -> bytes:
    """The name of the file that a path or a URI means."""
    if not is_uri(path):
        return os.fsencode(path)
    name = str(path)[len("file:") :].partition("#")[0].partition("?")[0]
    if name.startswith("//"):
        name = "/" + name[2:].partition("/")[2]
    return unquote_to_bytes(name)


def parameter_of(uri: str, name: str) -> Optional[str]:
    """The value of a parameter of a URI, the first one as SQLite has it, or None."""
    for parameter in uri.partition("#")[0].partition("?")[2].split("&"):
        key, _, value = parameter.partition("=")
        if unquote(key) == name:
            return unquote(value)
    return None


def uri(path: Path, **parameters: Union[str, int]) -> str:
    """The URI of a database that is opened through the VFS, ``file:board.db?vfs=kanban``.

    ``path`` is the name of a file, with any characters in it, or a ``file:`` URI, whose parameters
    stay as they are. The function adds ``parameters``: SQLite's (``mode="ro"``) and the VFS's
    (``kanban_busy_timeout=200``).

    Raises:
        ValueError: The name has a NUL in it, or the URI names another VFS, or it has one of the
            parameters already.
    """
    if is_uri(path):
        # SQLite ignores the fragment.
        name, _, query = str(path).partition("#")[0].partition("?")
        given = [parameter for parameter in query.split("&") if parameter]
    else:
        file = os.fsencode(path)
        if b"\0" in file:
            raise ValueError(f"{path!r} cannot be the name of a file: it has a NUL in it")
        # Two slashes would begin the name of a host.
        name = ("file://" if file.startswith(b"//") else "file:") + quote(file)
        given = []

    known = {unquote(key): unquote(value) for key, _, value in (p.partition("=") for p in given)}
    if known.get("vfs", "kanban") != "kanban":
        raise ValueError(f"{path!r} names another VFS than kanban")
    wanted = {key: str(value) for key, value in parameters.items()}
    if "vfs" not in known:
        wanted.setdefault("vfs", "kanban")
    for key, value in wanted.items():
        if key in known:
            raise ValueError(f"{path!r} has a parameter {key} already")
        given.append(f"{quote(key, safe='')}={quote(value, safe='')}")
    return f"{name}?{'&'.join(given)}"
