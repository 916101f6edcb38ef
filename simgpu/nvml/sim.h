/* The simulated node: the content of the state file, and access to it. */
#ifndef SIM_H
#define SIM_H

#include <stdbool.h>
#include <stddef.h>

#include "abi.h"

#define SIM_MAX_GPUS 64
#define SIM_MAX_PROCESSES 64
#define SIM_MAX_XIDS 256
#define SIM_MAX_MIG 7
#define SIM_NO_INSTANCE (~0u)

/* Every quantity of a GPU that can be absent (not supported), fail or be delayed separately, by its name in the file.
 * The facts after the numbers have their own lines; they are listed so that they can fail or be delayed as well. */
#define SIM_NUMBERS(X)                                                                                             \
    X(MEMORY_TOTAL, "memory_total_mib")                                                                            \
    X(MEMORY_USED, "memory_used_mib")                                                                              \
    X(MEMORY_RESERVED, "memory_reserved_mib")                                                                      \
    X(UTILIZATION, "utilization_percent")                                                                          \
    X(MEMORY_UTILIZATION, "memory_utilization_percent")                                                            \
    X(ENCODER, "encoder_percent")                                                                                  \
    X(DECODER, "decoder_percent")                                                                                  \
    X(TEMPERATURE, "temperature_celsius")                                                                          \
    X(MEMORY_TEMPERATURE, "memory_temperature_celsius")                                                            \
    X(POWER, "power_milliwatts")                                                                                   \
    X(POWER_LIMIT, "power_limit_milliwatts")                                                                       \
    X(REQUESTED_POWER_LIMIT, "requested_power_limit_milliwatts")                                                   \
    X(ENERGY, "energy_millijoules")                                                                                \
    X(SM_CLOCK, "sm_clock_mhz")                                                                                    \
    X(MEMORY_CLOCK, "memory_clock_mhz")                                                                            \
    X(MAX_SM_CLOCK, "max_sm_clock_mhz")                                                                            \
    X(MAX_MEMORY_CLOCK, "max_memory_clock_mhz")                                                                    \
    X(PERFORMANCE_STATE, "performance_state")                                                                      \
    X(THROTTLE_REASONS, "throttle_reasons")                                                                        \
    X(ECC_ENABLED, "ecc_enabled")                                                                                  \
    X(ECC_CORRECTED, "ecc_corrected")                                                                              \
    X(ECC_UNCORRECTED, "ecc_uncorrected")                                                                          \
    X(REMAPPED_CORRECTABLE, "remapped_correctable")                                                                \
    X(REMAPPED_UNCORRECTABLE, "remapped_uncorrectable")                                                            \
    X(REMAP_PENDING, "remap_pending")                                                                              \
    X(REMAP_FAILED, "remap_failed")                                                                                \
    X(RETIREMENT_PENDING, "retirement_pending")                                                                    \
    X(MIG_MODE, "mig_mode")                                                                                        \
    X(NUMA_NODE, "numa_node")                                                                                      \
    X(MINOR, "minor")                                                                                              \
    X(ARCHITECTURE, "architecture")                                                                                \
    X(PCIE_GENERATION, "pcie_generation")                                                                          \
    X(PCIE_WIDTH, "pcie_width")                                                                                    \
    X(PCIE_REPLAYS, "pcie_replays")                                                                                \
    X(RECOVERY_ACTION, "recovery_action")                                                                          \
    X(MEMORY_NUMA_NODE, "memory_numa_node")                                                                        \
    X(PROCESS_BYTES, "process_bytes")
#define SIM_FACTS(X)                                                                                               \
    X(NAME, "name")                                                                                                \
    X(UUID, "uuid")                                                                                                \
    X(SERIAL, "serial")                                                                                            \
    X(PCI, "pci_bus_id")                                                                                           \
    X(COMPUTE_CAPABILITY, "compute_capability")                                                                    \
    X(PROCESSES, "processes")                                                                                      \
    X(PROCESS_UTILIZATION, "process_utilization")                                                                  \
    X(NVLINK, "nvlink")                                                                                            \
    X(EVENTS, "events")                                                                                            \
    X(HANDLE, "handle")

#define SIM_ENUM(id, name) SIM_##id,
enum sim_field { SIM_NUMBERS(SIM_ENUM) SIM_FACTS(SIM_ENUM) SIM_FIELD_COUNT };
#undef SIM_ENUM
#define SIM_NUMBER_COUNT SIM_NAME

struct sim_value {
    bool set;
    long long number; /* NVML_VALUE_NOT_AVAILABLE: the sentinel, as the driver writes it */
};

struct sim_process {
    unsigned int pid;
    long long memory_mib;
    char kind; /* C: compute, G: graphics */
    unsigned int gpu_instance; /* SIM_NO_INSTANCE: the GPU isn't divided */
    long long sm_percent;      /* -1: the driver has no sample of it */
};

/* A MIG device: a compute instance within a GPU instance. */
struct sim_mig {
    unsigned int gpu_instance, compute_instance;
    long long memory_total_mib, memory_used_mib;
    char profile[32]; /* 1g.10gb */
    char uuid[NVML_UUID_SIZE];
};

struct sim_link {
    bool to_switch;
    unsigned int peer; /* index of a GPU, unless to_switch */
};

struct sim_row {
    double offset;
    enum sim_field field;
    long long number;
};

/* A recorded series of values: each row is valid until the next one of its field. Sorted by offset. */
struct sim_series {
    struct sim_row *rows;
    size_t count;
    double start; /* seconds since the epoch */
    double length;
    bool loop;
};

struct sim_gpu {
    char uuid[NVML_UUID_SIZE];
    char name[NVML_NAME_SIZE];
    char serial[NVML_SERIAL_SIZE];
    char pci_bus_id[NVML_BUS_ID_SIZE];
    int capability_major, capability_minor;
    struct sim_value values[SIM_NUMBER_COUNT];
    nvmlReturn_t fail[SIM_FIELD_COUNT];
    nvmlReturn_t fail_all;
    unsigned int delay_ms[SIM_FIELD_COUNT];
    unsigned int delay_all_ms;
    struct sim_process processes[SIM_MAX_PROCESSES];
    unsigned int process_count;
    struct sim_mig migs[SIM_MAX_MIG];
    unsigned int mig_count;
    struct sim_link links[NVML_NVLINK_MAX_LINKS];
    unsigned int link_count;
    struct sim_series series;
};

/* An event: an XID, or one of another type with its data as code. */
struct sim_xid {
    unsigned long long sequence;
    unsigned long long type;
    unsigned int gpu;
    unsigned int gpu_instance, compute_instance;
    unsigned long long code;
};

struct sim_state {
    char driver[NVML_VERSION_SIZE];
    int cuda;
    nvmlReturn_t error;    /* what every call answers; 0: none */
    unsigned int delay_ms; /* of initialization */
    struct sim_gpu *gpus;
    unsigned int gpu_count;
    struct sim_xid xids[SIM_MAX_XIDS];
    unsigned int xid_count;
};

/* names.c */
extern const char *const sim_field_names[SIM_FIELD_COUNT];
bool sim_field_of(const char *name, enum sim_field *field);

/* parse.c: a whole state file into *state, which the caller frees with sim_free. On false, `problem` describes where and why. */
bool sim_parse(const char *path, struct sim_state *state, char *problem, size_t size);
void sim_free(struct sim_state *state);

/* series.c */
bool sim_series_load(const char *path, struct sim_series *series, char *problem, size_t size);
bool sim_series_at(const struct sim_series *series, enum sim_field field, double now, long long *number);

/* state.c: everything below needs the lock, which sim_lock takes and sim_unlock releases. */
void sim_lock(void);
void sim_unlock(void);
/* Reads the file again if it changed. NULL: it is missing, so no driver is loaded. */
struct sim_state *sim_current(void);
double sim_now(void);
void sim_pause(unsigned int milliseconds);
/* Returns a descriptor for changes in the state file's folder, which the caller closes; -1: not available. */
int sim_watch(void);
/* Opens the simulated control device, which shows from outside who uses the driver; -1: not available. */
int sim_open_control(void);
/* Sleeps until the next change, at most for this long. Without the lock. */
void sim_await(int watch, unsigned int milliseconds);

/* call.c */
struct nvmlDevice_st {
    unsigned int index; /* of the GPU */
    unsigned int mig;   /* place of the MIG device in the GPU's list; SIM_NO_INSTANCE: the GPU itself */
};
extern unsigned int sim_initialized;
/* Called once, under the lock, before the first handle is returned. */
void sim_number_handles(void);
nvmlDevice_t sim_handle(unsigned int index);
nvmlDevice_t sim_mig_handle(unsigned int index, unsigned int mig);
/* The checks at the beginning of every call. On NVML_SUCCESS the lock is held, and the caller calls sim_unlock. */
nvmlReturn_t sim_enter_node(struct sim_state **state);
nvmlReturn_t sim_enter(nvmlDevice_t device, enum sim_field field, struct sim_gpu **gpu);
/* The same for calls that MIG devices support: *mig is NULL for a GPU. Other calls about them are NOT_SUPPORTED. */
nvmlReturn_t sim_enter_any(nvmlDevice_t device, enum sim_field field, struct sim_gpu **gpu, struct sim_mig **mig);
/* Returns a number of a device, from the series or the file; NOT_SUPPORTED when neither contains it. */
nvmlReturn_t sim_number(nvmlDevice_t device, enum sim_field field, long long *number);
nvmlReturn_t sim_number_locked(const struct sim_gpu *gpu, enum sim_field field, long long *number);
nvmlReturn_t sim_copy(char *to, unsigned int size, const char *from);

/* identity.c */
void sim_fill_pci(const struct sim_gpu *gpu, nvmlPciInfo_t *pci);

#endif
