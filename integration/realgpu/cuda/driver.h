// What is needed of the CUDA driver API, as NVIDIA's "CUDA Driver API" manual describes it, so that no toolkit is needed to build this.
#pragma once

#include <stddef.h>

typedef int CUresult; // an enum in C; 0 is success
typedef int CUdevice;
typedef struct CUctx_st *CUcontext;
typedef struct CUmod_st *CUmodule;
typedef struct CUfunc_st *CUfunction;
typedef struct CUstream_st *CUstream;
typedef unsigned long long CUdeviceptr; // since version 3.2 on 64-bit systems, where the functions that take one end in _v2
typedef int CUjit_option;               // an enum
typedef struct {
	char bytes[16];
} CUuuid;

enum {
	CUDA_SUCCESS = 0,
	CUDA_ERROR_INVALID_VALUE = 1,
	CUDA_ERROR_OUT_OF_MEMORY = 2,
	CUDA_ERROR_NO_DEVICE = 100,
	CUDA_ERROR_NOT_FOUND = 500,
	CUDA_ERROR_ILLEGAL_ADDRESS = 700,
	CU_JIT_ERROR_LOG_BUFFER = 5,
	CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES = 6,
};

// DRIVER_FUNCTIONS lists the functions: how we call it, the name in the library (the newest one with these parameters), an older name with
// the same parameters or NULL, and the parameters. The names without _v2 of functions that have both are those of 32-bit device pointers,
// and no substitute; that of cuDeviceGetUuid_v2 (11.4) differs only in what it says of MIG instances.
#define DRIVER_FUNCTIONS(F) \
	F(init, "cuInit", NULL, (unsigned flags)) \
	F(driver_version, "cuDriverGetVersion", NULL, (int *version)) \
	F(error_name, "cuGetErrorName", NULL, (CUresult error, const char **name)) \
	F(device_count, "cuDeviceGetCount", NULL, (int *count)) \
	F(device, "cuDeviceGet", NULL, (CUdevice * device, int ordinal)) \
	F(device_name, "cuDeviceGetName", NULL, (char *name, int length, CUdevice device)) \
	F(device_uuid, "cuDeviceGetUuid_v2", "cuDeviceGetUuid", (CUuuid * uuid, CUdevice device)) \
	F(context, "cuCtxCreate_v2", NULL, (CUcontext * context, unsigned flags, CUdevice device)) \
	F(synchronize, "cuCtxSynchronize", NULL, (void)) \
	F(load, "cuModuleLoadDataEx", NULL, (CUmodule * module, const void *image, unsigned count, CUjit_option *options, void **values)) \
	F(function, "cuModuleGetFunction", NULL, (CUfunction * function, CUmodule module, const char *name)) \
	F(allocate, "cuMemAlloc_v2", NULL, (CUdeviceptr * pointer, size_t bytes)) \
	F(release, "cuMemFree_v2", NULL, (CUdeviceptr pointer)) \
	F(to_device, "cuMemcpyHtoD_v2", NULL, (CUdeviceptr to, const void *from, size_t bytes)) \
	F(to_host, "cuMemcpyDtoH_v2", NULL, (void *to, CUdeviceptr from, size_t bytes)) \
	F(launch, "cuLaunchKernel", NULL, \
		(CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y, unsigned block_z, unsigned shared_bytes, CUstream stream, \
			void **parameters, void **extra))
