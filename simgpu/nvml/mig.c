/* MIG devices: enumeration and attributes. */
#include "sim.h"

/* The index of a MIG device is its position in the list here. On hardware there may be gaps. */
SIM_EXPORT nvmlReturn_t nvmlDeviceGetMigDeviceHandleByIndex(nvmlDevice_t device, unsigned int index,
                                                            nvmlDevice_t *mig_device) {
    struct sim_gpu *gpu = NULL;
    if (mig_device == NULL || index >= SIM_MAX_MIG) return NVML_ERROR_INVALID_ARGUMENT;
    nvmlReturn_t result = sim_enter(device, SIM_HANDLE, &gpu);
    if (result != NVML_SUCCESS) return result;
    if (index >= gpu->mig_count) result = NVML_ERROR_NOT_FOUND;
    else *mig_device = sim_mig_handle(device->index, index);
    sim_unlock();
    return result;
}

SIM_EXPORT nvmlReturn_t nvmlDeviceGetMaxMigDeviceCount(nvmlDevice_t device, unsigned int *count) {
    struct sim_gpu *gpu = NULL;
    long long mode = 0;
    if (count == NULL) return NVML_ERROR_INVALID_ARGUMENT;
    nvmlReturn_t result = sim_enter(device, SIM_MIG_MODE, &gpu);
    if (result != NVML_SUCCESS) return result;
    *count = sim_number_locked(gpu, SIM_MIG_MODE, &mode) == NVML_SUCCESS ? SIM_MAX_MIG : 0;
    sim_unlock();
    return NVML_SUCCESS;
}

SIM_EXPORT nvmlReturn_t nvmlDeviceIsMigDeviceHandle(nvmlDevice_t device, unsigned int *is_mig) {
    struct sim_gpu *gpu = NULL;
    struct sim_mig *mig = NULL;
    if (is_mig == NULL) return NVML_ERROR_INVALID_ARGUMENT;
    nvmlReturn_t result = sim_enter_any(device, SIM_HANDLE, &gpu, &mig);
    if (result != NVML_SUCCESS) return result;
    *is_mig = mig != NULL;
    sim_unlock();
    return NVML_SUCCESS;
}

SIM_EXPORT nvmlReturn_t nvmlDeviceGetDeviceHandleFromMigDeviceHandle(nvmlDevice_t mig_device, nvmlDevice_t *device) {
    struct sim_gpu *gpu = NULL;
    struct sim_mig *mig = NULL;
    if (device == NULL) return NVML_ERROR_INVALID_ARGUMENT;
    nvmlReturn_t result = sim_enter_any(mig_device, SIM_HANDLE, &gpu, &mig);
    if (result != NVML_SUCCESS) return result;
    if (mig == NULL) result = NVML_ERROR_INVALID_ARGUMENT;
    else *device = sim_handle(mig_device->index);
    sim_unlock();
    return result;
}

static nvmlReturn_t instance(nvmlDevice_t device, bool of_gpu, unsigned int *id) {
    struct sim_gpu *gpu = NULL;
    struct sim_mig *mig = NULL;
    if (id == NULL) return NVML_ERROR_INVALID_ARGUMENT;
    nvmlReturn_t result = sim_enter_any(device, SIM_HANDLE, &gpu, &mig);
    if (result != NVML_SUCCESS) return result;
    if (mig == NULL) result = NVML_ERROR_NOT_SUPPORTED;
    else *id = of_gpu ? mig->gpu_instance : mig->compute_instance;
    sim_unlock();
    return result;
}

SIM_EXPORT nvmlReturn_t nvmlDeviceGetGpuInstanceId(nvmlDevice_t device, unsigned int *id) {
    return instance(device, true, id);
}

SIM_EXPORT nvmlReturn_t nvmlDeviceGetComputeInstanceId(nvmlDevice_t device, unsigned int *id) {
    return instance(device, false, id);
}
