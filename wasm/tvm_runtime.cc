// TVM's runtime as one compilation unit: the wheel's own files, only those that a compiled model needs. Left out are
// RPC, TVM's paged KV cache, sorting, sampling, JSON, files, threads and profiling. What the files expect of their
// platform (logging, backtraces, parallel loops, files) follows below, in its smallest form.
#include <tvm/ffi/any.h>
#include <tvm/ffi/reflection/registry.h>
#include <tvm/runtime/logging.h>

#include "ffi/container.cc"
#include "ffi/custom_allocator.cc"
#include "ffi/dtype.cc"
#include "ffi/error.cc"
#include "ffi/extra/env_context.cc"
#include "ffi/extra/library_module.cc"
#include "ffi/extra/library_module_system_lib.cc"
#include "ffi/extra/module.cc"
#include "ffi/function.cc"
#include "ffi/init_once.cc"
#include "ffi/object.cc"
#include "ffi/tensor.cc"
#include "runtime/cpu_device_api.cc"
#include "runtime/device_api.cc"
#include "runtime/memory/memory_manager.cc"
#include "runtime/tensor.cc"
#include "runtime/vm/builtin.cc"
#include "runtime/vm/bytecode.cc"
#include "runtime/vm/executable.cc"
#include "runtime/vm/vm.cc"
#include "runtime/workspace_pool.cc"

#include <cstdio>

namespace tvm {
namespace runtime {
namespace detail {

[[noreturn]] void LogFatalImpl(const std::string&, int, const std::string& message) {
  TVM_FFI_THROW(InternalError) << message;
}

void LogMessageImpl(const std::string&, int, int, const std::string& message) {
  std::fprintf(stderr, "%s\n", message.c_str());
}

}  // namespace detail

void SaveBinaryToFile(const std::string& file_name, const std::string&) {
  TVM_FFI_THROW(NotImplementedError) << "there are no files here: " << file_name;
}

void LoadBinaryFromFile(const std::string& file_name, std::string*) {
  TVM_FFI_THROW(NotImplementedError) << "there are no files here: " << file_name;
}

}  // namespace runtime
}  // namespace tvm

// A page's worker shows "Kind: message"; source lines of this runtime would mean nothing to it.
const TVMFFIByteArray* TVMFFIBacktrace(const char*, int, const char*, int) {
  static const TVMFFIByteArray nothing{"", 0};
  return &nothing;
}

int TVMFFIEnvCheckSignals() { return 0; }

// One thread: a parallel loop is one task that does it all.
int TVMBackendParallelLaunch(FTVMParallelLambda body, void* context, int) {
  TVMParallelGroupEnv group{nullptr, 1};
  return body(0, &group, context);
}

int TVMBackendParallelBarrier(int, TVMParallelGroupEnv*) { return 0; }

// emscripten's allocator reports growth to JavaScript, which here looks at `memory.buffer` afresh instead.
extern "C" void emscripten_notify_memory_growth(size_t) {}
