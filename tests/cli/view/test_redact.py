"""What a snapshot keeps of an object, and what it leaves out."""

from gpufleet_api.crd import WORKLOAD
from gpufleet_cli.view.redact import redacted


def test_schema_of_a_definition_keeps_the_fields_whose_values_are_left_out() -> None:
    """`doctor --from` compares it with the schema of the program."""
    definition = WORKLOAD.definition()

    assert redacted(definition)["spec"] == definition["spec"]


def test_values_and_commands_of_containers_are_left_out() -> None:
    container = {"name": "main", "command": ["login", "secret"], "env": [{"name": "TOKEN", "value": "secret"}]}

    found = redacted({"kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [container]}})

    assert "secret" not in str(found)
    assert found["spec"]["containers"] == [{"name": "main", "env": [{"name": "TOKEN", "value": "REDACTED"}]}]
