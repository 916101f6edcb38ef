/* Field names, as the state file and series files spell them. */
#include <string.h>

#include "sim.h"

#define SIM_TEXT(id, text) text,
const char *const sim_field_names[SIM_FIELD_COUNT] = {SIM_NUMBERS(SIM_TEXT) SIM_FACTS(SIM_TEXT)};

bool sim_field_of(const char *name, enum sim_field *field) {
    for (unsigned int i = 0; i < SIM_FIELD_COUNT; i++) {
        if (strcmp(sim_field_names[i], name) == 0) {
            *field = (enum sim_field)i;
            return true;
        }
    }
    return false;
}
