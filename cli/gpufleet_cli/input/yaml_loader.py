"""PyYAML's safe loader, read as the apiserver would: no key twice, only texts as keys, dates stay texts."""

from collections.abc import Hashable
from typing import Any

import yaml
from yaml.constructor import ConstructorError

try:
    from yaml import CSafeLoader as _Base
except ImportError:  # PyYAML without libyaml: the same, but ten times slower
    from yaml import SafeLoader as _Base  # type: ignore[assignment]  # the same interface

_MERGE = "tag:yaml.org,2002:merge"
_TIMESTAMP = "tag:yaml.org,2002:timestamp"


class Loader(_Base):
    """Raises yaml.MarkedYAMLError, which knows the line, for what kubectl wouldn't send."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """See SafeConstructor."""
        seen: set[str] = set()
        for key_node, _ in node.value:
            if key_node.tag == _MERGE:
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise ConstructorError(None, None, f"the key {key!r} must be a text: quote it", key_node.start_mark)
            if key in seen:
                raise ConstructorError(None, None, f"the key {key!r} stands twice in one object", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != _TIMESTAMP]
    for first, resolvers in _Base.yaml_implicit_resolvers.items()
}
