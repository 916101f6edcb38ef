"""The verdict on a workload, once per generation: can pods be made from it, and if not, why?

Behind the rules stands a guard. A template is free-form, and an error that a rule should have prevented would end the
process, again after each restart, for everybody's workloads. So what will be done with the template is tried here
first, and an error makes a problem of that one workload.
"""

import traceback

from gpufleet_api.workload import GPUWorkload
from gpufleet_common.field_errors import internal
from gpufleet_operator.fleet.engine_input import request
from gpufleet_operator.model.extended_resources import Resources
from gpufleet_operator.model.objects import Workload
from gpufleet_operator.model.state_types import TemplateCheck
from gpufleet_operator.placement.packing import PodType
from gpufleet_operator.pods import build, validate
from gpufleet_operator.pods.requests import pod_needs

_PATH = "spec.template"
_MAX_ERROR = 512


def judge(workload: Workload, model: GPUWorkload, resources: Resources) -> TemplateCheck:
    """Judge a workload that parses. Never raises."""
    try:
        found = validate.validate_template(model.spec, resources)
        if not found:
            _try(workload, model, resources)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is one workload's, and the others' must go on
        message = internal(_PATH, f"{type(error).__name__}: {error}"[:_MAX_ERROR])
        return TemplateCheck(workload.generation, (message,), traceback.format_exc())
    return TemplateCheck(workload.generation, found)


def _try(workload: Workload, model: GPUWorkload, resources: Resources) -> None:
    """Everything that reads the template later on."""
    name = build.pod_name(workload.name, 0, workload.uid)
    body = build.build(workload, model.spec, 0, name, resources)
    pod_needs(body["spec"])
    PodType.of(request(model, resources=resources), 1)
