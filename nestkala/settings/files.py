"""YAML files of settings, shipped with the package or given by path."""

import os
from importlib.resources import files
from pathlib import Path
from typing import Any

from ..utils.errors import NestKALAError, unknown_name
from ..utils.text_files import read_yaml


def shipped_files(package: str) -> dict[str, Path]:
    """{name: path} of the YAML files in a package's folder, in alphabetical order."""
    paths = sorted(Path(str(path)) for path in files(package).iterdir() if path.name.endswith(".yaml"))
    return {path.stem: path for path in paths}


def read_settings(kind: str, name: str, package: str) -> tuple[Path, dict[str, Any]]:
    """Find the file by the name of a shipped one or by path, and read its mapping; {} if the file is empty.

    Args:
        kind: name of the kind of file in errors, such as "config".
        name: name of a shipped file, without .yaml, or the path of any file.
        package: package whose folder holds the shipped files.

    Raises:
        NestKALAError: if there is no such file or name, or it is not a YAML mapping.
    """
    shipped = shipped_files(package)
    path = shipped.get(name) or Path(name)
    if not path.is_file():
        if os.sep in name or name.endswith((".yaml", ".yml")):
            raise NestKALAError(f"there is no {kind} file {name}")
        raise unknown_name(kind, name, shipped)
    values = read_yaml(path)
    values = {} if values is None else values
    if not isinstance(values, dict):
        raise NestKALAError(f"{path} must contain 'key: value' lines, not a {type(values).__name__}")
    for key in values:
        if not isinstance(key, str):
            raise NestKALAError(f"{path}: a key must be a word, not {key!r}")
    return path, values
