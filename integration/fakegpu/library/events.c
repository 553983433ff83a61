// Events. Each line of the file "events" is one: GPU, type, data, and where they are known the instances.

#include "state.h"

static struct nvmlEventSet_st {
	bool used;
	size_t read; // how far
	unsigned long long types[GPUS];
	size_t from[GPUS]; // where the file ended when the GPU was registered
} sets[64];

static pthread_mutex_t events = PTHREAD_MUTEX_INITIALIZER; // guards the sets

enum {
	SUPPORTED = nvmlEventTypeXidCriticalError | nvmlEventTypeSingleBitEccError | nvmlEventTypeDoubleBitEccError | nvmlEventTypePState
		| nvmlEventTypeClock
};

static bool usable(struct nvmlEventSet_st *set) { return set >= sets && set < sets + sizeof sets / sizeof *sets && set->used; }

static size_t length(void)
{
	char *text = contents("events");
	size_t n = text ? strlen(text + 1) : 0;
	free(text);
	return n;
}

nvmlReturn_t nvmlDeviceGetSupportedEventTypes(nvmlDevice_t device, unsigned long long *types)
{
	WHOLE(device, types);
	*types = SUPPORTED;
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlEventSetCreate(nvmlEventSet_t *out)
{
	CALL;
	NEED(out);
	nvmlReturn_t result = NVML_ERROR_INSUFFICIENT_RESOURCES;
	pthread_mutex_lock(&events);
	for (size_t i = 0; i < sizeof sets / sizeof *sets && result; i++) {
		if (sets[i].used) continue;
		sets[i] = (struct nvmlEventSet_st){.used = true, .read = length()};
		out->handle = &sets[i];
		result = NVML_SUCCESS;
	}
	pthread_mutex_unlock(&events);
	return result;
}

nvmlReturn_t nvmlDeviceRegisterEvents(nvmlDevice_t device, unsigned long long types, nvmlEventSet_t set)
{
	WHOLE(device, set.handle);
	if (types & ~(unsigned long long)SUPPORTED) return NVML_ERROR_NOT_SUPPORTED;
	pthread_mutex_lock(&events);
	bool ok = usable(set.handle);
	if (ok && !set.handle->types[c.gpu]) set.handle->from[c.gpu] = length();
	if (ok) set.handle->types[c.gpu] |= types;
	pthread_mutex_unlock(&events);
	return ok ? NVML_SUCCESS : NVML_ERROR_INVALID_ARGUMENT;
}

// next takes the next event that a set asked for. A line that is not complete is left.
static bool next(struct nvmlEventSet_st *set, nvmlEventData_t *data)
{
	char *text = contents("events"), *end;
	if (!text) return false;
	bool found = false;
	char *line = text + 1 + set->read;
	for (size_t size = strlen(text + 1); !found && set->read < size && (end = strchr(line, '\n')); line = end + 1) {
		struct call c = {.mig = false};
		size_t at = set->read;
		set->read = (size_t)(end - text);
		*end = 0;
		*data = (nvmlEventData_t){.gpuInstanceId = NOBODY, .computeInstanceId = NOBODY};
		int fields = sscanf(line, "%d %llu %llu %u %u", &c.gpu, &data->eventType, &data->eventData, &data->gpuInstanceId,
			&data->computeInstanceId);
		if (fields < 3) continue;
		found = c.gpu >= 0 && c.gpu < GPUS && at >= set->from[c.gpu] && set->types[c.gpu] & data->eventType;
		if (found) data->device = handle(&c);
	}
	free(text);
	return found;
}

nvmlReturn_t nvmlEventSetWait_v2(nvmlEventSet_t set, nvmlEventData_t *data, unsigned int timeout)
{
	CALL;
	NEED(data);
	for (long long end = now() + timeout * 1000000LL;; sleep_ms(3)) {
		pthread_mutex_lock(&events);
		bool ok = usable(set.handle), found = ok && next(set.handle, data);
		pthread_mutex_unlock(&events);
		if (found) return NVML_SUCCESS;
		if (!ok) return NVML_ERROR_INVALID_ARGUMENT;
		if (!initialised) return NVML_ERROR_UNINITIALIZED;
		if (now() >= end) return NVML_ERROR_TIMEOUT;
	}
}

nvmlReturn_t nvmlEventSetFree(nvmlEventSet_t set)
{
	CALL;
	pthread_mutex_lock(&events);
	bool ok = usable(set.handle);
	if (ok) set.handle->used = false;
	pthread_mutex_unlock(&events);
	return ok ? NVML_SUCCESS : NVML_ERROR_INVALID_ARGUMENT;
}
