// A libcuda.so.1 for the dry run: it computes on the processor and asks a test, which stands in for the driver, for all else. The
// environment variable FAKE_CUDA names the test's socket. Each request is a line, and so is its answer:
//
//	gpus               the UUID and the device file of each GPU and MIG device, all separated by spaces
//	use UUID           a context is made there
//	allocate BYTES     "ok", or "full"
//	release BYTES
//	fault              a kernel has written where there is no memory
//
// As with the real one, a GPU whose device file cannot be opened is not seen, and what a process has ends with it.
#include "driver.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { DEVICES = 16, SMALL = 64 << 20 };

static struct device {
	char uuid[64];
} devices[DEVICES];
static int found;
static int test = -1;
static FILE *answers;
static CUresult broken; // what the context has come to
static struct {
	CUdeviceptr at;
	size_t bytes;
} taken[1024];

// ask sends a line, and returns the answer.
static const char *ask(const char *verb, const char *word)
{
	static char answer[8192];
	if (dprintf(test, "%s %s\n", verb, word) < 0 || !fgets(answer, sizeof answer, answers)) _exit(99);
	answer[strcspn(answer, "\n")] = 0;
	return answer;
}

static int usable(const char *file)
{
	int fd = open(file, O_RDWR | O_CLOEXEC);
	if (fd >= 0) close(fd);
	return fd >= 0 || errno == ENXIO; // a device of which there is only the file
}

CUresult cuInit(unsigned flags)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	const char *path = getenv("FAKE_CUDA"), *visible = getenv("CUDA_VISIBLE_DEVICES");
	if (flags || !path || strlen(path) >= sizeof address.sun_path) return CUDA_ERROR_INVALID_VALUE;
	strcpy(address.sun_path, path);
	test = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (connect(test, (struct sockaddr *)&address, sizeof address) || !(answers = fdopen(test, "r"))) return CUDA_ERROR_NO_DEVICE;
	char *rest = NULL, *list = strdup(ask("gpus", ""));
	for (char *uuid = strtok_r(list, " ", &rest); uuid && found < DEVICES; uuid = strtok_r(NULL, " ", &rest)) {
		char *file = strtok_r(NULL, " ", &rest);
		if (file && usable(file) && (!visible || strstr(visible, uuid))) snprintf(devices[found++].uuid, sizeof devices->uuid, "%s", uuid);
	}
	free(list);
	return found ? CUDA_SUCCESS : CUDA_ERROR_NO_DEVICE;
}

CUresult cuDriverGetVersion(int *version)
{
	*version = 13000;
	return CUDA_SUCCESS;
}

CUresult cuGetErrorName(CUresult error, const char **name)
{
	switch (error) {
	case CUDA_SUCCESS: *name = "CUDA_SUCCESS"; break;
	case CUDA_ERROR_INVALID_VALUE: *name = "CUDA_ERROR_INVALID_VALUE"; break;
	case CUDA_ERROR_OUT_OF_MEMORY: *name = "CUDA_ERROR_OUT_OF_MEMORY"; break;
	case CUDA_ERROR_NO_DEVICE: *name = "CUDA_ERROR_NO_DEVICE"; break;
	case CUDA_ERROR_NOT_FOUND: *name = "CUDA_ERROR_NOT_FOUND"; break;
	case CUDA_ERROR_ILLEGAL_ADDRESS: *name = "CUDA_ERROR_ILLEGAL_ADDRESS"; break;
	default: *name = NULL; return CUDA_ERROR_INVALID_VALUE;
	}
	return CUDA_SUCCESS;
}

CUresult cuDeviceGetCount(int *count)
{
	*count = found;
	return CUDA_SUCCESS;
}

CUresult cuDeviceGet(CUdevice *device, int ordinal)
{
	*device = ordinal;
	return CUDA_SUCCESS;
}

CUresult cuDeviceGetName(char *name, int length, CUdevice device)
{
	snprintf(name, (size_t)length, "fake %s", devices[device].uuid);
	return CUDA_SUCCESS;
}

// The older name: whoever calls this library has to look for it.
CUresult cuDeviceGetUuid(CUuuid *uuid, CUdevice device)
{
	int at = 0;
	for (const char *c = devices[device].uuid + strlen("GPU-"); *c && at < 16; c++) {
		unsigned byte;
		if (*c == '-') continue;
		if (sscanf(c, "%2x", &byte) != 1) break;
		uuid->bytes[at++] = (char)byte;
		c++;
	}
	return CUDA_SUCCESS;
}

CUresult cuMemAlloc_v2(CUdeviceptr *pointer, size_t bytes)
{
	static CUdeviceptr next = 1ULL << 48;
	char number[32];
	if (broken) return broken;
	snprintf(number, sizeof number, "%zu", bytes);
	if (strcmp(ask("allocate", number), "ok") != 0) return CUDA_ERROR_OUT_OF_MEMORY;
	*pointer = bytes <= SMALL ? (CUdeviceptr)(uintptr_t)calloc(1, bytes) : (next += bytes); // nobody looks into what is large
	for (size_t i = 0; i < sizeof taken / sizeof *taken; i++) {
		if (taken[i].bytes) continue;
		taken[i].at = *pointer;
		taken[i].bytes = bytes;
		break;
	}
	return CUDA_SUCCESS;
}

CUresult cuMemFree_v2(CUdeviceptr pointer)
{
	char number[32];
	for (size_t i = 0; i < sizeof taken / sizeof *taken; i++) {
		if (!taken[i].bytes || taken[i].at != pointer) continue;
		snprintf(number, sizeof number, "%zu", taken[i].bytes);
		ask("release", number);
		if (taken[i].bytes <= SMALL) free((void *)(uintptr_t)pointer);
		taken[i].bytes = 0;
		return CUDA_SUCCESS;
	}
	return CUDA_ERROR_INVALID_VALUE;
}

CUresult cuCtxCreate_v2(CUcontext *context, unsigned flags, CUdevice device)
{
	CUdeviceptr own;
	(void)flags;
	*context = NULL;
	ask("use", devices[device].uuid);
	return cuMemAlloc_v2(&own, 500 << 20); // what a context takes
}

CUresult cuCtxSynchronize(void) { return broken; }

CUresult cuModuleLoadDataEx(CUmodule *module, const void *image, unsigned count, CUjit_option *options, void **values)
{
	(void)count, (void)options, (void)values;
	*module = (CUmodule)(uintptr_t)1;
	return strstr(image, ".entry work(") && strstr(image, ".entry fault(") ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name)
{
	(void)module;
	*function = (CUfunction)(uintptr_t)name[0];
	return strcmp(name, "work") && strcmp(name, "fault") ? CUDA_ERROR_NOT_FOUND : CUDA_SUCCESS;
}

CUresult cuMemcpyHtoD_v2(CUdeviceptr to, const void *from, size_t bytes)
{
	memcpy((void *)(uintptr_t)to, from, bytes);
	return broken;
}

CUresult cuMemcpyDtoH_v2(void *to, CUdeviceptr from, size_t bytes)
{
	memcpy(to, (void *)(uintptr_t)from, bytes);
	return broken;
}

CUresult cuLaunchKernel(CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y,
	unsigned block_z, unsigned shared_bytes, CUstream stream, void **parameters, void **extra)
{
	if (grid_y != 1 || grid_z != 1 || block_y != 1 || block_z != 1 || shared_bytes || stream || extra) return CUDA_ERROR_INVALID_VALUE;
	if (broken) return broken;
	if (function == (CUfunction)(uintptr_t)'f') {
		ask("fault", "");
		broken = CUDA_ERROR_ILLEGAL_ADDRESS;
		return CUDA_SUCCESS;
	}
	uint32_t *words = *(uint32_t **)parameters[0], count = *(uint32_t *)parameters[1], rounds = *(uint32_t *)parameters[2];
	if ((uint64_t)count * rounds > 1 << 30) { // for the GPU's sake alone
		usleep(20000);
		return CUDA_SUCCESS;
	}
	for (uint32_t i = 0; i < count && i < grid_x * block_x; i++) {
		for (uint32_t round = 0; round < rounds; round++) words[i] = words[i] * 1664525 + 1013904223;
	}
	return CUDA_SUCCESS;
}
