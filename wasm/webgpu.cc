// The WebGPU device of TVM's runtime. Memory and commands are the host's: every operation is one call of an imported
// wc_gpu_* function. A tensor's data pointer is a buffer id, never an address.
#include <tvm/ffi/cast.h>
#include <tvm/ffi/extra/module.h>
#include <tvm/ffi/function.h>
#include <tvm/ffi/reflection/registry.h>
#include <tvm/runtime/device_api.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <unordered_map>
#include <vector>

#include "contracts.h"
#include "runtime/metadata.h"
#include "runtime/workspace_pool.h"
#include "support/bytes_io.h"

namespace webcompile {

namespace ffi = tvm::ffi;
using tvm::runtime::DeviceAPI;
using tvm::runtime::FunctionInfo;

constexpr DLDeviceType kWebGPU = static_cast<DLDeviceType>(kDLWebGPU);

int BufferId(const void* data) { return static_cast<int>(reinterpret_cast<intptr_t>(data)); }

// WebGPU copies whole 32-bit words. Buffers are allocated in words, so rounding up stays inside the buffer.
size_t RoundToWord(size_t nbytes) { return (nbytes + 3) & ~size_t{3}; }

class WebGPUDevice final : public DeviceAPI {
 public:
  static WebGPUDevice* Global() {
    static auto* device = new WebGPUDevice();
    return device;
  }

  void SetDevice(DLDevice) final {}
  void GetAttr(DLDevice, tvm::runtime::DeviceAttrKind kind, ffi::Any* result) final {
    if (kind == tvm::runtime::kExist) *result = 1;
  }

  using DeviceAPI::AllocDataSpace;
  void* AllocDataSpace(DLDevice, size_t nbytes, size_t, DLDataType) final {
    // An empty tensor still needs a buffer to bind.
    const size_t words = RoundToWord(nbytes == 0 ? 4 : nbytes);
    const int buffer = wc_gpu_alloc(static_cast<int>(words));
    if (buffer == 0) {
      TVM_FFI_THROW(OutOfMemory) << "the GPU has no room for a buffer of " << words << " bytes";
    }
    return reinterpret_cast<void*>(static_cast<intptr_t>(buffer));
  }
  void FreeDataSpace(DLDevice, void* data) final { wc_gpu_free(BufferId(data)); }

  void* AllocWorkspace(DLDevice device, size_t nbytes, DLDataType) final {
    return workspaces_.AllocWorkspace(device, nbytes);
  }
  void FreeWorkspace(DLDevice device, void* data) final { workspaces_.FreeWorkspace(device, data); }

  // Work is ordered by the queue, and nothing here reads what it wrote: there is never anything to wait for.
  void StreamSync(DLDevice, TVMStreamHandle) final {}

 protected:
  using DeviceAPI::CopyDataFromTo;
  void CopyDataFromTo(const void* source, size_t source_offset, void* target, size_t target_offset, size_t nbytes,
                      DLDevice source_device, DLDevice target_device, DLDataType, TVMStreamHandle) final {
    if (nbytes == 0) return;
    if (target_device.device_type != kWebGPU) {
      TVM_FFI_THROW(RuntimeError) << "the model reads a GPU tensor on the CPU, which a wasm call cannot wait for";
    }
    if (target_offset % 4 != 0) {
      TVM_FFI_THROW(ValueError) << "copy to byte " << target_offset << " of a GPU buffer";
    }
    if (source_device.device_type == kWebGPU) {
      if (source_offset % 4 != 0) {
        TVM_FFI_THROW(ValueError) << "copy from byte " << source_offset << " of a GPU buffer";
      }
      wc_gpu_copy(BufferId(source), static_cast<int>(source_offset), BufferId(target), static_cast<int>(target_offset),
                  static_cast<int>(RoundToWord(nbytes)));
      return;
    }
    const char* bytes = static_cast<const char*>(source) + source_offset;
    if (nbytes % 4 == 0) {
      wc_gpu_write(BufferId(target), static_cast<int>(target_offset), bytes, static_cast<int>(nbytes));
    } else {
      std::string padded(bytes, nbytes);
      padded.resize(RoundToWord(nbytes));
      wc_gpu_write(BufferId(target), static_cast<int>(target_offset), padded.data(), static_cast<int>(padded.size()));
    }
  }

 private:
  WebGPUDevice() : workspaces_(kWebGPU, this) {}

  tvm::runtime::WorkspacePool workspaces_;
};

std::string JsonString(const std::string& text) {
  std::string json = "\"";
  for (char c : text) {
    if (c == '"' || c == '\\') json += '\\';
    json += c;
  }
  return json + '"';
}

std::string KernelInfoJson(const std::string& name, const FunctionInfo& info) {
  std::string json = "{\"name\":" + JsonString(name) + ",\"arg_types\":[";
  const char* comma = "";
  for (DLDataType type : info->arg_types) {
    json += comma + JsonString(ffi::DLDataTypeToString(type));
    comma = ",";
  }
  json += "],\"launch_param_tags\":[";
  comma = "";
  for (const ffi::String& tag : info->launch_param_tags) {
    json += comma + JsonString(tag);
    comma = ",";
  }
  return json + "]}";
}

// A kernel that JavaScript knows, and how a packed call of it splits into buffers, scalars and grid.
class Kernel {
 public:
  Kernel(const std::string& name, const FunctionInfo& info, const std::string& wgsl)
      : name_(name), arg_types_(info->arg_types.begin(), info->arg_types.end()) {
    for (const ffi::String& tag_string : info->launch_param_tags) {
      const std::string tag = tag_string;
      if (tag.rfind("blockIdx.", 0) == 0) {
        grid_axes_.push_back(tag.back() - 'x');
      } else if (tag.rfind("threadIdx.", 0) == 0) {
        grid_axes_.push_back(kWorkgroupSize);
      } else if (tag.rfind("paramWriteAccess:", 0) != 0) {  // access is a fact, not a launch parameter
        TVM_FFI_THROW(ValueError) << "kernel " << name << " has the launch parameter " << tag << ", unknown on WebGPU";
      }
    }
    id_ = wc_gpu_kernel(name.c_str(), wgsl.c_str(), KernelInfoJson(name, info).c_str());
    if (id_ < 0) TVM_FFI_THROW(RuntimeError) << "kernel " << name << " was refused";
  }

  void Launch(const TVMFFIAny* args, size_t count) const {
    const size_t num_args = arg_types_.size();
    if (count != num_args + grid_axes_.size()) {
      TVM_FFI_THROW(TypeError) << "kernel " << name_ << " takes " << num_args + grid_axes_.size()
                               << " arguments, got " << count;
    }
    std::vector<int> values(num_args);  // buffers from the front, scalars from `scalars` on
    size_t num_buffers = 0;
    for (const DLDataType& type : arg_types_) num_buffers += type.code == kDLOpaqueHandle;
    int* buffer = values.data();
    int* scalars = values.data() + num_buffers;
    int* scalar = scalars;
    for (size_t i = 0; i < num_args; ++i) {
      if (arg_types_[i].code == kDLOpaqueHandle) {
        if (args[i].type_index != ffi::TypeIndex::kTVMFFIOpaquePtr) {
          TVM_FFI_THROW(TypeError) << "argument " << i << " of kernel " << name_ << " is not a buffer";
        }
        *buffer++ = BufferId(args[i].v_ptr);
      } else {
        *scalar++ = ScalarBits(args[i], i);
      }
    }
    int grid[] = {1, 1, 1};
    for (size_t i = 0; i < grid_axes_.size(); ++i) {
      if (grid_axes_[i] == kWorkgroupSize) continue;
      const int64_t extent = args[num_args + i].v_int64;
      if (extent < 0 || extent > std::numeric_limits<int32_t>::max()) {
        TVM_FFI_THROW(ValueError) << "kernel " << name_ << " is launched with " << extent << " workgroups";
      }
      if (extent == 0) return;
      grid[grid_axes_[i]] = static_cast<int>(extent);
    }
    const int status = wc_gpu_launch(id_, values.data(), scalars, grid[0], grid[1], grid[2]);
    if (status < 0) TVM_FFI_THROW(RuntimeError) << "launch of kernel " << name_ << " failed";
  }

 private:
  static constexpr int kWorkgroupSize = -1;  // threadIdx: compiled into the shader

  int ScalarBits(const TVMFFIAny& arg, size_t index) const {
    const DLDataType& type = arg_types_[index];
    if (type.code == kDLFloat) {
      if (arg.type_index != ffi::TypeIndex::kTVMFFIFloat) {
        TVM_FFI_THROW(TypeError) << "argument " << index << " of kernel " << name_ << " is not a float";
      }
      const float value = static_cast<float>(arg.v_float64);
      if (std::isfinite(arg.v_float64) && !std::isfinite(value)) {
        TVM_FFI_THROW(ValueError) << "argument " << index << " of kernel " << name_ << " is " << arg.v_float64
                                  << ", too large for float32";
      }
      int bits;
      std::memcpy(&bits, &value, sizeof(bits));
      return bits;
    }
    if (arg.type_index != ffi::TypeIndex::kTVMFFIInt && arg.type_index != ffi::TypeIndex::kTVMFFIBool) {
      TVM_FFI_THROW(TypeError) << "argument " << index << " of kernel " << name_ << " is not an integer";
    }
    const bool fits = type.code == kDLUInt ? arg.v_int64 >= 0 && arg.v_int64 <= std::numeric_limits<uint32_t>::max()
                                           : arg.v_int64 >= std::numeric_limits<int32_t>::min() &&
                                                 arg.v_int64 <= std::numeric_limits<int32_t>::max();
    if (!fits) {
      TVM_FFI_THROW(ValueError) << "argument " << index << " of kernel " << name_ << " is " << arg.v_int64
                                << ", outside 32 bits";
    }
    return static_cast<int>(arg.v_int64);
  }

  std::string name_;
  std::vector<DLDataType> arg_types_;
  std::vector<int> grid_axes_;  // per launch parameter: 0..2 for x, y, z of the grid, or kWorkgroupSize
  int id_;
};

class WebGPUModule final : public ffi::ModuleObj {
 public:
  explicit WebGPUModule(const ffi::Bytes& bytes) {
    tvm::support::BytesInStream stream(bytes);
    ffi::Map<ffi::String, FunctionInfo> infos;
    std::unordered_map<std::string, std::string> shaders;
    if (!(stream.Read(&infos) && stream.Read(&shaders))) {
      TVM_FFI_THROW(ValueError) << "the model's shaders are truncated";
    }
    for (const auto& [name, info] : infos) {
      auto shader = shaders.find(name);
      if (shader == shaders.end()) TVM_FFI_THROW(ValueError) << "the model has no shader for kernel " << name;
      kernels_.emplace(name, Kernel(name, info, shader->second));
    }
  }

  const char* kind() const final { return "webgpu"; }
  int GetPropertyMask() const final { return ffi::Module::kRunnable; }

  ffi::Optional<ffi::Function> GetFunction(const ffi::String& name) final {
    auto found = kernels_.find(name);
    if (found == kernels_.end()) return std::nullopt;
    return ffi::Function::FromPacked([kernel = &found->second, self = ffi::GetRef<ffi::Module>(this)](
                                         ffi::PackedArgs args, ffi::Any*) {
      kernel->Launch(reinterpret_cast<const TVMFFIAny*>(args.data()), static_cast<size_t>(args.size()));
    });
  }

 private:
  std::unordered_map<std::string, Kernel> kernels_;
};

TVM_FFI_STATIC_INIT_BLOCK() {
  ffi::reflection::GlobalDef()
      .def("ffi.Module.load_from_bytes.webgpu",
           [](const ffi::Bytes& bytes) { return ffi::Module(ffi::make_object<WebGPUModule>(bytes)); })
      .def("device_api.webgpu",
           []() { return static_cast<void*>(static_cast<DeviceAPI*>(WebGPUDevice::Global())); });
}

}  // namespace webcompile
