// A program as tasks with GPUs are, which does one of the things that may happen to them. It needs NVIDIA's driver and nothing else: it
// finds the driver API's library when it runs, and the driver compiles its kernels (PTX).
//
//	cuda-task sum                 computes on the GPU and on the processor, and compares
//	cuda-task hold BYTES SECONDS  takes that much of the GPU's memory, keeps the GPU busy for that long, then does what sum does
//	cuda-task too-much            takes memory until there is none left
//	cuda-task fault               has a kernel write where there is no memory
//	cuda-task linger BYTES        leaves a process in a session of its own that keeps that much of the GPU's memory
//	cuda-task none                says whether it sees a GPU
//
// What it finds goes to standard output, a word and what is said of it on each line: "devices 1", "uuid 0 1234...", "sum 42". Errors go to
// standard error, in one sentence with the driver's name for the error. It exits with
//
//	0  all went well (none: there is no GPU to be seen)
//	1  the GPU's memory did not suffice
//	2  it was called in the wrong way
//	3  a kernel wrote where there is no memory
//	4  the driver reported another error
//	5  the GPU computed something else than the processor
//	6  the driver's library is missing, or lacks a function
//	7  none: there is a GPU to be seen
#include "driver.h"

#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { MEMORY = 1, USAGE, ILLEGAL, ERROR, WRONG, LIBRARY, SEEN };

#define DECLARE(name, symbol, older, parameters) static CUresult(*name) parameters;
DRIVER_FUNCTIONS(DECLARE)

// The kernels. "work" repeats x = 1664525 x + 1013904223 on each of a number of words, "fault" writes a word to an address. Version 6.0 is
// that of CUDA 9; every later GPU takes what was written for sm_50.
static const char kernels[] =
	".version 6.0\n"
	".target sm_50\n"
	".address_size 64\n"
	".visible .entry work(.param .u64 work_words, .param .u32 work_count, .param .u32 work_rounds)\n"
	"{\n"
	"	.reg .pred %p<3>;\n"
	"	.reg .b32 %r<8>;\n"
	"	.reg .b64 %rd<4>;\n"
	"	ld.param.u64 %rd1, [work_words];\n"
	"	ld.param.u32 %r1, [work_count];\n"
	"	ld.param.u32 %r2, [work_rounds];\n"
	"	mov.u32 %r3, %ctaid.x;\n"
	"	mov.u32 %r4, %ntid.x;\n"
	"	mov.u32 %r5, %tid.x;\n"
	"	mad.lo.u32 %r3, %r3, %r4, %r5;\n"
	"	setp.ge.u32 %p1, %r3, %r1;\n"
	"	@%p1 bra END;\n"
	"	cvta.to.global.u64 %rd2, %rd1;\n"
	"	mul.wide.u32 %rd3, %r3, 4;\n"
	"	add.u64 %rd2, %rd2, %rd3;\n"
	"	ld.global.u32 %r6, [%rd2];\n"
	"	mov.u32 %r7, 0;\n"
	"NEXT:\n"
	"	setp.ge.u32 %p2, %r7, %r2;\n"
	"	@%p2 bra DONE;\n"
	"	mad.lo.u32 %r6, %r6, 1664525, 1013904223;\n"
	"	add.u32 %r7, %r7, 1;\n"
	"	bra NEXT;\n"
	"DONE:\n"
	"	st.global.u32 [%rd2], %r6;\n"
	"END:\n"
	"	ret;\n"
	"}\n"
	".visible .entry fault(.param .u64 fault_address)\n"
	"{\n"
	"	.reg .b32 %r<2>;\n"
	"	.reg .b64 %rd<2>;\n"
	"	ld.param.u64 %rd1, [fault_address];\n"
	"	mov.u32 %r1, 42;\n"
	"	st.global.u32 [%rd1], %r1;\n"
	"	ret;\n"
	"}\n";

static const CUdeviceptr nowhere = 16; // the first page is never anybody's
static const size_t chunk = (size_t)1 << 30;
static const unsigned threads = 256; // of a block

__attribute__((format(printf, 2, 3), noreturn)) static void end(int code, const char *format, ...)
{
	va_list list;
	fflush(stdout);
	fputs("cuda-task: ", stderr);
	va_start(list, format);
	vfprintf(stderr, format, list);
	va_end(list);
	fputc('\n', stderr);
	// No handler of the driver's, which a context with an error may keep for long: the kernel frees what is ours.
	_exit(code);
}

static const char *named(CUresult r)
{
	static char number[32];
	const char *name = NULL;
	if (error_name(r, &name) == CUDA_SUCCESS && name) return name;
	snprintf(number, sizeof number, "CUDA error %d", r);
	return number;
}

// must ends the program where a call has failed, saying what could not be done.
static void must(CUresult r, const char *what)
{
	if (r == CUDA_SUCCESS) return;
	end(r == CUDA_ERROR_OUT_OF_MEMORY ? MEMORY : r == CUDA_ERROR_ILLEGAL_ADDRESS ? ILLEGAL : ERROR, "cannot %s: %s", what, named(r));
}

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void *find(void *library, const char *symbol, const char *older)
{
	void *f = dlsym(library, symbol);
	if (!f && older) f = dlsym(library, older);
	if (!f) end(LIBRARY, "cannot use libcuda.so.1: it lacks %s", symbol);
	return f;
}

static void load_library(void)
{
	void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
	if (!library) end(LIBRARY, "cannot find the CUDA driver's library, which NVIDIA's driver brings: %s", dlerror());
#define FIND(name, symbol, older, parameters) *(void **)&name = find(library, symbol, older);
	DRIVER_FUNCTIONS(FIND)
}

// begin starts CUDA and says which GPUs it sees. The first of them gets a context.
static void begin(void)
{
	int count = 0, version = 0;
	double began = now();
	load_library();
	must(init(0), "start CUDA");
	must(device_count(&count), "count the GPUs");
	if (driver_version(&version) == CUDA_SUCCESS) printf("cuda %d.%d\n", version / 1000, version % 1000 / 10);
	printf("devices %d\n", count);
	for (int i = 0; i < count; i++) {
		CUdevice d;
		CUuuid id;
		char model[256] = "";
		must(device(&d, i), "find a GPU");
		must(device_uuid(&id, d), "read a GPU's UUID");
		must(device_name(model, sizeof model, d), "read a GPU's name");
		printf("uuid %d ", i);
		for (int at = 0; at < 16; at++) printf("%s%02x", at == 4 || at == 6 || at == 8 || at == 10 ? "-" : "", (unsigned char)id.bytes[at]);
		printf("\nname %d %s\n", i, model);
	}
	if (count == 0) must(CUDA_ERROR_NO_DEVICE, "use a GPU");
	CUdevice first;
	CUcontext current; // becomes the thread's
	must(device(&first, 0), "find a GPU");
	must(context(&current, 0, first), "make a context");
	printf("begun_seconds %.3f\n", now() - began);
	fflush(stdout);
}

static CUfunction kernel(const char *name)
{
	static CUmodule module;
	static char log[4096];
	CUjit_option options[] = {CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES};
	void *values[] = {log, (void *)(uintptr_t)sizeof log};
	if (!module) {
		CUresult r = load(&module, kernels, 2, options, values);
		if (r != CUDA_SUCCESS && log[0]) fprintf(stderr, "%s\n", log);
		must(r, "compile the kernels");
	}
	CUfunction f;
	must(function(&f, module, name), "find a kernel");
	return f;
}

static void work(CUdeviceptr words, uint32_t count, uint32_t rounds)
{
	void *parameters[] = {&words, &count, &rounds};
	must(launch(kernel("work"), (count + threads - 1) / threads, 1, 1, threads, 1, 1, 0, NULL, parameters, NULL), "start a kernel");
	must(synchronize(), "wait for a kernel");
}

static CUdeviceptr take(size_t bytes)
{
	CUdeviceptr p;
	must(allocate(&p, bytes), "take memory of the GPU");
	return p;
}

// sum computes the same on both sides.
static void sum(void)
{
	enum { COUNT = 1 << 16, ROUNDS = 1000 };
	static uint32_t words[COUNT];
	uint64_t theirs = 0, ours = 0;
	for (uint32_t i = 0; i < COUNT; i++) words[i] = i;
	CUdeviceptr p = take(sizeof words);
	must(to_device(p, words, sizeof words), "copy to the GPU");
	work(p, COUNT, ROUNDS);
	must(to_host(words, p, sizeof words), "copy from the GPU");
	must(release(p), "give memory back");
	for (uint32_t i = 0; i < COUNT; i++) {
		uint32_t x = i;
		for (int round = 0; round < ROUNDS; round++) x = x * 1664525 + 1013904223;
		ours += x;
		theirs += words[i];
	}
	printf("sum %llu\nexpected %llu\n", (unsigned long long)theirs, (unsigned long long)ours);
	if (ours != theirs) end(WRONG, "the GPU computed %llu, the processor %llu", (unsigned long long)theirs, (unsigned long long)ours);
}

// hold keeps memory, and the GPU busy.
static void hold(size_t bytes, double seconds)
{
	CUdeviceptr p = take(bytes);
	size_t count = bytes / sizeof(uint32_t);
	long kernels_run = 0;
	double until = now() + seconds;
	printf("held_bytes %zu\n", bytes);
	fflush(stdout);
	for (; now() < until; kernels_run++) work(p, count < 1 << 20 ? (uint32_t)count : 1 << 20, 20000);
	printf("kernels %ld\n", kernels_run);
	sum();
	must(release(p), "give memory back");
}

// linger leaves a child with memory of the GPU behind. The driver cannot be used on both sides of a fork, so the child begins anew.
static void linger(size_t bytes)
{
	int ready[2];
	char byte;
	if (pipe(ready)) end(ERROR, "cannot make a pipe: %s", strerror(errno));
	pid_t child = fork();
	if (child < 0) end(ERROR, "cannot fork: %s", strerror(errno));
	if (child == 0) {
		close(ready[0]);
		setsid();
		signal(SIGHUP, SIG_IGN);
		signal(SIGTERM, SIG_IGN);
		begin();
		take(bytes);
		printf("held_bytes %zu\n", bytes);
		fflush(stdout);
		if (write(ready[1], "", 1) != 1) end(ERROR, "cannot tell the parent: %s", strerror(errno));
		for (;;) pause();
	}
	close(ready[1]);
	if (read(ready[0], &byte, 1) != 1) end(ERROR, "the child ended before it had memory");
	printf("child %d\n", (int)child);
}

// none says what a program sees that has no GPU: that is no error of its own.
static int none(void)
{
	int count = 0;
	load_library();
	CUresult r = init(0);
	if (r != CUDA_SUCCESS) {
		printf("init %s\n", named(r));
		return 0;
	}
	r = device_count(&count);
	printf("init CUDA_SUCCESS\ncount %s\ndevices %d\n", named(r), count);
	return count > 0 ? SEEN : 0;
}

static _Noreturn void usage(void) { end(USAGE, "use: cuda-task sum | hold BYTES SECONDS | too-much | fault | linger BYTES | none"); }

// number reads one that is above 0.
static double number(const char *text)
{
	char *rest;
	double n = strtod(text, &rest);
	if (rest == text || *rest || !(n > 0) || n > 1e15) usage();
	return n;
}

int main(int count, char **words)
{
	const char *mode = count > 1 ? words[1] : "";
	if (!strcmp(mode, "sum") && count == 2) {
		begin();
		sum();
	} else if (!strcmp(mode, "hold") && count == 4) {
		size_t bytes = (size_t)number(words[2]);
		double seconds = number(words[3]);
		begin();
		hold(bytes, seconds);
	} else if (!strcmp(mode, "too-much") && count == 2) {
		begin();
		for (size_t taken = chunk;; taken += chunk) {
			take(chunk); // which ends it
			printf("held_bytes %zu\n", taken);
		}
	} else if (!strcmp(mode, "fault") && count == 2) {
		CUdeviceptr address = nowhere;
		void *parameters[] = {&address};
		begin();
		must(launch(kernel("fault"), 1, 1, 1, 1, 1, 1, 0, NULL, parameters, NULL), "start a kernel");
		must(synchronize(), "wait for a kernel");
		end(WRONG, "a kernel wrote where there is no memory, and nothing happened");
	} else if (!strcmp(mode, "linger") && count == 3) {
		linger((size_t)number(words[2]));
	} else if (!strcmp(mode, "none") && count == 2) {
		return none();
	} else {
		usage();
	}
	return 0;
}
