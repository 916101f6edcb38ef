import pytest

from gpufleet_common import field_errors


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (field_errors.required("spec.a"), "spec.a: Required value"),
        (field_errors.required("spec.a", "name one"), "spec.a: Required value: name one"),
        (
            field_errors.invalid("spec.a", 0, "must be greater than 0"),
            "spec.a: Invalid value: 0: must be greater than 0",
        ),
        (field_errors.invalid("spec.a", None, "must be a map"), "spec.a: Invalid value: null: must be a map"),
        (
            field_errors.unsupported("spec.a", "x", ['"A"', '"B"']),
            'spec.a: Unsupported value: "x": supported values: "A", "B"',
        ),
        (
            field_errors.not_found("spec.a", "x", "must be one of: a, b"),
            'spec.a: Not found: "x": must be one of: a, b',
        ),
        (field_errors.duplicate("spec.a", "x"), 'spec.a: Duplicate value: "x"'),
        (field_errors.forbidden("spec.a", "is reserved"), "spec.a: Forbidden: is reserved"),
        (field_errors.internal("spec.a", "KeyError: b"), "spec.a: Internal error: KeyError: b"),
    ],
)
def test_messages_have_the_grammar_of_field_error(message: str, expected: str) -> None:
    assert message == expected


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ({"a": [1, True, None]}, '{"a": [1, true, null]}'),
        ("m" * 100, '"' + "m" * 56 + "..."),
        ({(1, 2): 3}, "{(1, 2): 3}"),
        ({1}, '"{1}"'),
    ],
)
def test_show_fits_one_line_and_never_raises(value: object, shown: str) -> None:
    assert field_errors.show(value) == shown
