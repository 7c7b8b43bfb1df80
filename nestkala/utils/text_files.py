"""YAML and JSON that anybody may have written: what is wrong with it is told by name, and nothing in it is run."""

import json
from pathlib import Path
from typing import Any

import yaml

from .errors import NestKALAError, one_line

_MERGE, _INT = "tag:yaml.org,2002:merge", "tag:yaml.org,2002:int"
_MOST_BITS = 1024


def read_yaml(path: Path) -> Any:
    """What a YAML file holds, JSON among them; plain values only.

    Raises:
        NestKALAError: it cannot be read, is no YAML, has a key twice in one mapping, or merges mappings by «<<».
    """
    content = _content(path)
    try:
        return _Loader(content.decode("utf-8")).get_single_data()
    except Exception as error:  # PyYAML raises nearly every type on what it cannot make a value of
        raise NestKALAError(f"{path} is not YAML as it is read here: {_reason(error)}") from None


def read_json(path: Path) -> Any:
    """What a JSON file holds. Raises NestKALAError where it cannot be read, or is no JSON."""
    return parsed_json(_content(path), str(path))


def parsed_json(text: str | bytes, where: str) -> Any:
    """What JSON text holds. Raises NestKALAError, which names `where`, for anything else."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise NestKALAError(f"{where} is not JSON: {_reason(error)}") from None


class _Loader(yaml.SafeLoader):
    """The safe loader, less what YAML 1.2 has dropped: keys that are given twice, and merge keys."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if key.tag == _MERGE:  # by which a few lines can grow without bound
                raise yaml.composer.ComposerError(None, None, "merge keys '<<' are not taken", key.start_mark)
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in seen:
                    raise yaml.composer.ComposerError(None, None, f"key '{key.value}' is given twice", key.start_mark)
                seen.add((key.tag, key.value))
        return node

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        number = super().construct_yaml_int(node)
        if number.bit_length() > _MOST_BITS:  # which Python refuses to print
            raise yaml.constructor.ConstructorError(None, None, "a number is too large", node.start_mark)
        return number


_Loader.add_constructor(_INT, _Loader.construct_yaml_int)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise NestKALAError(f"cannot read {path}: {error.strerror}") from None


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"{error.problem} in line {error.problem_mark.line + 1}"
    return one_line(error)
