/* A recorded series: lines of `<offset in seconds> <field>=<number> ...`, offsets increasing. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim.h"

static bool add_row(struct sim_series *series, size_t *room, struct sim_row row) {
    if (series->count == *room) {
        size_t more = *room == 0 ? 64 : *room * 2;
        struct sim_row *rows = realloc(series->rows, more * sizeof *rows);
        if (rows == NULL) return false;
        series->rows = rows;
        *room = more;
    }
    series->rows[series->count++] = row;
    return true;
}

static bool add_line(struct sim_series *series, size_t *room, char *line) {
    char *rest = NULL;
    char *word = strtok_r(line, " \t\r\n", &rest);
    if (word == NULL || word[0] == '#') return true;
    char *end = NULL;
    double offset = strtod(word, &end);
    if (*end != '\0' || !isfinite(offset) || offset < series->length) return false;
    series->length = offset;
    while ((word = strtok_r(NULL, " \t\r\n", &rest)) != NULL) {
        char *equals = strchr(word, '=');
        struct sim_row row = {.offset = offset};
        if (equals == NULL) return false;
        *equals = '\0';
        if (!sim_field_of(word, &row.field) || row.field >= SIM_NUMBER_COUNT) return false;
        row.number = strtoll(equals + 1, &end, 10);
        if (end == equals + 1 || *end != '\0' || !add_row(series, room, row)) return false;
    }
    return true;
}

bool sim_series_load(const char *path, struct sim_series *series, char *problem, size_t size) {
    FILE *file = fopen(path, "re");
    if (file == NULL) {
        snprintf(problem, size, "%s: %s", path, strerror(errno));
        return false;
    }
    char *line = NULL;
    size_t line_size = 0, room = 0;
    unsigned int number = 0;
    bool good = true;
    while (good && getline(&line, &line_size, file) >= 0) {
        number++;
        good = add_line(series, &room, line);
    }
    free(line);
    fclose(file);
    if (!good) snprintf(problem, size, "%s line %u: want `<rising offset> <field>=<number> ...`", path, number);
    if (good && series->count == 0) {
        snprintf(problem, size, "%s: no rows", path);
        good = false;
    }
    return good;
}

bool sim_series_at(const struct sim_series *series, enum sim_field field, double now, long long *number) {
    if (series->count == 0) return false;
    double at = now - series->start;
    if (series->loop && series->length > 0 && at >= 0) at = fmod(at, series->length);
    /* The last row at or before `at`... */
    size_t low = 0, high = series->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (series->rows[middle].offset <= at) low = middle + 1;
        else high = middle;
    }
    /* ...and from there back to the last one of this field. */
    while (low-- > 0) {
        if (series->rows[low].field == field) {
            *number = series->rows[low].number;
            return true;
        }
    }
    return false;
}
