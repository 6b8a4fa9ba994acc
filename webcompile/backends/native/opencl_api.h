// The part of OpenCL 1.2 that opencl.cc calls (its names and numbers are the standard's), so that no headers are needed.
#pragma once
#include <cstddef>
#include <cstdint>

#include "shared_library.h"

#ifdef _WIN32
#define CL_CALL __stdcall
#else
#define CL_CALL
#endif

using cl_int = int32_t;
using cl_uint = uint32_t;
using cl_ulong = uint64_t;
using cl_bitfield = uint64_t;
using cl_platform_id = struct _cl_platform_id*;
using cl_device_id = struct _cl_device_id*;
using cl_context = struct _cl_context*;
using cl_command_queue = struct _cl_command_queue*;
using cl_mem = struct _cl_mem*;
using cl_program = struct _cl_program*;
using cl_kernel = struct _cl_kernel*;
using cl_event = struct _cl_event*;

enum : cl_int {
  CL_SUCCESS = 0,
  CL_DEVICE_NOT_AVAILABLE = -2,
  CL_MEM_OBJECT_ALLOCATION_FAILURE = -4,
  CL_OUT_OF_RESOURCES = -5,
  CL_OUT_OF_HOST_MEMORY = -6,
  CL_BUILD_PROGRAM_FAILURE = -11,
  CL_INVALID_BUFFER_SIZE = -61,
};
enum : cl_uint {
  CL_DEVICE_VENDOR_ID = 0x1001,
  CL_DEVICE_MAX_COMPUTE_UNITS = 0x1002,
  CL_DEVICE_MAX_WORK_GROUP_SIZE = 0x1004,
  CL_DEVICE_MAX_MEM_ALLOC_SIZE = 0x1010,
  CL_DEVICE_GLOBAL_MEM_SIZE = 0x101F,
  CL_DEVICE_LOCAL_MEM_SIZE = 0x1023,
  CL_DEVICE_NAME = 0x102B,
  CL_DEVICE_VENDOR = 0x102C,
  CL_DRIVER_VERSION = 0x102D,
  CL_DEVICE_VERSION = 0x102F,
  CL_DEVICE_EXTENSIONS = 0x1030,
  CL_CONTEXT_PLATFORM = 0x1084,
  CL_PROGRAM_BUILD_LOG = 0x1183,
};
enum : cl_bitfield {
  CL_DEVICE_TYPE_CPU = 1 << 1,
  CL_DEVICE_TYPE_GPU = 1 << 2,
  CL_DEVICE_TYPE_ACCELERATOR = 1 << 3,
  CL_MEM_READ_WRITE = 1 << 0,
};

namespace webcompile {

struct OpenCL {
  cl_int(CL_CALL* GetPlatformIDs)(cl_uint, cl_platform_id*, cl_uint*);
  cl_int(CL_CALL* GetDeviceIDs)(cl_platform_id, cl_bitfield, cl_uint, cl_device_id*, cl_uint*);
  cl_int(CL_CALL* GetDeviceInfo)(cl_device_id, cl_uint, size_t, void*, size_t*);
  cl_context(CL_CALL* CreateContext)(const intptr_t*, cl_uint, const cl_device_id*, void*, void*, cl_int*);
  cl_int(CL_CALL* ReleaseContext)(cl_context);
  cl_command_queue(CL_CALL* CreateCommandQueue)(cl_context, cl_device_id, cl_bitfield, cl_int*);
  cl_int(CL_CALL* ReleaseCommandQueue)(cl_command_queue);
  cl_mem(CL_CALL* CreateBuffer)(cl_context, cl_bitfield, size_t, void*, cl_int*);
  cl_int(CL_CALL* ReleaseMemObject)(cl_mem);
  cl_program(CL_CALL* CreateProgramWithSource)(cl_context, cl_uint, const char**, const size_t*, cl_int*);
  cl_int(CL_CALL* BuildProgram)(cl_program, cl_uint, const cl_device_id*, const char*, void*, void*);
  cl_int(CL_CALL* GetProgramBuildInfo)(cl_program, cl_device_id, cl_uint, size_t, void*, size_t*);
  cl_int(CL_CALL* ReleaseProgram)(cl_program);
  cl_kernel(CL_CALL* CreateKernel)(cl_program, const char*, cl_int*);
  cl_int(CL_CALL* ReleaseKernel)(cl_kernel);
  cl_int(CL_CALL* SetKernelArg)(cl_kernel, cl_uint, size_t, const void*);
  cl_int(CL_CALL* EnqueueNDRangeKernel)(cl_command_queue, cl_kernel, cl_uint, const size_t*, const size_t*, const size_t*, cl_uint,
                                        const cl_event*, cl_event*);
  cl_int(CL_CALL* EnqueueReadBuffer)(cl_command_queue, cl_mem, cl_uint, size_t, size_t, void*, cl_uint, const cl_event*, cl_event*);
  cl_int(CL_CALL* EnqueueWriteBuffer)(cl_command_queue, cl_mem, cl_uint, size_t, size_t, const void*, cl_uint, const cl_event*,
                                      cl_event*);
  cl_int(CL_CALL* EnqueueCopyBuffer)(cl_command_queue, cl_mem, cl_mem, size_t, size_t, size_t, cl_uint, const cl_event*, cl_event*);
  cl_int(CL_CALL* Finish)(cl_command_queue);

  explicit OpenCL(const SharedLibrary& library) {
#define FIND(name) library.find("cl" #name, &name)
    FIND(GetPlatformIDs), FIND(GetDeviceIDs), FIND(GetDeviceInfo), FIND(CreateContext), FIND(ReleaseContext);
    FIND(CreateCommandQueue), FIND(ReleaseCommandQueue), FIND(CreateBuffer), FIND(ReleaseMemObject);
    FIND(CreateProgramWithSource), FIND(BuildProgram), FIND(GetProgramBuildInfo), FIND(ReleaseProgram);
    FIND(CreateKernel), FIND(ReleaseKernel), FIND(SetKernelArg), FIND(EnqueueNDRangeKernel), FIND(EnqueueReadBuffer);
    FIND(EnqueueWriteBuffer), FIND(EnqueueCopyBuffer), FIND(Finish);
#undef FIND
  }
};

}  // namespace webcompile
