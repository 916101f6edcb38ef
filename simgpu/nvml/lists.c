/* Calls that return lists: NVLink, processes and field values. */
#include <string.h>

#include "sim.h"

/* Holds the lock on success. */
static nvmlReturn_t enter_link(nvmlDevice_t device, unsigned int link, struct sim_gpu **gpu) {
    nvmlReturn_t result = sim_enter(device, SIM_NVLINK, gpu);
    if (result != NVML_SUCCESS) return result;
    if (link >= NVML_NVLINK_MAX_LINKS) result = NVML_ERROR_INVALID_ARGUMENT;
    else if ((*gpu)->link_count <= link) result = NVML_ERROR_NOT_SUPPORTED;
    if (result != NVML_SUCCESS) sim_unlock();
    return result;
}

SIM_EXPORT nvmlReturn_t nvmlDeviceGetNvLinkState(nvmlDevice_t device, unsigned int link, unsigned int *active) {
    struct sim_gpu *gpu = NULL;
    if (active == NULL) return NVML_ERROR_INVALID_ARGUMENT;
    nvmlReturn_t result = enter_link(device, link, &gpu);
    if (result != NVML_SUCCESS) return result;
    sim_unlock();
    *active = 1;
    return NVML_SUCCESS;
}

SIM_EXPORT nvmlReturn_t nvmlDeviceGetNvLinkRemoteDeviceType(nvmlDevice_t device, unsigned int link,
                                                            unsigned int *type) {
    struct sim_gpu *gpu = NULL;
    if (type == NULL) return NVML_ERROR_INVALID_ARGUMENT;
    nvmlReturn_t result = enter_link(device, link, &gpu);
    if (result != NVML_SUCCESS) return result;
    *type = gpu->links[link].to_switch ? NVML_NVLINK_DEVICE_SWITCH : NVML_NVLINK_DEVICE_GPU;
    sim_unlock();
    return NVML_SUCCESS;
}

SIM_EXPORT nvmlReturn_t nvmlDeviceGetNvLinkRemotePciInfo_v2(nvmlDevice_t device, unsigned int link,
                                                            nvmlPciInfo_t *pci) {
    struct sim_gpu *gpu = NULL;
    if (pci == NULL) return NVML_ERROR_INVALID_ARGUMENT;
    nvmlReturn_t result = enter_link(device, link, &gpu);
    if (result != NVML_SUCCESS) return result;
    const struct sim_gpu *first = gpu - device->index;
    const struct sim_state *state = sim_current();
    memset(pci, 0, sizeof *pci);
    if (gpu->links[link].to_switch) strcpy(pci->busId, "00000000:C0:00.0");
    else if (state != NULL && gpu->links[link].peer < state->gpu_count) sim_fill_pci(&first[gpu->links[link].peer], pci);
    else result = NVML_ERROR_NOT_FOUND;
    sim_unlock();
    return result;
}

static nvmlReturn_t processes(nvmlDevice_t device, char kind, unsigned int *count, nvmlProcessInfo_t *infos) {
    struct sim_gpu *gpu = NULL;
    struct sim_mig *mig = NULL;
    if (count == NULL) return NVML_ERROR_INVALID_ARGUMENT;
    nvmlReturn_t result = sim_enter_any(device, SIM_PROCESSES, &gpu, &mig);
    if (result != NVML_SUCCESS) return result;
    unsigned int room = infos == NULL ? 0 : *count, found = 0;
    long long bytes = 0;
    if (sim_number_locked(gpu, SIM_PROCESS_BYTES, &bytes) != NVML_SUCCESS || bytes < 1 ||
        (size_t)bytes > sizeof(sim_process_entry))
        bytes = sizeof *infos;
    for (unsigned int i = 0; i < gpu->process_count; i++) {
        const struct sim_process *process = &gpu->processes[i];
        if (process->kind != kind || (mig != NULL && process->gpu_instance != mig->gpu_instance)) continue;
        sim_process_entry entry = {
            .info.pid = process->pid,
            .info.usedGpuMemory = process->memory_mib < 0 ? ~0ull : (unsigned long long)process->memory_mib << 20,
            .info.gpuInstanceId = process->gpu_instance,
            .info.computeInstanceId = process->gpu_instance == SIM_NO_INSTANCE ? SIM_NO_INSTANCE : 0,
        };
        if (found < room) memcpy((char *)infos + found * (size_t)bytes, &entry, (size_t)bytes);
        found++;
    }
    sim_unlock();
    *count = found;
    return found > room ? NVML_ERROR_INSUFFICIENT_SIZE : NVML_SUCCESS;
}

#define SIM_PROCESS_CALL(function, kind)                                                                           \
    SIM_EXPORT nvmlReturn_t function(nvmlDevice_t device, unsigned int *count, nvmlProcessInfo_t *infos) {         \
        return processes(device, kind, count, infos);                                                              \
    }

SIM_PROCESS_CALL(nvmlDeviceGetComputeRunningProcesses_v2, 'C')
SIM_PROCESS_CALL(nvmlDeviceGetComputeRunningProcesses_v3, 'C')
SIM_PROCESS_CALL(nvmlDeviceGetGraphicsRunningProcesses_v2, 'G')
SIM_PROCESS_CALL(nvmlDeviceGetGraphicsRunningProcesses_v3, 'G')
SIM_PROCESS_CALL(nvmlDeviceGetMPSComputeRunningProcesses_v3, 'M')

/* As the driver: one sample of each process that has run on the GPU since then; NOT_FOUND without any. */
SIM_EXPORT nvmlReturn_t nvmlDeviceGetProcessUtilization(nvmlDevice_t device, nvmlProcessUtilizationSample_t *samples,
                                                        unsigned int *count, unsigned long long since) {
    struct sim_gpu *gpu = NULL;
    if (count == NULL) return NVML_ERROR_INVALID_ARGUMENT;
    nvmlReturn_t result = sim_enter(device, SIM_PROCESS_UTILIZATION, &gpu);
    if (result != NVML_SUCCESS) return result;
    unsigned long long now = (unsigned long long)(sim_now() * 1e6);
    unsigned int room = samples == NULL ? 0 : *count, found = 0;
    if (gpu->mig_count > 0) result = NVML_ERROR_NOT_SUPPORTED;
    for (unsigned int i = 0; result == NVML_SUCCESS && i < gpu->process_count && now > since; i++) {
        const struct sim_process *process = &gpu->processes[i];
        if (process->sm_percent < 0) continue;
        if (found < room)
            samples[found] = (nvmlProcessUtilizationSample_t){
                .pid = process->pid, .timeStamp = now, .smUtil = (unsigned int)process->sm_percent};
        found++;
    }
    sim_unlock();
    if (result != NVML_SUCCESS) return result;
    *count = found;
    if (found == 0) return NVML_ERROR_NOT_FOUND;
    return found > room ? NVML_ERROR_INSUFFICIENT_SIZE : NVML_SUCCESS;
}

static nvmlReturn_t field_value(nvmlDevice_t device, nvmlFieldValue_t *value) {
    struct sim_gpu *gpu = NULL;
    enum sim_field field = SIM_FIELD_COUNT;
    long long number = 0;
    switch (value->fieldId) {
    case NVML_FI_DEV_MEMORY_TEMP: field = SIM_MEMORY_TEMPERATURE; break;
    case NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION: field = SIM_ENERGY; break;
    case NVML_FI_DEV_NVLINK_LINK_COUNT: field = SIM_NVLINK; break;
    case NVML_FI_DEV_POWER_AVERAGE:
    case NVML_FI_DEV_POWER_INSTANT: field = SIM_POWER; break;
    case NVML_FI_DEV_GET_GPU_RECOVERY_ACTION: field = SIM_RECOVERY_ACTION; break;
    default: return NVML_ERROR_NOT_SUPPORTED;
    }
    nvmlReturn_t result = sim_enter(device, field, &gpu);
    if (result != NVML_SUCCESS) return result;
    if (field == SIM_NVLINK) number = gpu->link_count;
    else result = sim_number_locked(gpu, field, &number);
    sim_unlock();
    if (field == SIM_ENERGY) {
        value->valueType = NVML_VALUE_TYPE_UNSIGNED_LONG_LONG;
        value->value.ullVal = (unsigned long long)number;
    } else {
        value->valueType = NVML_VALUE_TYPE_UNSIGNED_INT;
        value->value.uiVal = (unsigned int)number;
    }
    return result;
}

SIM_EXPORT nvmlReturn_t nvmlDeviceGetFieldValues(nvmlDevice_t device, int count, nvmlFieldValue_t *values) {
    struct sim_gpu *gpu = NULL;
    if (count < 1 || values == NULL) return NVML_ERROR_INVALID_ARGUMENT;
    nvmlReturn_t result = sim_enter(device, SIM_HANDLE, &gpu);
    if (result != NVML_SUCCESS) return result;
    sim_unlock();
    for (int i = 0; i < count; i++) {
        values[i].timestamp = (int64_t)(sim_now() * 1e6);
        values[i].latencyUsec = 0;
        values[i].nvmlReturn = field_value(device, &values[i]);
    }
    return NVML_SUCCESS;
}
