/* Parses the state file: one fact per line, `gpu <index>` begins a GPU. gpufleet_simgpu/text.py writes it and
 * describes the format. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim.h"

#define BLANKS " \t\r\n"
#define MAX_INSTANCE 15

struct parser {
    const char *path;
    struct sim_state *state;
    struct sim_gpu *gpu; /* the one whose lines are being read; NULL before the first */
    char *rest;          /* of the line */
    char *problem;
    size_t size;
};

__attribute__((format(printf, 2, 3))) static bool refuse(struct parser *parser, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(parser->problem, parser->size, format, arguments);
    va_end(arguments);
    return false;
}

static char *next_word(struct parser *parser) { return strtok_r(NULL, BLANKS, &parser->rest); }

static bool more_words(const struct parser *parser) { return parser->rest[strspn(parser->rest, BLANKS)] != '\0'; }

static bool next_number(struct parser *parser, long long *number) {
    char *word = next_word(parser), *end = NULL;
    if (word == NULL) return refuse(parser, "a number is missing");
    if (strcmp(word, "na") == 0) {
        *number = NVML_VALUE_NOT_AVAILABLE;
        return true;
    }
    errno = 0;
    *number = strtoll(word, &end, 10);
    return (errno == 0 && end != word && *end == '\0') || refuse(parser, "`%s` is not a number", word);
}

static bool next_count(struct parser *parser, unsigned int limit, unsigned int *count) {
    long long number = 0;
    if (!next_number(parser, &number)) return false;
    if (number < 0 || number > limit) return refuse(parser, "%lld is not within 0..%u", number, limit);
    *count = (unsigned int)number;
    return true;
}

static bool rest_of_line(struct parser *parser, char *to, size_t size) {
    char *text = parser->rest + strspn(parser->rest, BLANKS);
    size_t length = strlen(text);
    while (length > 0 && strchr(BLANKS, text[length - 1]) != NULL) length--;
    if (length == 0) return refuse(parser, "a text is missing");
    if (length >= size) return refuse(parser, "the text is longer than %zu", size - 1);
    memcpy(to, text, length);
    to[length] = '\0';
    parser->rest = text + strlen(text);
    return true;
}

static bool begin_gpu(struct parser *parser) {
    struct sim_state *state = parser->state;
    unsigned int index = 0;
    if (!next_count(parser, SIM_MAX_GPUS - 1, &index)) return false;
    if (index != state->gpu_count) return refuse(parser, "gpu %u: the next is %u", index, state->gpu_count);
    struct sim_gpu *gpus = realloc(state->gpus, (index + 1) * sizeof *gpus);
    if (gpus == NULL) return refuse(parser, "out of memory");
    state->gpus = gpus;
    parser->gpu = &gpus[state->gpu_count++];
    memset(parser->gpu, 0, sizeof *parser->gpu);
    return true;
}

/* `fail <field>|all <code>` and `delay <field>|all <milliseconds>` */
static bool set_per_field(struct parser *parser, unsigned int *of_field, unsigned int *of_all) {
    char *word = next_word(parser);
    enum sim_field field = SIM_FIELD_COUNT;
    if (word == NULL) return refuse(parser, "a field, or `all`, is missing");
    if (strcmp(word, "all") == 0) return next_count(parser, 86400000, of_all);
    if (!sim_field_of(word, &field)) return refuse(parser, "no field `%s`", word);
    return next_count(parser, 86400000, &of_field[field]);
}

static bool add_process(struct parser *parser) {
    struct sim_gpu *gpu = parser->gpu;
    if (gpu->process_count == SIM_MAX_PROCESSES) return refuse(parser, "more than %d processes", SIM_MAX_PROCESSES);
    struct sim_process *process = &gpu->processes[gpu->process_count];
    if (!next_count(parser, 0xffffffff, &process->pid) || !next_number(parser, &process->memory_mib)) return false;
    char *kind = next_word(parser);
    if (kind == NULL || (strcmp(kind, "C") != 0 && strcmp(kind, "G") != 0)) return refuse(parser, "want C or G");
    process->kind = kind[0];
    process->gpu_instance = SIM_NO_INSTANCE;
    process->sm_percent = -1;
    gpu->process_count++;
    while (more_words(parser)) {
        unsigned int percent = 0;
        if (parser->rest[strspn(parser->rest, BLANKS)] == '@') {
            parser->rest += strspn(parser->rest, BLANKS) + 1;
            if (!next_count(parser, 1000000, &percent)) return false;
            process->sm_percent = percent;
        } else if (!next_count(parser, MAX_INSTANCE, &process->gpu_instance)) return false;
    }
    return true;
}

/* `mig <GPU instance> <compute instance> <MiB> <MiB used> <profile> <uuid>` */
static bool add_mig(struct parser *parser) {
    struct sim_gpu *gpu = parser->gpu;
    if (gpu->mig_count == SIM_MAX_MIG) return refuse(parser, "more than %d MIG devices", SIM_MAX_MIG);
    struct sim_mig *mig = &gpu->migs[gpu->mig_count];
    if (!next_count(parser, MAX_INSTANCE, &mig->gpu_instance) ||
        !next_count(parser, MAX_INSTANCE, &mig->compute_instance) || !next_number(parser, &mig->memory_total_mib) ||
        !next_number(parser, &mig->memory_used_mib))
        return false;
    char *profile = next_word(parser);
    if (profile == NULL || strlen(profile) >= sizeof mig->profile) return refuse(parser, "want a profile");
    strcpy(mig->profile, profile);
    gpu->mig_count++;
    return rest_of_line(parser, mig->uuid, sizeof mig->uuid);
}

/* `nvlink switch <count>` or `nvlink <gpu> <count>`: adds links, numbered consecutively */
static bool add_links(struct parser *parser) {
    struct sim_gpu *gpu = parser->gpu;
    struct sim_link link = {.to_switch = false, .peer = 0};
    unsigned int count = 0;
    char *word = next_word(parser), *end = NULL;
    if (word == NULL) return refuse(parser, "want `switch` or a GPU's index");
    link.to_switch = strcmp(word, "switch") == 0;
    if (!link.to_switch) {
        unsigned long peer = strtoul(word, &end, 10);
        if (*end != '\0' || peer >= SIM_MAX_GPUS) return refuse(parser, "want `switch` or a GPU's index");
        link.peer = (unsigned int)peer;
    }
    if (!next_count(parser, NVML_NVLINK_MAX_LINKS - gpu->link_count, &count)) return false;
    while (count-- > 0) gpu->links[gpu->link_count++] = link;
    return true;
}

/* `series <path> loop|hold <start>`: a relative path starts at the state file's folder */
static bool set_series(struct parser *parser) {
    struct sim_series *series = &parser->gpu->series;
    char *path = next_word(parser), *mode = next_word(parser), *start = next_word(parser), *end = NULL;
    if (start == NULL || (strcmp(mode, "loop") != 0 && strcmp(mode, "hold") != 0))
        return refuse(parser, "want `series <path> loop|hold <start>`");
    if (series->rows != NULL) return refuse(parser, "a second series");
    series->loop = strcmp(mode, "loop") == 0;
    series->start = strtod(start, &end);
    if (*end != '\0') return refuse(parser, "`%s` is not a time", start);
    char whole[4096];
    const char *slash = strrchr(parser->path, '/');
    int folder = path[0] == '/' || slash == NULL ? 0 : (int)(slash - parser->path + 1);
    int length = snprintf(whole, sizeof whole, "%.*s%s", folder, parser->path, path);
    if (length < 0 || (size_t)length >= sizeof whole) return refuse(parser, "the path is too long");
    return sim_series_load(whole, series, parser->problem, parser->size);
}

static bool set_capability(struct parser *parser) {
    char *word = next_word(parser);
    char tail = '\0';
    struct sim_gpu *gpu = parser->gpu;
    return (word != NULL && sscanf(word, "%d.%d%c", &gpu->capability_major, &gpu->capability_minor, &tail) == 2) ||
           refuse(parser, "want `compute_capability <major>.<minor>`");
}

static bool gpu_line(struct parser *parser, const char *key) {
    struct sim_gpu *gpu = parser->gpu;
    enum sim_field field = SIM_FIELD_COUNT;
    if (strcmp(key, "fail") == 0) return set_per_field(parser, gpu->fail, &gpu->fail_all);
    if (strcmp(key, "delay") == 0) return set_per_field(parser, gpu->delay_ms, &gpu->delay_all_ms);
    if (strcmp(key, "process") == 0) return add_process(parser);
    if (strcmp(key, "mig") == 0) return add_mig(parser);
    if (strcmp(key, "series") == 0) return set_series(parser);
    if (!sim_field_of(key, &field)) return refuse(parser, "no field `%s`", key);
    switch (field) {
    case SIM_UUID: return rest_of_line(parser, gpu->uuid, sizeof gpu->uuid);
    case SIM_NAME: return rest_of_line(parser, gpu->name, sizeof gpu->name);
    case SIM_SERIAL: return rest_of_line(parser, gpu->serial, sizeof gpu->serial);
    case SIM_PCI: return rest_of_line(parser, gpu->pci_bus_id, sizeof gpu->pci_bus_id);
    case SIM_COMPUTE_CAPABILITY: return set_capability(parser);
    case SIM_NVLINK: return add_links(parser);
    default: break;
    }
    if (field >= SIM_NUMBER_COUNT) return refuse(parser, "`%s` has no value", key);
    gpu->values[field].set = true;
    return next_number(parser, &gpu->values[field].number);
}

/* `xid <sequence> <gpu> <code> [<GPU instance> <compute instance>]`, and `event` with an NVML type before its data. Sequences
 * increase: each event set delivers each of them once. */
static bool add_xid(struct parser *parser, bool is_xid) {
    struct sim_state *state = parser->state;
    long long sequence = 0, code = 0;
    unsigned int gpu = 0, gpu_instance = SIM_NO_INSTANCE, compute_instance = SIM_NO_INSTANCE;
    long long type = NVML_EVENT_XID_CRITICAL_ERROR;
    if (!next_number(parser, &sequence) || !next_count(parser, SIM_MAX_GPUS - 1, &gpu) ||
        (!is_xid && !next_number(parser, &type)) || !next_number(parser, &code))
        return false;
    if (more_words(parser) && (!next_count(parser, MAX_INSTANCE, &gpu_instance) ||
                               !next_count(parser, MAX_INSTANCE, &compute_instance)))
        return false;
    unsigned long long last = state->xid_count == 0 ? 0 : state->xids[state->xid_count - 1].sequence;
    if (sequence <= 0 || (unsigned long long)sequence <= last) return refuse(parser, "xid sequences must rise from 1");
    if (state->xid_count == SIM_MAX_XIDS) return refuse(parser, "more than %d xids", SIM_MAX_XIDS);
    state->xids[state->xid_count++] =
        (struct sim_xid){.sequence = (unsigned long long)sequence,
                         .type = (unsigned long long)type,
                         .gpu = gpu,
                         .gpu_instance = gpu_instance,
                         .compute_instance = compute_instance,
                         .code = (unsigned long long)code};
    return true;
}

static bool parse_line(struct parser *parser, char *line) {
    char *key = strtok_r(line, BLANKS, &parser->rest);
    unsigned int number = 0;
    if (key == NULL || key[0] == '#') return true;
    bool good = true;
    if (strcmp(key, "gpu") == 0) good = begin_gpu(parser);
    else if (strcmp(key, "xid") == 0) good = add_xid(parser, true);
    else if (strcmp(key, "event") == 0) good = add_xid(parser, false);
    else if (parser->gpu != NULL) good = gpu_line(parser, key);
    else if (strcmp(key, "driver") == 0) good = rest_of_line(parser, parser->state->driver, NVML_VERSION_SIZE);
    else if (strcmp(key, "error") == 0) good = next_count(parser, NVML_ERROR_UNKNOWN, &parser->state->error);
    else if (strcmp(key, "delay_ms") == 0) good = next_count(parser, 86400000, &parser->state->delay_ms);
    else if (strcmp(key, "cuda") == 0) {
        good = next_count(parser, 1000000, &number);
        parser->state->cuda = (int)number;
    } else return refuse(parser, "`%s` is not known here", key);
    if (good && next_word(parser) != NULL) return refuse(parser, "too much on the line");
    return good;
}

bool sim_parse(const char *path, struct sim_state *state, char *problem, size_t size) {
    memset(state, 0, sizeof *state);
    FILE *file = fopen(path, "re");
    if (file == NULL) {
        snprintf(problem, size, "%s", strerror(errno));
        return false;
    }
    char detail[512] = "";
    struct parser parser = {.path = path, .state = state, .problem = detail, .size = sizeof detail};
    char *line = NULL;
    size_t line_size = 0;
    unsigned int number = 0;
    bool good = true;
    while (good && getline(&line, &line_size, file) >= 0) {
        number++;
        good = parse_line(&parser, line);
    }
    free(line);
    fclose(file);
    if (!good) {
        snprintf(problem, size, "line %u: %s", number, detail);
        sim_free(state);
    }
    return good;
}

void sim_free(struct sim_state *state) {
    for (unsigned int i = 0; i < state->gpu_count; i++) free(state->gpus[i].series.rows);
    free(state->gpus);
    memset(state, 0, sizeof *state);
}
