// Processes and measurements.

#include "state.h"

static nvmlReturn_t processes(const char *function, nvmlDevice_t device, const char *kind, unsigned int *count, nvmlProcessInfo_t *infos)
{
	__attribute__((cleanup(leave))) struct call c = {.text = NULL};
	TRY(enter(&c, function));
	TRY(aim_handle(&c, device));
	NEED(count && (infos || !*count));
	unsigned int room = *count, n = 0;
	char line[48];
	snprintf(line, sizeof line, "\ngpu%d process %s ", c.gpu, kind);
	for (const char *p = c.text; (p = strstr(p, line)); p++) {
		nvmlProcessInfo_t info;
		int fields = sscanf(p + strlen(line), "%u %llu %u %u", &info.pid, &info.usedGpuMemory, &info.gpuInstanceId, &info.computeInstanceId);
		if (fields != 4) continue;
		if (c.mig && (info.gpuInstanceId != c.gi || info.computeInstanceId != c.ci)) continue;
		if (n < room) infos[n] = info;
		n++;
	}
	*count = n;
	return n > room ? NVML_ERROR_INSUFFICIENT_SIZE : NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v3(nvmlDevice_t device, unsigned int *count, nvmlProcessInfo_t *infos)
{
	return processes(__func__, device, "compute", count, infos);
}

nvmlReturn_t nvmlDeviceGetGraphicsRunningProcesses_v3(nvmlDevice_t device, unsigned int *count, nvmlProcessInfo_t *infos)
{
	return processes(__func__, device, "graphics", count, infos);
}

nvmlReturn_t nvmlDeviceGetMPSComputeRunningProcesses_v3(nvmlDevice_t device, unsigned int *count, nvmlProcessInfo_t *infos)
{
	return processes(__func__, device, "mps", count, infos);
}

nvmlReturn_t nvmlDeviceGetPowerUsage(nvmlDevice_t device, unsigned int *power)
{
	WHOLE(device, power);
	return small(&c, "power", power);
}

nvmlReturn_t nvmlDeviceGetEnforcedPowerLimit(nvmlDevice_t device, unsigned int *limit)
{
	WHOLE(device, limit);
	return small(&c, "power-limit", limit);
}

nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t device, nvmlTemperatureSensors_t sensor, unsigned int *temperature)
{
	WHOLE(device, temperature && sensor == NVML_TEMPERATURE_GPU);
	return small(&c, "temperature", temperature);
}

nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t device, nvmlUtilization_t *utilization)
{
	WHOLE(device, utilization);
	if (migs(&c)) return NVML_ERROR_NOT_SUPPORTED;
	TRY(small(&c, "busy", &utilization->gpu));
	return small(&c, "memory-busy", &utilization->memory);
}

// Energy grows with the power from the moment at which the state was written.
nvmlReturn_t nvmlDeviceGetTotalEnergyConsumption(nvmlDevice_t device, unsigned long long *energy)
{
	WHOLE(device, energy);
	unsigned long long base, power;
	TRY(number(&c, "energy", &base));
	TRY(number(&c, "power", &power));
	const char *p = find(&c, "host", "written");
	long long passed = p ? now() - atoll(p) : 0;
	*energy = base + (passed > 0 ? (unsigned long long)passed / 1000000 * power / 1000 : 0);
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetFieldValues(nvmlDevice_t device, int count, nvmlFieldValue_t *values)
{
	WHOLE(device, values);
	for (nvmlFieldValue_t *v = values; v < values + count; v++) {
		v->timestamp = (long long)time(NULL) * 1000000;
		v->latencyUsec = 0;
		v->valueType = NVML_VALUE_TYPE_UNSIGNED_INT;
		v->nvmlReturn = NVML_ERROR_NOT_SUPPORTED;
		memset(&v->value, 0, sizeof v->value);
		if (v->fieldId == NVML_FI_DEV_GET_GPU_RECOVERY_ACTION) v->nvmlReturn = small(&c, "recovery", &v->value.uiVal);
	}
	return NVML_SUCCESS;
}
