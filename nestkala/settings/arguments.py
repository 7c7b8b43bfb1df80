"""How settings are given on the command line."""

from tyro.constructors import PrimitiveConstructorSpec


def comma_separated(item: type, metavar: str) -> PrimitiveConstructorSpec:
    """How a tuple is given on the command line: its items in one word, which is empty where there are none."""
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=metavar,
        instance_from_str=lambda words: tuple(item(word.strip()) for word in words[0].split(",") if words[0]),
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=lambda value: [",".join(map(str, value))],
    )
