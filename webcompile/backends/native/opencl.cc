// OpenCL, through the loader that the system has (libOpenCL).
#include "opencl_api.h"
#include "plugin.h"

namespace webcompile {
namespace {

std::unique_ptr<OpenCL> cl;  // set by open_library, once

struct Found {
  cl_platform_id platform;
  cl_device_id device;
};
std::vector<Found> found;  // in the order of Driver::list

std::string text(cl_device_id device, cl_uint what) {
  size_t nbytes = 0;
  cl->GetDeviceInfo(device, what, 0, nullptr, &nbytes);
  std::string value(nbytes, '\0');
  cl->GetDeviceInfo(device, what, nbytes, &value[0], nullptr);
  return value.c_str();
}

template <class Number>
int64_t number(cl_device_id device, cl_uint what) {
  Number value = 0;
  cl->GetDeviceInfo(device, what, sizeof value, &value, nullptr);
  return int64_t(value);
}

Properties describe(cl_device_id device, bool is_software) {
  Properties made{text(device, CL_DEVICE_NAME), text(device, CL_DRIVER_VERSION), text(device, CL_DEVICE_VERSION), is_software, {}, {}};
  if (text(device, CL_DEVICE_EXTENSIONS).find("cl_khr_fp16") != std::string::npos) made.features.push_back("cl_khr_fp16");
  // Small register files and caches, whatever else they report.
  std::string vendor = text(device, CL_DEVICE_VENDOR);
  for (const char* mobile : {"QUALCOMM", "ARM", "Imagination"})
    if (!is_software && vendor.compare(0, strlen(mobile), mobile) == 0) made.features.push_back("mobile");
  made.limits = {{"max_workgroup_threads", number<size_t>(device, CL_DEVICE_MAX_WORK_GROUP_SIZE)},
                 {"max_shared_bytes", number<cl_ulong>(device, CL_DEVICE_LOCAL_MEM_SIZE)},
                 {"max_buffer_bytes", number<cl_ulong>(device, CL_DEVICE_MAX_MEM_ALLOC_SIZE)},
                 {"memory_bytes", number<cl_ulong>(device, CL_DEVICE_GLOBAL_MEM_SIZE)},
                 {"compute_units", number<cl_uint>(device, CL_DEVICE_MAX_COMPUTE_UNITS)}};
  return made;
}

class Driver {
 public:
  static constexpr const char* kKind = "opencl";
  using Memory = cl_mem;
  struct Pipeline {
    cl_program program;
    cl_kernel kernel;
  };

  std::string lost;
  std::map<std::string, int64_t> counters{{"dispatches", 0}};

  static void open_library(const std::string& path) {
    if (!cl) cl = std::make_unique<OpenCL>(SharedLibrary(path));
  }

  /** The kernels and their sources, which stand in one text under headings. */
  static std::pair<std::map<std::string, Kernel>, std::map<std::string, std::string>> parse(Reader& reader) {
    if (reader.text() != "cl") fail("artifact_invalid", "the library's kernels are not OpenCL C");
    auto kernels = reader.kernels();
    static const std::string heading = "// Function: ";
    std::string code = reader.text();
    std::map<std::string, std::string> sources;
    for (size_t at = code.find(heading); at != std::string::npos;) {
      size_t name = at + heading.size(), end = code.find('\n', name), next = code.find(heading, end);
      sources[code.substr(name, end - name)] = code.substr(end, next == std::string::npos ? next : next - end);
      at = next;
    }
    return {kernels, sources};
  }

  static std::vector<Properties> list() {
    if (!cl) fail("driver_missing", "the OpenCL loader was not opened");
    cl_uint count = 0;
    if (cl->GetPlatformIDs(0, nullptr, &count) != CL_SUCCESS) return {};  // the loader's word for "none"
    std::vector<cl_platform_id> platforms(count);
    cl->GetPlatformIDs(count, platforms.data(), nullptr);
    std::vector<Properties> all;
    for (cl_bitfield type : {CL_DEVICE_TYPE_GPU, CL_DEVICE_TYPE_ACCELERATOR, CL_DEVICE_TYPE_CPU}) {
      for (cl_platform_id platform : platforms) {
        if (cl->GetDeviceIDs(platform, type, 0, nullptr, &count) != CL_SUCCESS) continue;
        std::vector<cl_device_id> devices(count);
        cl->GetDeviceIDs(platform, type, count, devices.data(), nullptr);
        for (cl_device_id device : devices) {
          found.push_back({platform, device});
          all.push_back(describe(device, type == CL_DEVICE_TYPE_CPU));
        }
      }
    }
    return all;
  }

  explicit Driver(int index) : device_(found[index].device) {
    const intptr_t properties[] = {intptr_t(CL_CONTEXT_PLATFORM), intptr_t(found[index].platform), 0};
    cl_int status;
    context_ = cl->CreateContext(properties, 1, &device_, nullptr, nullptr, &status);
    check(status, "open the device");
    queue_ = cl->CreateCommandQueue(context_, device_, 0, &status);
    check(status, "open a queue");
    max_buffer_bytes_ = size_t(number<cl_ulong>(device_, CL_DEVICE_MAX_MEM_ALLOC_SIZE));
  }

  ~Driver() {
    cl->ReleaseCommandQueue(queue_);
    cl->ReleaseContext(context_);
  }

  Memory create(size_t nbytes) {
    // Some drivers take any size and fail in the first kernel.
    if (nbytes > max_buffer_bytes_) {
      fail("out_of_memory", "a buffer of " + std::to_string(nbytes) + " bytes is needed; this device allows " +
                                std::to_string(max_buffer_bytes_));
    }
    cl_int status;
    cl_mem memory = cl->CreateBuffer(context_, CL_MEM_READ_WRITE, nbytes, nullptr, &status);
    check(status, "make a buffer of " + std::to_string(nbytes) + " bytes");
    return memory;
  }

  void release(Memory& memory) { cl->ReleaseMemObject(memory); }  // the queue keeps what it still needs

  void write(Memory& target, size_t offset, const char* source, size_t nbytes) {
    check(cl->EnqueueWriteBuffer(queue_, target, true, offset, nbytes, source, 0, nullptr, nullptr), "write a buffer");
  }

  void read(Memory& source, size_t offset, char* target, size_t nbytes) {
    check(cl->EnqueueReadBuffer(queue_, source, true, offset, nbytes, target, 0, nullptr, nullptr), "read a buffer");
  }

  void copy(Memory& from, size_t from_offset, Memory& to, size_t to_offset, size_t nbytes) {
    check(cl->EnqueueCopyBuffer(queue_, from, to, from_offset, to_offset, nbytes, 0, nullptr, nullptr), "copy a buffer");
  }

  Pipeline compile(const Kernel& kernel, const std::string& source) {
    Pipeline made{};
    const char* code = source.c_str();
    size_t nbytes = source.size();
    cl_int status;
    made.program = cl->CreateProgramWithSource(context_, 1, &code, &nbytes, &status);
    check(status, "take the source of " + kernel.name);
    status = cl->BuildProgram(made.program, 1, &device_, "", nullptr, nullptr);
    if (status != CL_SUCCESS) {
      std::string log = build_log(made.program);
      cl->ReleaseProgram(made.program);
      check(status, "compile " + kernel.name + ": " + log);
    }
    made.kernel = cl->CreateKernel(made.program, kernel.name.c_str(), &status);
    if (status != CL_SUCCESS) cl->ReleaseProgram(made.program);
    check(status, "find kernel " + kernel.name);
    return made;
  }

  void release(Pipeline& pipeline) {
    cl->ReleaseKernel(pipeline.kernel);
    cl->ReleaseProgram(pipeline.program);
  }

  void launch(Pipeline& pipeline, const Call<Memory>& call) {
    cl_uint index = 0;
    for (const auto& argument : call.arguments) {
      const void* value = argument.memory ? static_cast<const void*>(argument.memory) : &argument.bits;
      check(cl->SetKernelArg(pipeline.kernel, index++, argument.nbytes, value), "set an argument");
    }
    size_t total[3], block[3];
    for (int i = 0; i < 3; ++i) total[i] = size_t(call.grid[i]) * (block[i] = call.block[i]);
    check(cl->EnqueueNDRangeKernel(queue_, pipeline.kernel, 3, nullptr, total, block, 0, nullptr, nullptr), "launch a kernel");
    ++counters["dispatches"];
  }

  void sync() { check(cl->Finish(queue_), "wait for the device"); }

  void lose() { lost = "the OpenCL device was given up"; }

 private:
  void check(cl_int status, const std::string& what) {
    if (status == CL_SUCCESS) return;
    std::string message = "OpenCL could not " + what + " (error " + std::to_string(status) + ")";
    switch (status) {
      case CL_MEM_OBJECT_ALLOCATION_FAILURE:
      case CL_OUT_OF_HOST_MEMORY:
      case CL_INVALID_BUFFER_SIZE:
        fail("out_of_memory", message);
      case CL_OUT_OF_RESOURCES:  // what several drivers say of a device that crashed or was reset
      case CL_DEVICE_NOT_AVAILABLE:
        lost = message;
        fail("device_lost", message);
      default:
        fail("internal", message);
    }
  }

  std::string build_log(cl_program program) {
    size_t nbytes = 0;
    cl->GetProgramBuildInfo(program, device_, CL_PROGRAM_BUILD_LOG, 0, nullptr, &nbytes);
    std::string log(nbytes, '\0');
    cl->GetProgramBuildInfo(program, device_, CL_PROGRAM_BUILD_LOG, nbytes, &log[0], nullptr);
    return log;
  }

  cl_device_id device_;
  cl_context context_ = nullptr;
  cl_command_queue queue_ = nullptr;
  size_t max_buffer_bytes_ = 0;
};

}  // namespace

TVM_FFI_STATIC_INIT_BLOCK() { register_plugin<Driver>(); }

}  // namespace webcompile
