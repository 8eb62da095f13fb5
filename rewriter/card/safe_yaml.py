"""YAML from anybody: plain values only, in time and memory that the length of the text bounds."""

from __future__ import annotations

from typing import Any

import yaml

MOST_VALUES = 1 << 16
LONGEST_NUMBER = 100


class _Loader(yaml.SafeLoader):
    """Plain values without what grows: merged keys (``<<``), and numbers of thousands of digits."""

    values = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Count the values on the way."""
        self.values += 1
        if self.values > MOST_VALUES:
            raise yaml.YAMLError(f"more than {MOST_VALUES} values; a list of labels may be a file of its own")
        return super().compose_node(parent, index)

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Refuse merged keys: a few lines of them stand for gigabytes."""
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                raise yaml.constructor.ConstructorError(
                    None, None, "merged keys (<<) are not read, write them out", key.start_mark
                )

    def short_number(self, node: yaml.ScalarNode) -> Any:
        """Return a number; those in parts of 60 (1:30:00) take time by the square of their length."""
        if len(str(node.value)) > LONGEST_NUMBER:
            raise yaml.constructor.ConstructorError(
                None, None, f"a number of {len(node.value)} characters", node.start_mark
            )
        whole = node.tag == "tag:yaml.org,2002:int"
        return self.construct_yaml_int(node) if whole else self.construct_yaml_float(node)


for _kind in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", _Loader.short_number)


def load_yaml(text: str) -> Any:
    """Read YAML of plain values.

    Raises:
        ValueError: it cannot be read; the text says where and why.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f" in line {mark.line + 1}" if mark else ""
        raise ValueError(f"broken YAML{place}: {error.problem}") from None
    except MemoryError:
        raise
    except Exception as error:  # tags such as !!bool lead to errors of many kinds
        raise ValueError(f"broken YAML: {error or type(error).__name__}") from None


def written_as(text: str, key: str, place: int) -> Any:
    """Return an entry of a list of ``text`` as it is written there; None where that cannot be told.

    Args:
        text: that :func:`load_yaml` reads.
        key: of the list.
        place: of the entry.
    """
    try:
        # The base loader reads every plain word as the text it is in the file.
        return yaml.load(text, Loader=yaml.BaseLoader)[key][place]
    except yaml.YAMLError:  # it takes no list that holds itself
        return None
