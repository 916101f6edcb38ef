/* Identity of a device: name, UUID, bus address, architecture. */
#include <stdio.h>
#include <string.h>

#include "sim.h"

static nvmlReturn_t text(nvmlDevice_t device, enum sim_field field, char *to, unsigned int size) {
    struct sim_gpu *gpu = NULL;
    struct sim_mig *mig = NULL;
    nvmlReturn_t result = sim_enter_any(device, field, &gpu, &mig);
    if (result != NVML_SUCCESS) return result;
    const char *from = field == SIM_NAME ? gpu->name : field == SIM_UUID ? gpu->uuid : gpu->serial;
    char name[NVML_NAME_SIZE + sizeof mig->profile + 8];
    if (mig != NULL && field == SIM_NAME) {
        snprintf(name, sizeof name, "%s MIG %s", gpu->name, mig->profile);
        from = name;
    } else if (mig != NULL) {
        from = field == SIM_UUID ? mig->uuid : "";
    }
    result = sim_copy(to, size, from);
    sim_unlock();
    return result;
}

SIM_EXPORT nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t device, char *name, unsigned int length) {
    return text(device, SIM_NAME, name, length);
}

SIM_EXPORT nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t device, char *uuid, unsigned int length) {
    return text(device, SIM_UUID, uuid, length);
}

SIM_EXPORT nvmlReturn_t nvmlDeviceGetSerial(nvmlDevice_t device, char *serial, unsigned int length) {
    return text(device, SIM_SERIAL, serial, length);
}

SIM_EXPORT nvmlReturn_t nvmlDeviceGetIndex(nvmlDevice_t device, unsigned int *index) {
    struct sim_gpu *gpu = NULL;
    if (index == NULL) return NVML_ERROR_INVALID_ARGUMENT;
    nvmlReturn_t result = sim_enter(device, SIM_HANDLE, &gpu);
    if (result != NVML_SUCCESS) return result;
    sim_unlock();
    *index = device->index;
    return NVML_SUCCESS;
}

void sim_fill_pci(const struct sim_gpu *gpu, nvmlPciInfo_t *pci) {
    memset(pci, 0, sizeof *pci);
    snprintf(pci->busId, sizeof pci->busId, "%s", gpu->pci_bus_id);
    sscanf(gpu->pci_bus_id, "%x:%x:%x", &pci->domain, &pci->bus, &pci->device);
    snprintf(pci->busIdLegacy, sizeof pci->busIdLegacy, "%04x:%02x:%02x.0", pci->domain & 0xffffu, pci->bus & 0xffu,
             pci->device & 0xffu);
}

SIM_EXPORT nvmlReturn_t nvmlDeviceGetPciInfo_v3(nvmlDevice_t device, nvmlPciInfo_t *pci) {
    struct sim_gpu *gpu = NULL;
    if (pci == NULL) return NVML_ERROR_INVALID_ARGUMENT;
    nvmlReturn_t result = sim_enter(device, SIM_PCI, &gpu);
    if (result != NVML_SUCCESS) return result;
    result = gpu->pci_bus_id[0] == '\0' ? NVML_ERROR_NOT_SUPPORTED : NVML_SUCCESS;
    if (result == NVML_SUCCESS) sim_fill_pci(gpu, pci);
    sim_unlock();
    return result;
}

SIM_EXPORT nvmlReturn_t nvmlDeviceGetCudaComputeCapability(nvmlDevice_t device, int *major, int *minor) {
    struct sim_gpu *gpu = NULL;
    if (major == NULL || minor == NULL) return NVML_ERROR_INVALID_ARGUMENT;
    nvmlReturn_t result = sim_enter(device, SIM_COMPUTE_CAPABILITY, &gpu);
    if (result != NVML_SUCCESS) return result;
    *major = gpu->capability_major;
    *minor = gpu->capability_minor;
    sim_unlock();
    return *major == 0 ? NVML_ERROR_NOT_SUPPORTED : NVML_SUCCESS;
}

/* One bit per NUMA node with affinity. */
SIM_EXPORT nvmlReturn_t nvmlDeviceGetMemoryAffinity(nvmlDevice_t device, unsigned int words, unsigned long *nodes,
                                                    unsigned int scope) {
    (void)scope; /* node and socket are the same here */
    long long number = 0;
    const unsigned int bits = 8 * sizeof *nodes;
    if (nodes == NULL || words == 0) return NVML_ERROR_INVALID_ARGUMENT;
    nvmlReturn_t result = sim_number(device, SIM_NUMA_NODE, &number);
    if (result != NVML_SUCCESS) return result;
    memset(nodes, 0, words * sizeof *nodes);
    if (number >= 0 && (unsigned long long)number < (unsigned long long)words * bits)
        nodes[(unsigned int)number / bits] = 1ul << ((unsigned int)number % bits);
    return NVML_SUCCESS;
}
