// What every call does before it answers: it looks for a fault, checks that the library is initialised, reads the state, and finds out
// which device is meant. Nothing is kept between calls but a count and the event sets, so any thread may call anything at any time.

#define _GNU_SOURCE
#define NVML_NO_UNVERSIONED_FUNC_DEFS 1
#include "nvml.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#pragma GCC visibility push(hidden)

enum { GPUS = 16, INSTANCES = 16, COMPUTES = 8, NOBODY = 0xFFFFFFFF };

extern atomic_uint initialised; // how often more than it was shut down

// What a call knows. The text is the state, with a newline before its first line; object begins the lines of the device.
struct call {
	char *text;
	int gpu;
	bool mig;
	unsigned int gi, ci;
	char object[32];
};

// contents returns a file beside the library as a string, with a newline before its first line, or NULL.
char *contents(const char *name);

// fault does what the file "faults" says of a function.
nvmlReturn_t fault(const char *function);

// enter begins a call, leave ends it.
nvmlReturn_t enter(struct call *c, const char *function);
void leave(struct call *c);

// aim makes a call about a GPU, aim_mig about one of its MIG devices, aim_handle about the one or the other.
nvmlReturn_t aim(struct call *c, int gpu);
nvmlReturn_t aim_mig(struct call *c, unsigned int gi, unsigned int ci);
nvmlReturn_t aim_handle(struct call *c, nvmlDevice_t device);
nvmlDevice_t handle(const struct call *c);

// find returns what follows an object and a key on their line, or NULL.
const char *find(const struct call *c, const char *object, const char *key);

// What the state does not mention is not supported.
nvmlReturn_t number(const struct call *c, const char *key, unsigned long long *out);
nvmlReturn_t small(const struct call *c, const char *key, unsigned int *out);
nvmlReturn_t string(const struct call *c, const char *object, const char *key, char *out, unsigned int length);

nvmlReturn_t pci_of(const struct call *c, const char *object, nvmlPciInfo_t *pci);
int gpus(const struct call *c);
unsigned int migs(const struct call *c); // how many there may be
long long now(void);                     // in nanoseconds
void sleep_ms(long ms);

#pragma GCC visibility pop

#define TRY(expression)                                      \
	do {                                                 \
		nvmlReturn_t result_ = (expression);         \
		if (result_ != NVML_SUCCESS) return result_; \
	} while (0)

// How functions begin: CALL for those of the host, ANY for those of a device, WHOLE for those that no MIG device has. All that a
// function returns through must be there.
#define NEED(pointer) if (!(pointer)) return NVML_ERROR_INVALID_ARGUMENT
#define CALL                                                            \
	__attribute__((cleanup(leave))) struct call c = {.text = NULL}; \
	TRY(enter(&c, __func__))
#define ANY(device, out)             \
	CALL;                        \
	TRY(aim_handle(&c, device)); \
	NEED(out)
#define WHOLE(device, out) \
	ANY(device, out);  \
	if (c.mig) return NVML_ERROR_NOT_SUPPORTED
