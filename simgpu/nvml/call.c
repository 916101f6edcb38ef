/* Checks of every call: the library is initialized, the driver is loaded, the device answers. */
#include <string.h>
#include <time.h>

#include "sim.h"

unsigned int sim_initialized;

static struct nvmlDevice_st handles[SIM_MAX_GPUS];
static struct nvmlDevice_st mig_handles[SIM_MAX_GPUS * SIM_MAX_MIG];

void sim_number_handles(void) {
    for (unsigned int i = 0; i < SIM_MAX_GPUS; i++)
        handles[i] = (struct nvmlDevice_st){.index = i, .mig = SIM_NO_INSTANCE};
    for (unsigned int i = 0; i < SIM_MAX_GPUS * SIM_MAX_MIG; i++)
        mig_handles[i] = (struct nvmlDevice_st){.index = i / SIM_MAX_MIG, .mig = i % SIM_MAX_MIG};
}

nvmlDevice_t sim_handle(unsigned int index) { return &handles[index]; }

nvmlDevice_t sim_mig_handle(unsigned int index, unsigned int mig) { return &mig_handles[index * SIM_MAX_MIG + mig]; }

static bool is_handle(nvmlDevice_t device) {
    return device != NULL && ((device >= handles && device < handles + SIM_MAX_GPUS) ||
                              (device >= mig_handles && device < mig_handles + SIM_MAX_GPUS * SIM_MAX_MIG));
}

static double monotonic(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

nvmlReturn_t sim_enter_node(struct sim_state **state) {
    sim_lock();
    *state = sim_current();
    nvmlReturn_t result = NVML_SUCCESS;
    if (sim_initialized == 0) result = NVML_ERROR_UNINITIALIZED;
    else if (*state == NULL) result = NVML_ERROR_DRIVER_NOT_LOADED;
    else result = (*state)->error;
    if (result != NVML_SUCCESS) sim_unlock();
    return result;
}

nvmlReturn_t sim_enter(nvmlDevice_t device, enum sim_field field, struct sim_gpu **gpu) {
    struct sim_mig *mig = NULL;
    nvmlReturn_t result = sim_enter_any(device, field, gpu, &mig);
    if (result != NVML_SUCCESS || mig == NULL) return result;
    sim_unlock();
    return NVML_ERROR_NOT_SUPPORTED;
}

nvmlReturn_t sim_enter_any(nvmlDevice_t device, enum sim_field field, struct sim_gpu **gpu, struct sim_mig **mig) {
    double begun = monotonic();
    if (!is_handle(device)) return NVML_ERROR_INVALID_ARGUMENT;
    for (;;) {
        struct sim_state *state = NULL;
        nvmlReturn_t result = sim_enter_node(&state);
        if (result != NVML_SUCCESS) return result;
        if (device->index >= state->gpu_count) {
            sim_unlock();
            return NVML_ERROR_GPU_IS_LOST;
        }
        *gpu = &state->gpus[device->index];
        unsigned int delay = (*gpu)->delay_all_ms;
        if ((*gpu)->delay_ms[field] > delay) delay = (*gpu)->delay_ms[field];
        if ((monotonic() - begun) * 1000 < delay) {
            /* Polls the file, so that a call with a delay of an hour ends when the file no longer contains it. */
            sim_unlock();
            sim_pause(delay < 5 ? delay : 5);
            continue;
        }
        result = (*gpu)->fail_all != NVML_SUCCESS ? (*gpu)->fail_all : (*gpu)->fail[field];
        *mig = device->mig == SIM_NO_INSTANCE ? NULL : &(*gpu)->migs[device->mig];
        /* Destroyed after the handle was returned. */
        if (result == NVML_SUCCESS && *mig != NULL && device->mig >= (*gpu)->mig_count) result = NVML_ERROR_NOT_FOUND;
        if (result != NVML_SUCCESS) sim_unlock();
        return result;
    }
}

nvmlReturn_t sim_number_locked(const struct sim_gpu *gpu, enum sim_field field, long long *number) {
    if (sim_series_at(&gpu->series, field, sim_now(), number)) return NVML_SUCCESS;
    if (!gpu->values[field].set) return NVML_ERROR_NOT_SUPPORTED;
    *number = gpu->values[field].number;
    return NVML_SUCCESS;
}

nvmlReturn_t sim_number(nvmlDevice_t device, enum sim_field field, long long *number) {
    struct sim_gpu *gpu = NULL;
    nvmlReturn_t result = sim_enter(device, field, &gpu);
    if (result != NVML_SUCCESS) return result;
    result = sim_number_locked(gpu, field, number);
    sim_unlock();
    return result;
}

nvmlReturn_t sim_copy(char *to, unsigned int size, const char *from) {
    if (to == NULL) return NVML_ERROR_INVALID_ARGUMENT;
    if (from[0] == '\0') return NVML_ERROR_NOT_SUPPORTED;
    if (strlen(from) >= size) return NVML_ERROR_INSUFFICIENT_SIZE;
    strcpy(to, from);
    return NVML_SUCCESS;
}
