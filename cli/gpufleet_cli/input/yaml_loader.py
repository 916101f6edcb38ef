"""PyYAML's safe loader, as strict as the apiserver: no duplicate keys, only strings as keys, dates stay strings."""

from collections.abc import Hashable
from typing import Any

import yaml
from yaml.constructor import ConstructorError

try:
    from yaml import CSafeLoader as _Base
except ImportError:  # PyYAML without libyaml: the same result, ten times slower
    from yaml import SafeLoader as _Base  # type: ignore[assignment]  # the same interface

_MERGE = "tag:yaml.org,2002:merge"
_TIMESTAMP = "tag:yaml.org,2002:timestamp"


class StrictLoader(_Base):
    """Raises yaml.MarkedYAMLError, which has the line, for what the apiserver would reject."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            if key_node.tag == _MERGE:
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise ConstructorError(None, None, f"key {key!r} must be a string: quote it", key_node.start_mark)
            if key in seen:
                raise ConstructorError(None, None, f'duplicate key "{key}"', key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


StrictLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != _TIMESTAMP]
    for first, resolvers in _Base.yaml_implicit_resolvers.items()
}
