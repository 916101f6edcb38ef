/* Calls that return one or a few numbers of a device. */
#include <string.h>

#include "sim.h"

#define MIB (1ull << 20)

static nvmlReturn_t read_uint(nvmlDevice_t device, enum sim_field field, unsigned int *to) {
    long long number = 0;
    if (to == NULL) return NVML_ERROR_INVALID_ARGUMENT;
    nvmlReturn_t result = sim_number(device, field, &number);
    if (result == NVML_SUCCESS) *to = (unsigned int)number;
    return result;
}

#define SIM_UINT_CALL(function, field)                                                                             \
    SIM_EXPORT nvmlReturn_t function(nvmlDevice_t device, unsigned int *value) {                                   \
        return read_uint(device, field, value);                                                                    \
    }

SIM_UINT_CALL(nvmlDeviceGetMinorNumber, SIM_MINOR)
SIM_UINT_CALL(nvmlDeviceGetArchitecture, SIM_ARCHITECTURE)
SIM_UINT_CALL(nvmlDeviceGetPowerUsage, SIM_POWER)
SIM_UINT_CALL(nvmlDeviceGetPowerManagementLimit, SIM_REQUESTED_POWER_LIMIT)
SIM_UINT_CALL(nvmlDeviceGetEnforcedPowerLimit, SIM_POWER_LIMIT)
SIM_UINT_CALL(nvmlDeviceGetPerformanceState, SIM_PERFORMANCE_STATE)
SIM_UINT_CALL(nvmlDeviceGetCurrPcieLinkGeneration, SIM_PCIE_GENERATION)
SIM_UINT_CALL(nvmlDeviceGetCurrPcieLinkWidth, SIM_PCIE_WIDTH)
SIM_UINT_CALL(nvmlDeviceGetPcieReplayCounter, SIM_PCIE_REPLAYS)
SIM_UINT_CALL(nvmlDeviceGetRetiredPagesPendingStatus, SIM_RETIREMENT_PENDING)

/* The NUMA node that the memory of the GPU is, where the operating system manages it. */
SIM_EXPORT nvmlReturn_t nvmlDeviceGetNumaNodeId(nvmlDevice_t device, int *node) {
    return read_uint(device, SIM_MEMORY_NUMA_NODE, (unsigned int *)node);
}

/* As on hardware: a GPU with MIG devices has neither utilization nor remapped rows. */
static nvmlReturn_t undivided(nvmlDevice_t device, enum sim_field field) {
    struct sim_gpu *gpu = NULL;
    nvmlReturn_t result = sim_enter(device, field, &gpu);
    if (result != NVML_SUCCESS) return result;
    if (gpu->mig_count > 0) result = NVML_ERROR_NOT_SUPPORTED;
    sim_unlock();
    return result;
}

/* Converts MiB to bytes. The sentinel stays all ones; negative numbers, for tests of impossible readings, wrap. */
static unsigned long long bytes(long long mib) {
    return mib == NVML_VALUE_NOT_AVAILABLE ? ~0ull : (unsigned long long)mib * MIB;
}

SIM_EXPORT nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, nvmlMemory_v2_t *memory) {
    struct sim_gpu *gpu = NULL;
    struct sim_mig *mig = NULL;
    long long total = 0, used = 0, reserved = 0;
    if (memory == NULL) return NVML_ERROR_INVALID_ARGUMENT;
    if (memory->version != NVML_MEMORY_V2) return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    nvmlReturn_t result = sim_enter_any(device, SIM_MEMORY_USED, &gpu, &mig);
    if (result != NVML_SUCCESS) return result;
    if (mig != NULL) {
        total = mig->memory_total_mib;
        used = mig->memory_used_mib;
    } else {
        result = sim_number_locked(gpu, SIM_MEMORY_TOTAL, &total);
        if (result == NVML_SUCCESS) result = sim_number_locked(gpu, SIM_MEMORY_USED, &used);
        if (sim_number_locked(gpu, SIM_MEMORY_RESERVED, &reserved) != NVML_SUCCESS) reserved = 0;
    }
    sim_unlock();
    if (result != NVML_SUCCESS) return result;
    memory->total = bytes(total);
    memory->used = bytes(used);
    memory->reserved = bytes(reserved);
    memory->free = bytes(total) - bytes(used) - bytes(reserved);
    return NVML_SUCCESS;
}

/* Version 1 counts reserved memory as used. */
SIM_EXPORT nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *memory) {
    nvmlMemory_v2_t whole = {.version = NVML_MEMORY_V2};
    if (memory == NULL) return NVML_ERROR_INVALID_ARGUMENT;
    nvmlReturn_t result = nvmlDeviceGetMemoryInfo_v2(device, &whole);
    if (result != NVML_SUCCESS) return result;
    memory->total = whole.total;
    memory->used = whole.used == ~0ull ? whole.used : whole.used + whole.reserved;
    memory->free = whole.free;
    return NVML_SUCCESS;
}

SIM_EXPORT nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t device, nvmlUtilization_t *utilization) {
    struct sim_gpu *gpu = NULL;
    long long of_gpu = 0, of_memory = 0;
    if (utilization == NULL) return NVML_ERROR_INVALID_ARGUMENT;
    nvmlReturn_t result = sim_enter(device, SIM_UTILIZATION, &gpu);
    if (result != NVML_SUCCESS) return result;
    result = gpu->mig_count > 0 ? NVML_ERROR_NOT_SUPPORTED : sim_number_locked(gpu, SIM_UTILIZATION, &of_gpu);
    if (sim_number_locked(gpu, SIM_MEMORY_UTILIZATION, &of_memory) != NVML_SUCCESS) of_memory = 0;
    sim_unlock();
    if (result != NVML_SUCCESS) return result;
    utilization->gpu = (unsigned int)of_gpu;
    utilization->memory = (unsigned int)of_memory;
    return NVML_SUCCESS;
}

#define SIM_ENGINE_CALL(function, field)                                                                           \
    SIM_EXPORT nvmlReturn_t function(nvmlDevice_t device, unsigned int *percent, unsigned int *period_us) {        \
        if (period_us == NULL) return NVML_ERROR_INVALID_ARGUMENT;                                                 \
        *period_us = 167000;                                                                                       \
        nvmlReturn_t result = undivided(device, field);                                                            \
        return result == NVML_SUCCESS ? read_uint(device, field, percent) : result;                                \
    }

SIM_ENGINE_CALL(nvmlDeviceGetEncoderUtilization, SIM_ENCODER)
SIM_ENGINE_CALL(nvmlDeviceGetDecoderUtilization, SIM_DECODER)

SIM_EXPORT nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t device, unsigned int sensor, unsigned int *celsius) {
    return sensor == NVML_TEMPERATURE_GPU ? read_uint(device, SIM_TEMPERATURE, celsius) : NVML_ERROR_INVALID_ARGUMENT;
}

SIM_EXPORT nvmlReturn_t nvmlDeviceGetTemperatureV(nvmlDevice_t device, nvmlTemperature_v1_t *temperature) {
    long long number = 0;
    if (temperature == NULL || temperature->sensorType != NVML_TEMPERATURE_GPU) return NVML_ERROR_INVALID_ARGUMENT;
    if (temperature->version != NVML_TEMPERATURE_V1) return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    nvmlReturn_t result = sim_number(device, SIM_TEMPERATURE, &number);
    if (result == NVML_SUCCESS) temperature->temperature = (int)number;
    return result;
}

/* The value of the file plus the energy since the first call of this process. */
SIM_EXPORT nvmlReturn_t nvmlDeviceGetTotalEnergyConsumption(nvmlDevice_t device, unsigned long long *millijoules) {
    static double drawn[SIM_MAX_GPUS], asked[SIM_MAX_GPUS];
    struct sim_gpu *gpu = NULL;
    long long number = 0, power = 0;
    if (millijoules == NULL) return NVML_ERROR_INVALID_ARGUMENT;
    nvmlReturn_t result = sim_enter(device, SIM_ENERGY, &gpu);
    if (result != NVML_SUCCESS) return result;
    result = sim_number_locked(gpu, SIM_ENERGY, &number);
    if (sim_number_locked(gpu, SIM_POWER, &power) != NVML_SUCCESS || power < 0) power = 0;
    double now = sim_now();
    if (asked[device->index] > 0 && now > asked[device->index])
        drawn[device->index] += (double)power * (now - asked[device->index]);
    asked[device->index] = now;
    if (result == NVML_SUCCESS)
        *millijoules = number == NVML_VALUE_NOT_AVAILABLE
                           ? ~0ull
                           : (unsigned long long)number + (unsigned long long)drawn[device->index];
    sim_unlock();
    return result;
}

SIM_EXPORT nvmlReturn_t nvmlDeviceGetClockInfo(nvmlDevice_t device, unsigned int type, unsigned int *mhz) {
    return read_uint(device, type == NVML_CLOCK_MEM ? SIM_MEMORY_CLOCK : SIM_SM_CLOCK, mhz);
}

SIM_EXPORT nvmlReturn_t nvmlDeviceGetMaxClockInfo(nvmlDevice_t device, unsigned int type, unsigned int *mhz) {
    return read_uint(device, type == NVML_CLOCK_MEM ? SIM_MAX_MEMORY_CLOCK : SIM_MAX_SM_CLOCK, mhz);
}

SIM_EXPORT nvmlReturn_t nvmlDeviceGetCurrentClocksEventReasons(nvmlDevice_t device, unsigned long long *reasons) {
    long long number = 0;
    if (reasons == NULL) return NVML_ERROR_INVALID_ARGUMENT;
    nvmlReturn_t result = sim_number(device, SIM_THROTTLE_REASONS, &number);
    if (result == NVML_SUCCESS) *reasons = (unsigned long long)number;
    return result;
}

SIM_EXPORT nvmlReturn_t nvmlDeviceGetCurrentClocksThrottleReasons(nvmlDevice_t device, unsigned long long *reasons) {
    return nvmlDeviceGetCurrentClocksEventReasons(device, reasons);
}

static nvmlReturn_t modes(nvmlDevice_t device, enum sim_field field, unsigned int *current, unsigned int *pending) {
    if (pending == NULL) return NVML_ERROR_INVALID_ARGUMENT;
    nvmlReturn_t result = read_uint(device, field, current);
    if (result == NVML_SUCCESS) *pending = *current;
    return result;
}

SIM_EXPORT nvmlReturn_t nvmlDeviceGetEccMode(nvmlDevice_t device, unsigned int *current, unsigned int *pending) {
    return modes(device, SIM_ECC_ENABLED, current, pending);
}

SIM_EXPORT nvmlReturn_t nvmlDeviceGetMigMode(nvmlDevice_t device, unsigned int *current, unsigned int *pending) {
    return modes(device, SIM_MIG_MODE, current, pending);
}

SIM_EXPORT nvmlReturn_t nvmlDeviceGetTotalEccErrors(nvmlDevice_t device, unsigned int type, unsigned int counter,
                                                    unsigned long long *count) {
    (void)counter; /* volatile and aggregate are the same here */
    long long number = 0;
    if (count == NULL) return NVML_ERROR_INVALID_ARGUMENT;
    enum sim_field field = type == NVML_MEMORY_ERROR_UNCORRECTED ? SIM_ECC_UNCORRECTED : SIM_ECC_CORRECTED;
    nvmlReturn_t result = sim_number(device, field, &number);
    if (result == NVML_SUCCESS) *count = (unsigned long long)number;
    return result;
}

SIM_EXPORT nvmlReturn_t nvmlDeviceGetRemappedRows(nvmlDevice_t device, unsigned int *correctable,
                                                  unsigned int *uncorrectable, unsigned int *pending,
                                                  unsigned int *failed) {
    nvmlReturn_t result = undivided(device, SIM_REMAPPED_CORRECTABLE);
    if (result == NVML_SUCCESS) result = read_uint(device, SIM_REMAPPED_CORRECTABLE, correctable);
    if (result == NVML_SUCCESS) result = read_uint(device, SIM_REMAPPED_UNCORRECTABLE, uncorrectable);
    if (result == NVML_SUCCESS) result = read_uint(device, SIM_REMAP_PENDING, pending);
    if (result == NVML_SUCCESS) result = read_uint(device, SIM_REMAP_FAILED, failed);
    return result;
}
