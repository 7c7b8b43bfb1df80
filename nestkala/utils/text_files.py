"""Reads untrusted YAML and JSON: errors say what is wrong and where, and nothing in the files is executed."""

import json
from pathlib import Path
from typing import Any

import yaml

from .errors import NestKALAError, one_line

_MERGE, _INT = "tag:yaml.org,2002:merge", "tag:yaml.org,2002:int"
_MOST_BITS = 1024


def read_yaml(path: Path) -> Any:
    """The content of a YAML (or JSON) file; plain values only.

    Raises:
        NestKALAError: if it cannot be read, is not YAML, repeats a key in a mapping, or merges mappings by «<<».
    """
    content = _content(path)
    try:
        return _Loader(content.decode("utf-8")).get_single_data()
    except Exception as error:  # PyYAML raises almost any type for invalid values
        raise NestKALAError(f"{path} is not valid YAML:  {_reason(error)}") from None


def read_json(path: Path) -> Any:
    """The content of a JSON file. Raises NestKALAError if it cannot be read, or is not JSON."""
    return parsed_json(_content(path), str(path))


def parsed_json(text: str | bytes, where: str) -> Any:
    """The value of JSON text. Raises NestKALAError, which names `where`, if it is not valid."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise NestKALAError(f"{where} is not JSON: {_reason(error)}") from None


class _Loader(yaml.SafeLoader):
    """The safe loader with YAML 1.2's restrictions: no repeated keys, and no merge keys."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if key.tag == _MERGE:  # with them a few lines can grow without bound
                raise yaml.composer.ComposerError(None, None, "merge keys '<<' are not supported", key.start_mark)
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in seen:
                    raise yaml.composer.ComposerError(None, None, f"key '{key.value}' is given twice", key.start_mark)
                seen.add((key.tag, key.value))
        return node

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        number = super().construct_yaml_int(node)
        if number.bit_length() > _MOST_BITS:  # Python refuses to print it
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
