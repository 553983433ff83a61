// Memory, and what is wrong with it.

#include "state.h"

// What processes use is counted on top of what the state says is used.
static nvmlReturn_t memory_of(const struct call *c, nvmlMemory_v2_t *m)
{
	TRY(number(c, "memory", &m->total));
	TRY(number(c, "reserved", &m->reserved));
	TRY(number(c, "used", &m->used));
	char line[32];
	snprintf(line, sizeof line, "\ngpu%d process ", c->gpu);
	for (const char *p = c->text; (p = strstr(p, line)); p++) {
		unsigned long long bytes;
		unsigned int gi;
		if (sscanf(p + strlen(line), "%*s %*u %llu %u", &bytes, &gi) != 2 || bytes == (unsigned long long)NVML_VALUE_NOT_AVAILABLE) continue;
		if (!c->mig || gi == c->gi) m->used += bytes;
	}
	if (m->used > m->total - m->reserved) m->used = m->total - m->reserved;
	m->free = m->total - m->reserved - m->used;
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *memory)
{
	ANY(device, memory);
	nvmlMemory_v2_t m;
	TRY(memory_of(&c, &m));
	*memory = (nvmlMemory_t){.total = m.total, .free = m.free, .used = m.reserved + m.used};
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, nvmlMemory_v2_t *memory)
{
	ANY(device, memory);
	if (memory->version != nvmlMemory_v2) return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
	return memory_of(&c, memory); // drivers do not count what is reserved as used here, whatever nvml.h says
}

nvmlReturn_t nvmlDeviceGetRemappedRows(nvmlDevice_t device, unsigned int *correctable, unsigned int *uncorrectable,
	unsigned int *pending, unsigned int *failed)
{
	WHOLE(device, correctable && uncorrectable && pending && failed);
	const char *p = find(&c, c.object, "remapped");
	return p && sscanf(p, "%u %u %u %u", correctable, uncorrectable, pending, failed) == 4 ? NVML_SUCCESS : NVML_ERROR_NOT_SUPPORTED;
}

nvmlReturn_t nvmlDeviceGetTotalEccErrors(nvmlDevice_t device, nvmlMemoryErrorType_t type, nvmlEccCounterType_t counter,
	unsigned long long *errors)
{
	WHOLE(device, errors && type < NVML_MEMORY_ERROR_TYPE_COUNT && counter < NVML_ECC_COUNTER_TYPE_COUNT);
	char key[16];
	snprintf(key, sizeof key, "ecc %u %u", type, counter);
	return number(&c, key, errors);
}
