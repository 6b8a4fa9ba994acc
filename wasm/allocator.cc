// The pool of the virtual machine's intermediate tensors and results.
//
// TVM's own pool reuses a buffer only for the same size in 4 kB pages. Prompts have all lengths, and each would leave
// its set of GPU buffers behind. This one takes the smallest free buffer that is not wastefully large: what is kept is
// bounded by the largest calls, and a steady run allocates nothing.
#include <tvm/ffi/error.h>
#include <tvm/ffi/function.h>
#include <tvm/ffi/reflection/registry.h>
#include <tvm/runtime/device_api.h>
#include <tvm/runtime/memory/memory_manager.h>

#include <algorithm>
#include <map>
#include <new>

namespace webcompile {

namespace ffi = tvm::ffi;
using tvm::runtime::DeviceAPI;
using tvm::runtime::memory::Allocator;
using tvm::runtime::memory::AllocatorType;
using tvm::runtime::memory::Buffer;

class Pool final : public Allocator {
 public:
  Pool() : Allocator(AllocatorType::kPooled) {}

  using Allocator::Alloc;
  Buffer Alloc(DLDevice device, size_t nbytes, size_t alignment, DLDataType type) final {
    auto found = free_.lower_bound(nbytes);
    if (found != free_.end() && found->first <= 2 * std::max(nbytes, kSmall)) {
      const Buffer buffer = found->second;
      free_.erase(found);
      return buffer;
    }
    Buffer buffer;
    buffer.device = device;
    buffer.size = RoundUp(nbytes);
    buffer.alloc_type = AllocatorType::kPooled;
    DeviceAPI* api = DeviceAPI::Get(device);
    try {
      buffer.data = api->AllocDataSpace(device, buffer.size, alignment, type);
    } catch (const std::exception&) {  // ffi::Error from WebGPU, std::bad_alloc on the CPU
      Clear();
      buffer.data = api->AllocDataSpace(device, buffer.size, alignment, type);
    }
    used_ += buffer.size;
    return buffer;
  }

  void Free(const Buffer& buffer) final { free_.emplace(buffer.size, buffer); }

  void Clear() final {
    for (const auto& [size, buffer] : free_) {
      DeviceAPI::Get(buffer.device)->FreeDataSpace(buffer.device, buffer.data);
      used_ -= size;
    }
    free_.clear();
  }

  size_t UsedMemory() const final { return used_; }

 private:
  static constexpr size_t kSmall = 32 << 10;

  // By at most a quarter, so that similar requests get interchangeable buffers.
  static size_t RoundUp(size_t nbytes) {
    size_t step = 64;
    while (step < nbytes / 8) step *= 2;
    return std::max<size_t>((nbytes + step - 1) / step * step, step);
  }

  std::multimap<size_t, Buffer> free_;
  size_t used_ = 0;
};

TVM_FFI_STATIC_INIT_BLOCK() {
  // MemoryManager asks for "DeviceAllocator." + a name that is empty for both of our devices.
  ffi::reflection::GlobalDef().def("DeviceAllocator.", [](DLDevice, int) {
    return static_cast<void*>(static_cast<Allocator*>(new Pool()));
  });
}

}  // namespace webcompile
