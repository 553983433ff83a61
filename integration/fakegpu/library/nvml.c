// An NVML without GPUs: whatever it is asked, it reads in the file "state" beside it. See doc.go.

#include "state.h"

// The library.

static nvmlReturn_t init(const char *function)
{
	TRY(fault(function));
	char *text = contents("state");
	if (!text) return NVML_ERROR_DRIVER_NOT_LOADED;
	free(text);
	initialised++;
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlInit_v2(void) { return init(__func__); }
nvmlReturn_t nvmlInitWithFlags(unsigned int flags) { return init(__func__); }

nvmlReturn_t nvmlShutdown(void)
{
	TRY(fault(__func__));
	for (unsigned int n = initialised; n;)
		if (atomic_compare_exchange_weak(&initialised, &n, n - 1)) return NVML_SUCCESS;
	return NVML_ERROR_UNINITIALIZED;
}

// It only names, so it has no faults.
const char *nvmlErrorString(nvmlReturn_t result)
{
	static const char *const words[] = {"Success", "Uninitialized", "Invalid Argument", "Not Supported", "Insufficient Permissions",
		"Already Initialized", "Not Found", "Insufficient Size", "Insufficient External Power", "Driver Not Loaded", "Timeout",
		"Interrupt Request Issue", "NVML Shared Library Not Found", "Function Not Found", "Corrupted infoROM", "GPU is lost",
		"GPU requires reset", "GPU access blocked by the operating system", "Driver/library version mismatch", "In use by another client"};
	return (size_t)result < sizeof words / sizeof *words ? words[result] : "Unknown Error";
}

nvmlReturn_t nvmlSystemGetDriverVersion(char *version, unsigned int length)
{
	CALL;
	return string(&c, "host", "driver", version, length);
}

nvmlReturn_t nvmlSystemGetNVMLVersion(char *version, unsigned int length)
{
	CALL;
	return string(&c, "host", "nvml", version, length);
}

static nvmlReturn_t cuda(const char *function, int *version)
{
	__attribute__((cleanup(leave))) struct call c = {.text = NULL, .object = "host"};
	TRY(fault(function)); // whether the library is initialised does not matter here
	NEED(version);
	NEED(c.text = contents("state"));
	return small(&c, "cuda", (unsigned int *)version);
}

nvmlReturn_t nvmlSystemGetCudaDriverVersion_v2(int *version) { return cuda(__func__, version); }
nvmlReturn_t nvmlSystemGetCudaDriverVersion(int *version) { return cuda(__func__, version); }

// Handles.

nvmlReturn_t nvmlDeviceGetCount_v2(unsigned int *count)
{
	CALL;
	NEED(count);
	*count = (unsigned int)gpus(&c);
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned int index, nvmlDevice_t *device)
{
	CALL;
	NEED(device);
	TRY(aim(&c, index < GPUS ? (int)index : -1));
	*device = handle(&c);
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice_t *device)
{
	CALL;
	NEED(uuid && device);
	size_t length = strlen(uuid);
	for (const char *p = c.text; (p = strstr(p, " uuid ")); p++) {
		if (strncmp(p + 6, uuid, length) || p[6 + length] != '\n') continue;
		const char *line = p;
		while (line[-1] != '\n') line--;
		int gpu;
		unsigned int gi, ci;
		int found = sscanf(line + 3, "%d/%u/%u", &gpu, &gi, &ci);
		TRY(aim(&c, gpu));
		if (found == 3) TRY(aim_mig(&c, gi, ci));
		*device = handle(&c);
		return NVML_SUCCESS;
	}
	return NVML_ERROR_NOT_FOUND;
}

nvmlReturn_t pci_of(const struct call *c, const char *object, nvmlPciInfo_t *pci)
{
	char text[32];
	unsigned int function;
	memset(pci, 0, sizeof *pci);
	TRY(string(c, object, "pci", text, sizeof text));
	if (sscanf(text, "%x:%x:%x.%x", &pci->domain, &pci->bus, &pci->device, &function) != 4) return NVML_ERROR_UNKNOWN;
	snprintf(pci->busId, sizeof pci->busId, "%08X:%02X:%02X.%X", pci->domain, pci->bus, pci->device, function);
	snprintf(pci->busIdLegacy, sizeof pci->busIdLegacy, "%04X:%02X:%02X.%X", pci->domain & 0xFFFF, pci->bus & 0xFF, pci->device & 0xFF,
		function & 0xF);
	pci->pciDeviceId = 0x233010DE;
	pci->pciSubSystemId = 0x16C110DE;
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetHandleByPciBusId_v2(const char *bus_id, nvmlDevice_t *device)
{
	CALL;
	NEED(bus_id && device);
	unsigned int domain = 0, bus, slot;
	if (sscanf(bus_id, "%x:%x:%x", &domain, &bus, &slot) != 3) {
		domain = 0;
		if (sscanf(bus_id, "%x:%x", &bus, &slot) != 2) return NVML_ERROR_INVALID_ARGUMENT;
	}
	for (int gpu = 0; gpu < gpus(&c); gpu++) {
		nvmlPciInfo_t pci;
		snprintf(c.object, sizeof c.object, "gpu%d", gpu);
		TRY(pci_of(&c, c.object, &pci));
		if (pci.domain != domain || pci.bus != bus || pci.device != slot) continue;
		TRY(aim(&c, gpu));
		*device = handle(&c);
		return NVML_SUCCESS;
	}
	return NVML_ERROR_NOT_FOUND;
}

// What a device is.

nvmlReturn_t nvmlDeviceGetIndex(nvmlDevice_t device, unsigned int *index)
{
	ANY(device, index);
	if (c.mig) return small(&c, "index", index);
	*index = (unsigned int)c.gpu;
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t device, char *uuid, unsigned int length)
{
	ANY(device, uuid);
	return string(&c, c.object, "uuid", uuid, length);
}

nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t device, char *name, unsigned int length)
{
	ANY(device, name);
	return string(&c, c.object, "name", name, length);
}

nvmlReturn_t nvmlDeviceGetMinorNumber(nvmlDevice_t device, unsigned int *minor)
{
	WHOLE(device, minor);
	return small(&c, "minor", minor);
}

nvmlReturn_t nvmlDeviceGetPciInfo_v3(nvmlDevice_t device, nvmlPciInfo_t *pci)
{
	WHOLE(device, pci);
	return pci_of(&c, c.object, pci);
}

nvmlReturn_t nvmlDeviceGetPersistenceMode(nvmlDevice_t device, nvmlEnableState_t *mode)
{
	WHOLE(device, mode);
	return small(&c, "persistence", mode);
}
