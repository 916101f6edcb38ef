"""No template, however malformed, makes the validation raise."""

from hypothesis import given
from hypothesis import strategies as st

from gpufleet_api.workload import WorkloadSpec
from gpufleet_operator.model.extended_resources import DEFAULTS
from gpufleet_operator.model.pod_policy import DEFAULT_POLICY
from gpufleet_operator.pods.validate import validate_template

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "spec",
                    "metadata",
                    "containers",
                    "initContainers",
                    "name",
                    "env",
                    "envFrom",
                    "resources",
                    "limits",
                    "affinity",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(JSON)
def test_any_template_is_validated_without_an_exception(template: object) -> None:
    spec = WorkloadSpec.model_construct(template={"spec": template, "metadata": template})

    validate_template(spec, DEFAULTS, DEFAULT_POLICY)
