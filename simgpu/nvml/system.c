/* Initialization, versions, and device lookup. */
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "sim.h"

static int control = -1; /* see sim_open_control */

SIM_EXPORT nvmlReturn_t nvmlInitWithFlags(unsigned int flags) {
    (void)flags;
    sim_lock();
    struct sim_state *state = sim_current();
    unsigned int delay = state == NULL ? 0 : state->delay_ms;
    sim_unlock();
    sim_pause(delay);
    sim_lock();
    state = sim_current();
    nvmlReturn_t result = state == NULL ? NVML_ERROR_DRIVER_NOT_LOADED : state->error;
    if (result == NVML_SUCCESS && sim_initialized++ == 0) {
        sim_number_handles();
        control = sim_open_control();
    }
    sim_unlock();
    return result;
}

SIM_EXPORT nvmlReturn_t nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
SIM_EXPORT nvmlReturn_t nvmlInit(void) { return nvmlInitWithFlags(0); }

SIM_EXPORT nvmlReturn_t nvmlShutdown(void) {
    sim_lock();
    nvmlReturn_t result = sim_initialized == 0 ? NVML_ERROR_UNINITIALIZED : NVML_SUCCESS;
    if (sim_initialized > 0 && --sim_initialized == 0 && control >= 0) {
        close(control);
        control = -1;
    }
    sim_unlock();
    return result;
}

SIM_EXPORT const char *nvmlErrorString(nvmlReturn_t result) {
    switch (result) {
    case NVML_SUCCESS: return "Success";
    case NVML_ERROR_UNINITIALIZED: return "Uninitialized";
    case NVML_ERROR_INVALID_ARGUMENT: return "Invalid Argument";
    case NVML_ERROR_NOT_SUPPORTED: return "Not Supported";
    case NVML_ERROR_NO_PERMISSION: return "Insufficient Permissions";
    case NVML_ERROR_NOT_FOUND: return "Not Found";
    case NVML_ERROR_INSUFFICIENT_SIZE: return "Insufficient Size";
    case NVML_ERROR_DRIVER_NOT_LOADED: return "Driver Not Loaded";
    case NVML_ERROR_TIMEOUT: return "Timeout";
    case NVML_ERROR_GPU_IS_LOST: return "GPU is lost";
    case NVML_ERROR_RESET_REQUIRED: return "GPU requires reset";
    case NVML_ERROR_LIB_RM_VERSION_MISMATCH: return "Driver/library version mismatch";
    case NVML_ERROR_ARGUMENT_VERSION_MISMATCH: return "Argument version mismatch";
    case NVML_ERROR_ALREADY_INITIALIZED: return "Already Initialized";
    case NVML_ERROR_INSUFFICIENT_POWER: return "Insufficient External Power";
    case NVML_ERROR_IRQ_ISSUE: return "Interrupt Request Issue";
    case NVML_ERROR_LIBRARY_NOT_FOUND: return "NVML Shared Library Not Found";
    case NVML_ERROR_FUNCTION_NOT_FOUND: return "Function Not Found";
    case NVML_ERROR_CORRUPTED_INFOROM: return "Corrupted infoROM";
    case NVML_ERROR_OPERATING_SYSTEM: return "The operating system has blocked the request.";
    case NVML_ERROR_IN_USE: return "In use by another client";
    case NVML_ERROR_MEMORY: return "Insufficient Memory";
    case NVML_ERROR_NO_DATA: return "No data";
    case NVML_ERROR_UNKNOWN: return "Unknown Error";
    default: return "Error of another version";
    }
}

SIM_EXPORT nvmlReturn_t nvmlSystemGetDriverVersion(char *version, unsigned int length) {
    struct sim_state *state = NULL;
    nvmlReturn_t result = sim_enter_node(&state);
    if (result != NVML_SUCCESS) return result;
    result = sim_copy(version, length, state->driver);
    sim_unlock();
    return result;
}

SIM_EXPORT nvmlReturn_t nvmlSystemGetNVMLVersion(char *version, unsigned int length) {
    struct sim_state *state = NULL;
    nvmlReturn_t result = sim_enter_node(&state);
    if (result != NVML_SUCCESS) return result;
    char text[NVML_VERSION_SIZE + 4] = "12.";
    strcat(text, state->driver);
    result = sim_copy(version, length, text);
    sim_unlock();
    return result;
}

SIM_EXPORT nvmlReturn_t nvmlSystemGetCudaDriverVersion_v2(int *version) {
    struct sim_state *state = NULL;
    if (version == NULL) return NVML_ERROR_INVALID_ARGUMENT;
    nvmlReturn_t result = sim_enter_node(&state);
    if (result != NVML_SUCCESS) return result;
    *version = state->cuda;
    sim_unlock();
    return *version == 0 ? NVML_ERROR_NOT_SUPPORTED : NVML_SUCCESS;
}

SIM_EXPORT nvmlReturn_t nvmlSystemGetCudaDriverVersion(int *version) {
    return nvmlSystemGetCudaDriverVersion_v2(version);
}

SIM_EXPORT nvmlReturn_t nvmlDeviceGetCount_v2(unsigned int *count) {
    struct sim_state *state = NULL;
    if (count == NULL) return NVML_ERROR_INVALID_ARGUMENT;
    nvmlReturn_t result = sim_enter_node(&state);
    if (result != NVML_SUCCESS) return result;
    *count = state->gpu_count;
    sim_unlock();
    return NVML_SUCCESS;
}

SIM_EXPORT nvmlReturn_t nvmlDeviceGetCount(unsigned int *count) { return nvmlDeviceGetCount_v2(count); }

SIM_EXPORT nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned int index, nvmlDevice_t *device) {
    struct sim_state *state = NULL;
    struct sim_gpu *gpu = NULL;
    if (device == NULL) return NVML_ERROR_INVALID_ARGUMENT;
    nvmlReturn_t result = sim_enter_node(&state);
    if (result != NVML_SUCCESS) return result;
    bool known = index < state->gpu_count;
    sim_unlock();
    if (!known) return NVML_ERROR_INVALID_ARGUMENT;
    result = sim_enter(sim_handle(index), SIM_HANDLE, &gpu);
    if (result != NVML_SUCCESS) return result;
    sim_unlock();
    *device = sim_handle(index);
    return NVML_SUCCESS;
}

SIM_EXPORT nvmlReturn_t nvmlDeviceGetHandleByIndex(unsigned int index, nvmlDevice_t *device) {
    return nvmlDeviceGetHandleByIndex_v2(index, device);
}

/* By UUID or, when that is NULL, by bus ID. */
static nvmlReturn_t find(const char *uuid, const char *bus_id, nvmlDevice_t *device) {
    struct sim_state *state = NULL;
    if (device == NULL || (uuid == NULL && bus_id == NULL)) return NVML_ERROR_INVALID_ARGUMENT;
    nvmlReturn_t result = sim_enter_node(&state);
    if (result != NVML_SUCCESS) return result;
    unsigned int index = 0;
    for (; index < state->gpu_count; index++) {
        const struct sim_gpu *gpu = &state->gpus[index];
        if (uuid != NULL ? strcmp(gpu->uuid, uuid) == 0 : strcasecmp(gpu->pci_bus_id, bus_id) == 0) break;
    }
    bool known = index < state->gpu_count;
    sim_unlock();
    return known ? nvmlDeviceGetHandleByIndex_v2(index, device) : NVML_ERROR_NOT_FOUND;
}

SIM_EXPORT nvmlReturn_t nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice_t *device) {
    return find(uuid, NULL, device);
}

SIM_EXPORT nvmlReturn_t nvmlDeviceGetHandleByPciBusId_v2(const char *bus_id, nvmlDevice_t *device) {
    return find(NULL, bus_id, device);
}
