"""What tests of the NVML reader ask of the library itself."""

import pynvml


def nvml_is_closed() -> bool:
    """Whether no NVML handle is open any more; closes one that is."""
    try:
        pynvml.nvmlShutdown()
    except pynvml.NVMLError_Uninitialized:
        return True
    return False
