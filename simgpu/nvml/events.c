/* Event sets. Events are `xid` and `event` lines of the state file; each set delivers those after its creation once. */
#include <limits.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "sim.h"

struct nvmlEventSet_st {
    unsigned long long delivered; /* the last sequence number that this set is done with */
    unsigned long long registered[SIM_MAX_GPUS]; /* types */
    int watch; /* see sim_watch */
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
    if (*set != NULL) {
        (*set)->delivered = newest(state);
        (*set)->watch = sim_watch();
    }
    sim_unlock();
    return *set == NULL ? NVML_ERROR_MEMORY : NVML_SUCCESS;
}

SIM_EXPORT nvmlReturn_t nvmlEventSetFree(nvmlEventSet_t set) {
    if (set == NULL) return NVML_ERROR_INVALID_ARGUMENT;
    if (set->watch >= 0) close(set->watch);
    free(set);
    return NVML_SUCCESS;
}

#define SUPPORTED (NVML_EVENT_XID_CRITICAL_ERROR | NVML_EVENT_GPU_UNAVAILABLE_ERROR | NVML_EVENT_GPU_RECOVERY_ACTION)

SIM_EXPORT nvmlReturn_t nvmlDeviceGetSupportedEventTypes(nvmlDevice_t device, unsigned long long *types) {
    struct sim_gpu *gpu = NULL;
    if (types == NULL) return NVML_ERROR_INVALID_ARGUMENT;
    nvmlReturn_t result = sim_enter(device, SIM_EVENTS, &gpu);
    if (result != NVML_SUCCESS) return result;
    sim_unlock();
    *types = SUPPORTED;
    return NVML_SUCCESS;
}

SIM_EXPORT nvmlReturn_t nvmlDeviceRegisterEvents(nvmlDevice_t device, unsigned long long types, nvmlEventSet_t set) {
    struct sim_gpu *gpu = NULL;
    if (set == NULL) return NVML_ERROR_INVALID_ARGUMENT;
    nvmlReturn_t result = sim_enter(device, SIM_EVENTS, &gpu);
    if (result != NVML_SUCCESS) return result;
    if ((types & ~SUPPORTED) != 0) result = NVML_ERROR_NOT_SUPPORTED;
    else set->registered[device->index] = types;
    sim_unlock();
    return result;
}

/* Returns the next event of the set: SUCCESS, TIMEOUT when there is none, or GPU_IS_LOST as the driver does. */
static nvmlReturn_t look(struct sim_state *state, nvmlEventSet_t set, nvmlEventData_t *data) {
    if (set->delivered > newest(state)) set->delivered = newest(state); /* the file was started over */
    for (unsigned int i = 0; i < state->xid_count; i++) {
        const struct sim_xid *xid = &state->xids[i];
        if (xid->sequence <= set->delivered) continue;
        set->delivered = xid->sequence;
        if ((set->registered[xid->gpu] & xid->type) == 0) continue;
        *data = (nvmlEventData_t){
            .device = sim_handle(xid->gpu),
            .eventType = xid->type,
            .eventData = xid->code,
            .gpuInstanceId = xid->gpu_instance,
            .computeInstanceId = xid->compute_instance,
        };
        return NVML_SUCCESS;
    }
    for (unsigned int i = 0; i < state->gpu_count; i++)
        if (set->registered[i] != 0 && state->gpus[i].fail_all == NVML_ERROR_GPU_IS_LOST) return NVML_ERROR_GPU_IS_LOST;
    return NVML_ERROR_TIMEOUT;
}

static long long monotonic_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (long long)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

SIM_EXPORT nvmlReturn_t nvmlEventSetWait_v2(nvmlEventSet_t set, nvmlEventData_t *data, unsigned int timeout_ms) {
    if (set == NULL || data == NULL) return NVML_ERROR_INVALID_ARGUMENT;
    long long end = monotonic_ms() + timeout_ms;
    for (;;) {
        struct sim_state *state = NULL;
        nvmlReturn_t result = sim_enter_node(&state);
        if (result != NVML_SUCCESS) return result;
        result = look(state, set, data);
        sim_unlock();
        long long left = end - monotonic_ms();
        if (result != NVML_ERROR_TIMEOUT || left <= 0) return result;
        /* Sleeps as a driver does: polling would add CPU time to the agent that is not its own. */
        sim_await(set->watch, left < INT_MAX ? (unsigned int)left : INT_MAX);
    }
}

SIM_EXPORT nvmlReturn_t nvmlEventSetWait(nvmlEventSet_t set, nvmlEventData_t *data, unsigned int timeout_ms) {
    return nvmlEventSetWait_v2(set, data, timeout_ms);
}
