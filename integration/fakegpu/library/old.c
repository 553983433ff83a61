// Old names, to which go-nvml falls back where it finds no newer one.

#include "state.h"

#define OLD(name, new, parameters, ...) \
	nvmlReturn_t name parameters { TRY(fault(__func__)); return new(__VA_ARGS__); }

OLD(nvmlInit, nvmlInit_v2, (void))
OLD(nvmlDeviceGetCount, nvmlDeviceGetCount_v2, (unsigned int *count), count)
OLD(nvmlDeviceGetHandleByIndex, nvmlDeviceGetHandleByIndex_v2, (unsigned int index, nvmlDevice_t *device), index, device)
OLD(nvmlDeviceGetHandleByPciBusId, nvmlDeviceGetHandleByPciBusId_v2, (const char *bus_id, nvmlDevice_t *device), bus_id, device)
OLD(nvmlDeviceGetAttributes, nvmlDeviceGetAttributes_v2, (nvmlDevice_t device, nvmlDeviceAttributes_t *a), device, a)
OLD(nvmlEventSetWait, nvmlEventSetWait_v2, (nvmlEventSet_t set, nvmlEventData_t *data, unsigned int timeout), set, data, timeout)

// shorten gives a list in the first version's form, which knows nothing of MIG.
static nvmlReturn_t shorten(nvmlReturn_t (*list)(nvmlDevice_t, unsigned int *, nvmlProcessInfo_t *), nvmlDevice_t device,
	unsigned int *count, nvmlProcessInfo_v1_t *infos)
{
	nvmlProcessInfo_t all[256];
	NEED(count && (infos || !*count));
	if (*count > sizeof all / sizeof *all) *count = sizeof all / sizeof *all;
	TRY(list(device, count, all));
	for (unsigned int i = 0; i < *count; i++) infos[i] = (nvmlProcessInfo_v1_t){.pid = all[i].pid, .usedGpuMemory = all[i].usedGpuMemory};
	return NVML_SUCCESS;
}

#define OLD_LIST(name) \
	OLD(name ## _v2, name ## _v3, (nvmlDevice_t device, unsigned int *count, nvmlProcessInfo_v2_t *infos), device, count, (void *)infos) \
	OLD(name, shorten, (nvmlDevice_t device, unsigned int *count, nvmlProcessInfo_v1_t *infos), name ## _v3, device, count, infos)

OLD_LIST(nvmlDeviceGetComputeRunningProcesses)
OLD_LIST(nvmlDeviceGetGraphicsRunningProcesses)
OLD_LIST(nvmlDeviceGetMPSComputeRunningProcesses)
