#include "state.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <unistd.h>

// A handle is a place in this table: the first of a row is the GPU, the others its MIG devices. Nothing is stored in it.
static char handles[GPUS][1 + INSTANCES * COMPUTES];

atomic_uint initialised;
static char directory[PATH_MAX];

__attribute__((constructor)) static void locate(void)
{
	Dl_info self;
	char path[PATH_MAX];
	if (!dladdr(handles, &self) || !realpath(self.dli_fname, path)) return;
	*strrchr(path, '/') = 0;
	memcpy(directory, path, sizeof directory);
}

long long now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

void sleep_ms(long ms)
{
	struct timespec t = {ms / 1000, ms % 1000 * 1000000};
	while (nanosleep(&t, &t) && errno == EINTR) {}
}

char *contents(const char *name)
{
	char path[PATH_MAX + 16];
	snprintf(path, sizeof path, "%s/%s", directory, name);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0) return NULL;
	size_t size = 1, room = 16384;
	char *text = malloc(room);
	for (ssize_t n; text; size += (size_t)n) {
		if (room - size < 2) {
			char *larger = realloc(text, room *= 2);
			if (!larger) free(text);
			if (!(text = larger)) break;
		}
		n = read(fd, text + size, room - size - 1);
		if (n <= 0) break;
	}
	close(fd);
	if (!text) return NULL;
	text[0] = '\n';
	text[size] = 0;
	return text;
}

nvmlReturn_t fault(const char *function)
{
	char *text = contents("faults");
	nvmlReturn_t result = NVML_SUCCESS;
	for (char *line = text; line && result == NVML_SUCCESS; line = strchr(line + 1, '\n')) {
		char kind[16], name[128];
		long number = 0;
		if (sscanf(line, "\n%15s %127s %ld", kind, name, &number) < 2) continue;
		if (strcmp(name, "*") && strcmp(name, function)) continue;
		if (!strcmp(kind, "crash")) abort();
		if (!strcmp(kind, "slow")) sleep_ms(number);
		if (!strcmp(kind, "fail")) result = (nvmlReturn_t)number;
		while (!strcmp(kind, "hang")) pause();
	}
	free(text);
	return result;
}

void leave(struct call *c) { free(c->text); }

nvmlReturn_t enter(struct call *c, const char *function)
{
	TRY(fault(function));
	if (!initialised) return NVML_ERROR_UNINITIALIZED;
	c->text = contents("state");
	return c->text ? NVML_SUCCESS : NVML_ERROR_UNKNOWN;
}

const char *find(const struct call *c, const char *object, const char *key)
{
	char line[96];
	snprintf(line, sizeof line, "\n%s %s ", object, key);
	const char *p = strstr(c->text, line);
	return p ? p + strlen(line) : NULL;
}

nvmlReturn_t number(const struct call *c, const char *key, unsigned long long *out)
{
	const char *p = find(c, c->object, key);
	if (p) *out = strtoull(p, NULL, 10);
	return p ? NVML_SUCCESS : NVML_ERROR_NOT_SUPPORTED;
}

nvmlReturn_t small(const struct call *c, const char *key, unsigned int *out)
{
	unsigned long long n;
	TRY(number(c, key, &n));
	*out = (unsigned int)n;
	return NVML_SUCCESS;
}

nvmlReturn_t string(const struct call *c, const char *object, const char *key, char *out, unsigned int length)
{
	const char *p = find(c, object, key);
	if (!out) return NVML_ERROR_INVALID_ARGUMENT;
	if (!p) return NVML_ERROR_NOT_SUPPORTED;
	size_t n = strcspn(p, "\n");
	if (n >= length) return NVML_ERROR_INSUFFICIENT_SIZE;
	memcpy(out, p, n);
	out[n] = 0;
	return NVML_SUCCESS;
}

int gpus(const struct call *c)
{
	const char *p = find(c, "host", "gpus");
	return p ? atoi(p) : 0;
}

nvmlReturn_t aim(struct call *c, int gpu)
{
	if (gpu < 0 || gpu >= gpus(c)) return NVML_ERROR_INVALID_ARGUMENT;
	c->gpu = gpu;
	c->mig = false;
	snprintf(c->object, sizeof c->object, "gpu%d", gpu);
	return find(c, c->object, "lost") ? NVML_ERROR_GPU_IS_LOST : NVML_SUCCESS;
}

nvmlReturn_t aim_mig(struct call *c, unsigned int gi, unsigned int ci)
{
	c->mig = true;
	c->gi = gi;
	c->ci = ci;
	snprintf(c->object, sizeof c->object, "mig%d/%u/%u", c->gpu, gi, ci);
	return find(c, c->object, "uuid") ? NVML_SUCCESS : NVML_ERROR_INVALID_ARGUMENT;
}

nvmlReturn_t aim_handle(struct call *c, nvmlDevice_t device)
{
	char *place = (char *)device.handle;
	if (place < handles[0] || place >= handles[GPUS]) return NVML_ERROR_INVALID_ARGUMENT;
	size_t at = (size_t)(place - handles[0]), in = at % sizeof handles[0];
	TRY(aim(c, (int)(at / sizeof handles[0])));
	return in ? aim_mig(c, (unsigned int)(in - 1) / COMPUTES, (unsigned int)(in - 1) % COMPUTES) : NVML_SUCCESS;
}

nvmlDevice_t handle(const struct call *c)
{
	return (nvmlDevice_t){(void *)&handles[c->gpu][c->mig ? 1 + c->gi * COMPUTES + c->ci : 0]};
}

unsigned int migs(const struct call *c)
{
	unsigned int mode = 0;
	return small(c, "mig-mode", &mode) == NVML_SUCCESS && mode ? 7 : 0;
}
