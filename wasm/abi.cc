// The C functions that JavaScript calls: RUNTIME_EXPORTS of webcompile/contracts.py. Objects are small integer handles.
// No C++ exception leaves this file.
#include <tvm/ffi/cast.h>
#include <tvm/ffi/container/array.h>
#include <tvm/ffi/dtype.h>
#include <tvm/ffi/extra/module.h>
#include <tvm/ffi/function.h>
#include <tvm/runtime/tensor.h>
#include <tvm/runtime/vm/vm.h>

#include <cstdlib>
#include <new>
#include <string>
#include <vector>

#include "contracts.h"

namespace {

namespace ffi = tvm::ffi;
using tvm::runtime::Tensor;
using tvm::runtime::memory::AllocatorType;
using tvm::runtime::vm::VirtualMachine;
using tvm::runtime::vm::VMExecutable;

constexpr double kMaxTensorBytes = 4294963200;  // a page below 4 GB, for rounding up

std::string last_error;

// Runs `body`; an exception becomes the last error and `failure` the result.
template <typename Body>
int Guarded(int failure, Body body) noexcept {
  try {
    return body();
  } catch (const ffi::Error& error) {
    last_error = error.kind() + ": " + error.message();
  } catch (const std::bad_alloc&) {
    last_error = "OutOfMemory: the wasm memory is exhausted";
  } catch (const std::exception& error) {
    last_error = std::string("InternalError: ") + error.what();
  }
  return failure;
}

DLDevice DeviceOf(int device_type) {
  if (device_type != kDLCPU && device_type != kDLWebGPU) {
    TVM_FFI_THROW(ValueError) << "unknown device type " << device_type;
  }
  return {static_cast<DLDeviceType>(device_type), 0};
}

// Handle h is items[h]; a free one is None. 0 is never given out.
class HandleTable {
 public:
  int Add(ffi::Any item) {
    int handle;
    if (free_.empty()) {
      handle = static_cast<int>(items_.size());
      items_.emplace_back();
    } else {
      handle = free_.back();
      free_.pop_back();
    }
    items_[handle] = Item{std::move(item), true};
    return handle;
  }

  const ffi::Any& Get(int handle) const {
    if (!Has(handle)) TVM_FFI_THROW(ValueError) << "handle " << handle << " is not in use";
    return items_[handle].value;
  }

  void Release(int handle) {
    if (!Has(handle)) TVM_FFI_THROW(ValueError) << "handle " << handle << " is not in use";
    // Moved out first: the destructor may run code that looks at the table.
    ffi::Any dropped = std::move(items_[handle].value);
    items_[handle] = Item{};
    free_.push_back(handle);
  }

 private:
  struct Item {
    ffi::Any value;
    bool used = false;
  };

  bool Has(int handle) const {
    return handle > 0 && static_cast<size_t>(handle) < items_.size() && items_[handle].used;
  }

  std::vector<Item> items_ = std::vector<Item>(1);
  std::vector<int> free_;
};

HandleTable& Handles() {
  static auto* table = new HandleTable();
  return *table;
}

ffi::ObjectPtr<VirtualMachine>& Machine() {
  static auto* machine = new ffi::ObjectPtr<VirtualMachine>();
  return *machine;
}

}  // namespace

int wc_abi_version() { return WC_ABI_VERSION; }

int wc_alloc(int nbytes) { return reinterpret_cast<int>(std::malloc(static_cast<size_t>(nbytes))); }

int wc_free(void* memory) {
  std::free(memory);
  return 0;
}

int wc_last_error() { return reinterpret_cast<int>(last_error.c_str()); }

int wc_open(int device_type) {
  return Guarded(-1, [&] {
    if (Machine() != nullptr) TVM_FFI_THROW(RuntimeError) << "the model is open already";
    const DLDevice device = DeviceOf(device_type);
    const auto system_lib = ffi::Function::GetGlobalRequired("ffi.SystemLib");
    const auto library = system_lib(WC_SYSTEM_LIB_PREFIX).cast<ffi::Module>();
    // Kinds of modules are told apart by name; to the FFI they are all of one type.
    if (std::string(library->kind()) != "relax.VMExecutable") {
      TVM_FFI_THROW(RuntimeError) << "no model is linked: call a model's __wasm_call_ctors before wc_open";
    }
    auto* executable = static_cast<VMExecutable*>(const_cast<ffi::ModuleObj*>(library.operator->()));
    auto machine = VirtualMachine::Create();
    machine->LoadExecutable(ffi::GetObjectPtr<VMExecutable>(executable));
    // The VM keeps shapes on the host, which it expects last. Pools let a steady run allocate nothing.
    std::vector<DLDevice> devices{device};
    if (device_type != kDLCPU) devices.push_back({kDLCPU, 0});
    machine->Init(devices, std::vector<AllocatorType>(devices.size(), AllocatorType::kPooled));
    Machine() = machine;
    return 0;
  });
}

int wc_function(const char* name) {
  return Guarded(0, [&] {
    if (Machine() == nullptr) TVM_FFI_THROW(RuntimeError) << "the model is not open";
    const auto function = Machine()->GetFunction(name);
    if (!function.has_value() || function.value() == nullptr) {
      TVM_FFI_THROW(AttributeError) << "the model has no function " << name;
    }
    return Handles().Add(function.value());
  });
}

int wc_tensor(int device_type, const char* dtype, const int* shape, int ndim) {
  return Guarded(0, [&] {
    const DLDevice device = DeviceOf(device_type);
    const DLDataType type = ffi::StringToDLDataType(dtype);
    // TVM counts bytes in 32 bits here, where a tensor that is too large would wrap to a small one.
    double nbytes = static_cast<double>(ffi::GetDataSize(1, type));
    for (int i = 0; i < ndim; ++i) {
      if (shape[i] < 0) TVM_FFI_THROW(ValueError) << "axis " << i << " of a tensor has the size " << shape[i];
      nbytes *= shape[i];
    }
    if (nbytes > kMaxTensorBytes) {
      TVM_FFI_THROW(OutOfMemory) << "a tensor of " << nbytes << " bytes exceeds 4 GB";
    }
    return Handles().Add(Tensor::Empty(ffi::Shape(shape, shape + ndim), type, device));
  });
}

int wc_tensor_data(int tensor) {
  return Guarded(0, [&] {
    const auto value = Handles().Get(tensor).cast<Tensor>();
    const auto data = reinterpret_cast<intptr_t>(value->data);
    if (value->device.device_type == kDLCPU) return static_cast<int>(data + static_cast<intptr_t>(value->byte_offset));
    if (value->byte_offset != 0) TVM_FFI_THROW(ValueError) << "the tensor begins inside its GPU buffer";
    return static_cast<int>(data);
  });
}

int wc_tuple(const int* handles, int count) {
  return Guarded(0, [&] {
    ffi::Array<ffi::Any> items;
    items.reserve(count);
    for (int i = 0; i < count; ++i) items.push_back(Handles().Get(handles[i]));
    return Handles().Add(items);
  });
}

int wc_call(int function, const int* handles, int count) {
  return Guarded(0, [&] {
    const auto callee = Handles().Get(function).cast<ffi::Function>();
    std::vector<ffi::AnyView> args(count);
    for (int i = 0; i < count; ++i) args[i] = Handles().Get(handles[i]);
    ffi::Any result;
    callee.CallPacked(args.data(), count, &result);
    return Handles().Add(std::move(result));
  });
}

int wc_release(int handle) {
  return Guarded(-1, [&] {
    Handles().Release(handle);
    return 0;
  });
}
