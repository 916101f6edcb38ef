/* Event sets. Only XIDs occur: `xid` lines of the state file, each delivered once by each set that was made before. */
#include <stdlib.h>

#include "sim.h"

#define POLL_MS 100

struct nvmlEventSet_st {
    unsigned long long delivered; /* the last sequence number that this set is done with */
    bool registered[SIM_MAX_GPUS];
};

static unsigned long long newest(const struct sim_state *state) {
    return state->xid_count == 0 ? 0 : state->xids[state->xid_count - 1].sequence;
}

SIM_EXPORT nvmlReturn_t nvmlEventSetCreate(nvmlEventSet_t *set) {
    struct sim_state *state = NULL;
    if (set == NULL) return NVML_ERROR_INVALID_ARGUMENT;
    nvmlReturn_t result = sim_enter_node(&state);
    if (result != NVML_SUCCESS) return result;
    *set = calloc(1, sizeof **set);
    if (*set != NULL) (*set)->delivered = newest(state);
    sim_unlock();
    return *set == NULL ? NVML_ERROR_MEMORY : NVML_SUCCESS;
}

SIM_EXPORT nvmlReturn_t nvmlEventSetFree(nvmlEventSet_t set) {
    if (set == NULL) return NVML_ERROR_INVALID_ARGUMENT;
    free(set);
    return NVML_SUCCESS;
}

SIM_EXPORT nvmlReturn_t nvmlDeviceGetSupportedEventTypes(nvmlDevice_t device, unsigned long long *types) {
    struct sim_gpu *gpu = NULL;
    if (types == NULL) return NVML_ERROR_INVALID_ARGUMENT;
    nvmlReturn_t result = sim_enter(device, SIM_EVENTS, &gpu);
    if (result != NVML_SUCCESS) return result;
    sim_unlock();
    *types = NVML_EVENT_XID_CRITICAL_ERROR;
    return NVML_SUCCESS;
}

SIM_EXPORT nvmlReturn_t nvmlDeviceRegisterEvents(nvmlDevice_t device, unsigned long long types, nvmlEventSet_t set) {
    struct sim_gpu *gpu = NULL;
    if (set == NULL) return NVML_ERROR_INVALID_ARGUMENT;
    nvmlReturn_t result = sim_enter(device, SIM_EVENTS, &gpu);
    if (result != NVML_SUCCESS) return result;
    if ((types & ~NVML_EVENT_XID_CRITICAL_ERROR) != 0) result = NVML_ERROR_NOT_SUPPORTED;
    else set->registered[device->index] = types != 0;
    sim_unlock();
    return result;
}

/* The next event for the set: SUCCESS, or TIMEOUT when there is none, or GPU_IS_LOST as the driver says it then. */
static nvmlReturn_t look(struct sim_state *state, nvmlEventSet_t set, nvmlEventData_t *data) {
    if (set->delivered > newest(state)) set->delivered = newest(state); /* the file was begun anew */
    for (unsigned int i = 0; i < state->xid_count; i++) {
        const struct sim_xid *xid = &state->xids[i];
        if (xid->sequence <= set->delivered) continue;
        set->delivered = xid->sequence;
        if (!set->registered[xid->gpu]) continue;
        *data = (nvmlEventData_t){
            .device = sim_handle(xid->gpu),
            .eventType = NVML_EVENT_XID_CRITICAL_ERROR,
            .eventData = xid->code,
            .gpuInstanceId = xid->gpu_instance,
            .computeInstanceId = xid->compute_instance,
        };
        return NVML_SUCCESS;
    }
    for (unsigned int i = 0; i < state->gpu_count; i++)
        if (set->registered[i] && state->gpus[i].fail_all == NVML_ERROR_GPU_IS_LOST) return NVML_ERROR_GPU_IS_LOST;
    return NVML_ERROR_TIMEOUT;
}

SIM_EXPORT nvmlReturn_t nvmlEventSetWait_v2(nvmlEventSet_t set, nvmlEventData_t *data, unsigned int timeout_ms) {
    if (set == NULL || data == NULL) return NVML_ERROR_INVALID_ARGUMENT;
    for (unsigned int waited = 0, step;; waited += step) {
        struct sim_state *state = NULL;
        nvmlReturn_t result = sim_enter_node(&state);
        if (result != NVML_SUCCESS) return result;
        result = look(state, set, data);
        sim_unlock();
        if (result != NVML_ERROR_TIMEOUT || waited >= timeout_ms) return result;
        /* A driver sleeps until something happens. Looking more often would be the agent's largest cost, and not its own. */
        step = timeout_ms - waited < POLL_MS ? timeout_ms - waited : POLL_MS;
        sim_pause(step);
    }
}

SIM_EXPORT nvmlReturn_t nvmlEventSetWait(nvmlEventSet_t set, nvmlEventData_t *data, unsigned int timeout_ms) {
    return nvmlEventSetWait_v2(set, data, timeout_ms);
}
