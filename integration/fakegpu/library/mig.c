// Parts of GPUs.

#include "state.h"

nvmlReturn_t nvmlDeviceGetMigMode(nvmlDevice_t device, unsigned int *current, unsigned int *pending)
{
	WHOLE(device, current && pending);
	TRY(small(&c, "mig-mode", current));
	return small(&c, "mig-pending", pending);
}

nvmlReturn_t nvmlDeviceGetMaxMigDeviceCount(nvmlDevice_t device, unsigned int *count)
{
	WHOLE(device, count);
	*count = migs(&c);
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetMigDeviceHandleByIndex(nvmlDevice_t device, unsigned int index, nvmlDevice_t *mig)
{
	WHOLE(device, mig);
	char key[16];
	unsigned int gi, ci, most = migs(&c);
	if (most && index >= most) return NVML_ERROR_INVALID_ARGUMENT;
	snprintf(key, sizeof key, "mig %u", index);
	const char *p = find(&c, c.object, key);
	if (!most || !p || sscanf(p, "%u %u", &gi, &ci) != 2) return NVML_ERROR_NOT_FOUND;
	TRY(aim_mig(&c, gi, ci));
	*mig = handle(&c);
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceIsMigDeviceHandle(nvmlDevice_t device, unsigned int *is)
{
	ANY(device, is);
	*is = c.mig;
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetGpuInstanceId(nvmlDevice_t device, unsigned int *id)
{
	ANY(device, id);
	if (!c.mig) return NVML_ERROR_NOT_SUPPORTED;
	*id = c.gi;
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetComputeInstanceId(nvmlDevice_t device, unsigned int *id)
{
	ANY(device, id);
	if (!c.mig) return NVML_ERROR_NOT_SUPPORTED;
	*id = c.ci;
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetDeviceHandleFromMigDeviceHandle(nvmlDevice_t mig, nvmlDevice_t *device)
{
	ANY(mig, device);
	if (!c.mig) return NVML_ERROR_INVALID_ARGUMENT;
	c.mig = false;
	*device = handle(&c);
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetAttributes_v2(nvmlDevice_t device, nvmlDeviceAttributes_t *a)
{
	ANY(device, a);
	if (!c.mig) return NVML_ERROR_NOT_SUPPORTED;
	memset(a, 0, sizeof *a);
	TRY(number(&c, "memory", &a->memorySizeMB));
	a->memorySizeMB >>= 20;
	TRY(small(&c, "multiprocessors", &a->multiprocessorCount));
	TRY(small(&c, "slices", &a->gpuInstanceSliceCount));
	return small(&c, "compute-slices", &a->computeInstanceSliceCount);
}
