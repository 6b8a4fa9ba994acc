// What device plugins have in common: TVM's device and module interfaces over a `Driver`.
//
// A Driver is one opened device, used under a lock. It says what devices there are, makes and fills buffers, compiles and
// launches kernels, all in one stream:
//
//   static std::vector<Properties> list();            devices, best first
//   explicit Driver(int index);                       opens one of them
//   Memory create(size_t nbytes);  void release(Memory&);
//   void write(Memory&, size_t offset, const char* source, size_t nbytes);
//   void read(Memory&, size_t offset, char* target, size_t nbytes);
//   void copy(Memory& from, size_t from_offset, Memory& to, size_t to_offset, size_t nbytes);
//   Pipeline compile(const Kernel&, const std::string& source);  void release(Pipeline&);
//   void launch(Pipeline&, const Call<Memory>&);
//   void sync();                                      waits for all that was enqueued
//   void lose();                                      ends the device, as a crash of it would
//   std::string lost;                                 why the device is of no use any more, if so
//   static parse(Reader&)                             the kernels of a library and their sources, by name
//   static void open_library(const std::string& path)  opens the driver's library, once, before all else
#pragma once
#include <tvm/ffi/container/array.h>
#include <tvm/ffi/extra/module.h>
#include <tvm/ffi/function.h>
#include <tvm/ffi/reflection/registry.h>
#include <tvm/runtime/device_api.h>

#include <memory>
#include <mutex>

#include "kernel.h"

namespace webcompile {

namespace ffi = tvm::ffi;

/** A device that could be opened. */
struct Properties {
  std::string name, driver, api;
  bool is_software = false;
  std::vector<std::string> features;
  std::map<std::string, int64_t> limits;
};

/** A launch: the arguments in the kernel's order, the grid in workgroups, and the size of a workgroup. */
template <class Memory>
struct Call {
  struct Argument {
    Memory* memory;  // null for scalars
    uint64_t bits;
    size_t nbytes;
  };
  std::vector<Argument> arguments;
  uint32_t grid[3] = {1, 1, 1}, block[3] = {1, 1, 1};
};

template <class Driver>
class Device;

/** What TVM takes for a pointer to device memory. */
template <class Driver>
struct Buffer {
  std::shared_ptr<Device<Driver>> device;
  typename Driver::Memory memory;
  size_t capacity;
};

/** An opened device, for any number of threads. Freed buffers are kept for reuse: what is enqueued runs in order. */
template <class Driver>
class Device : public std::enable_shared_from_this<Device<Driver>> {
 public:
  using Memory = typename Driver::Memory;

  explicit Device(int index) : driver_(index) {}
  ~Device() { drain(); }

  Buffer<Driver>* alloc(size_t nbytes) {
    std::lock_guard<std::mutex> lock(mutex_);
    check();
    size_t capacity = std::max<size_t>(kGrain, (nbytes + kGrain - 1) / kGrain * kGrain);
    auto made = std::make_unique<Buffer<Driver>>(Buffer<Driver>{this->shared_from_this(), {}, capacity});
    auto pooled = pool_.find(capacity);
    if (pooled != pool_.end()) {
      made->memory = pooled->second;
      pool_.erase(pooled);
      pooled_bytes_ -= capacity;
    } else {
      made->memory = create(capacity);
    }
    ++live_;
    live_bytes_ += capacity;
    return made.release();
  }

  void free(Buffer<Driver>* buffer) {
    std::lock_guard<std::mutex> lock(mutex_);
    --live_;
    live_bytes_ -= buffer->capacity;
    pooled_bytes_ += buffer->capacity;
    pool_.emplace(buffer->capacity, buffer->memory);
    if (live_ == 0 || !driver_.lost.empty()) drain();
    while (pooled_bytes_ > kPoolBytes) drop(std::prev(pool_.end()));  // the largest
  }

  /** Runs work with the driver, alone. */
  template <class Work>
  auto use(Work work) {
    std::lock_guard<std::mutex> lock(mutex_);
    check();
    return work(driver_);
  }

  /** As `use`, also on a device that was lost: to release things. */
  template <class Work>
  void release(Work work) {
    std::lock_guard<std::mutex> lock(mutex_);
    work(driver_);
  }

  bool is_lost() {
    std::lock_guard<std::mutex> lock(mutex_);
    return !driver_.lost.empty();
  }

  /** Counted since it was opened, or as it is now. */
  ffi::Map<ffi::String, int64_t> counters() {
    std::lock_guard<std::mutex> lock(mutex_);
    ffi::Map<ffi::String, int64_t> all;
    for (const auto& [name, count] : driver_.counters) all.Set(name, count);
    all.Set("buffers", live_);
    all.Set("buffer_bytes", int64_t(live_bytes_));
    all.Set("pooled_bytes", int64_t(pooled_bytes_));
    return all;
  }

 private:
  static constexpr size_t kGrain = 16, kPoolBytes = size_t(64) << 20;

  void check() {
    if (!driver_.lost.empty()) fail("device_lost", driver_.lost);
  }

  Memory create(size_t capacity) {
    try {
      return driver_.create(capacity);
    } catch (const ffi::Error& error) {
      if (error.kind() != "out_of_memory" || pool_.empty()) throw;
    }
    drain();
    return driver_.create(capacity);
  }

  void drain() {
    while (!pool_.empty()) drop(pool_.begin());
  }

  void drop(typename std::multimap<size_t, Memory>::iterator pooled) {
    driver_.release(pooled->second);
    pooled_bytes_ -= pooled->first;
    pool_.erase(pooled);
  }

  std::mutex mutex_;
  Driver driver_;
  std::multimap<size_t, Memory> pool_;
  int64_t live_ = 0;
  size_t live_bytes_ = 0, pooled_bytes_ = 0;
};

/** The devices of this machine. One that was lost is opened anew for whoever asks next. */
template <class Driver>
class Devices {
 public:
  static Devices& all() {
    static auto* devices = new Devices();  // outlives what Python drops at exit
    return *devices;
  }

  const std::vector<Properties>& list() {
    std::lock_guard<std::mutex> lock(mutex_);
    if (!listed_) properties_ = Driver::list();
    listed_ = true;
    return properties_;
  }

  std::shared_ptr<Device<Driver>> open(int index) {
    if (index < 0 || size_t(index) >= list().size()) {
      fail("device_missing", "there is no device " + std::to_string(index) + "; found: " + std::to_string(list().size()));
    }
    std::lock_guard<std::mutex> lock(mutex_);
    auto& device = open_[index];
    if (!device || device->is_lost()) device = std::make_shared<Device<Driver>>(index);
    return device;
  }

 private:
  std::mutex mutex_;
  bool listed_ = false;
  std::vector<Properties> properties_;
  std::map<int, std::shared_ptr<Device<Driver>>> open_;
};

/** TVM's view of the devices. */
template <class Driver>
class DeviceInterface final : public tvm::runtime::DeviceAPI {
 public:
  using DeviceAPI::AllocDataSpace;

  void SetDevice(DLDevice) final {}  // a launch finds its device by its buffers

  void GetAttr(DLDevice device, tvm::runtime::DeviceAttrKind kind, ffi::Any* result) final {
    const auto& list = Devices<Driver>::all().list();
    bool exists = device.device_id >= 0 && size_t(device.device_id) < list.size();
    if (kind == tvm::runtime::kExist) *result = int64_t(exists);
    if (!exists) return;
    const Properties& properties = list[device.device_id];
    if (kind == tvm::runtime::kDeviceName) *result = ffi::String(properties.name);
    if (kind == tvm::runtime::kDriverVersion) *result = ffi::String(properties.driver);
    if (kind == tvm::runtime::kMaxThreadsPerBlock) *result = properties.limits.at("max_workgroup_threads");
    if (kind == tvm::runtime::kMaxSharedMemoryPerBlock) *result = properties.limits.at("max_shared_bytes");
    if (kind == tvm::runtime::kWarpSize) *result = int64_t(1);
  }

  void* AllocDataSpace(DLDevice device, size_t nbytes, size_t, DLDataType) final {
    return Devices<Driver>::all().open(device.device_id)->alloc(nbytes);
  }

  void FreeDataSpace(DLDevice, void* pointer) final {
    std::unique_ptr<Buffer<Driver>> buffer(cast(pointer));
    buffer->device->free(buffer.get());
  }

  void StreamSync(DLDevice device, TVMStreamHandle) final {
    Devices<Driver>::all().open(device.device_id)->use([](Driver& driver) { driver.sync(); });
  }

 protected:
  void CopyDataFromTo(const void* from, size_t from_offset, void* to, size_t to_offset, size_t nbytes, DLDevice from_device,
                      DLDevice to_device, DLDataType, TVMStreamHandle) final {
    if (nbytes == 0) return;
    bool is_read = from_device.device_type != kDLCPU, is_write = to_device.device_type != kDLCPU;
    if (is_read && is_write) {
      auto *source = cast(from), *target = cast(to);
      if (source->device != target->device) fail("internal", "a copy between two devices has to go through the host");
      source->device->use([&](Driver& d) { d.copy(source->memory, from_offset, target->memory, to_offset, nbytes); });
    } else if (is_read) {
      auto* source = cast(from);
      auto* target = static_cast<char*>(to) + to_offset;
      source->device->use([&](Driver& driver) { driver.read(source->memory, from_offset, target, nbytes); });
    } else {
      auto* source = static_cast<const char*>(from) + from_offset;
      auto* target = cast(to);
      target->device->use([&](Driver& driver) { driver.write(target->memory, to_offset, source, nbytes); });
    }
  }

 private:
  static Buffer<Driver>* cast(const void* pointer) { return static_cast<Buffer<Driver>*>(const_cast<void*>(pointer)); }
};

/** A kernel as a function, compiled for a device when it is first launched there. */
template <class Driver>
class Function {
 public:
  Function(Kernel kernel, std::string source) : kernel_(std::move(kernel)), source_(std::move(source)) {}
  Function(const Function&) = delete;
  ~Function() {
    for (auto& [device, pipeline] : pipelines_) {
      device->release([&pipeline = pipeline](Driver& driver) { driver.release(pipeline); });
    }
  }

  void operator()(ffi::PackedArgs arguments) {
    size_t count = kernel_.types.size();
    if (size_t(arguments.size()) != count + kernel_.launch.size()) {
      fail("internal", kernel_.name + " got " + std::to_string(arguments.size()) + " arguments");
    }
    Call<typename Driver::Memory> call;
    call.arguments.reserve(count);
    std::shared_ptr<Device<Driver>> device;
    for (size_t i = 0; i < count; ++i) {
      DLDataType type = kernel_.types[i];
      if (!Kernel::is_buffer(type)) {
        call.arguments.push_back({nullptr, scalar(arguments[i], type), size_t(type.bits) / 8});
        continue;
      }
      auto* buffer = static_cast<Buffer<Driver>*>(arguments[i].cast<void*>());
      if (!device) device = buffer->device;
      // Buffers that are older than the loss of their device have another one than those that came after.
      if (buffer->device != device) fail("device_lost", "a device was lost, and its buffers with it");
      call.arguments.push_back({&buffer->memory, 0, sizeof(void*)});
    }
    for (size_t i = 0; i < kernel_.launch.size(); ++i) {
      int slot = kernel_.launch[i];
      (slot < 3 ? call.grid[slot] : call.block[slot - 3]) = uint32_t(arguments[count + i].cast<int64_t>());
    }
    if (!call.grid[0] || !call.grid[1] || !call.grid[2]) return;
    if (!device) fail("internal", kernel_.name + " has no buffers");
    std::lock_guard<std::mutex> lock(mutex_);
    device->use([&](Driver& driver) {
      auto found = pipelines_.find(device);
      if (found == pipelines_.end()) found = pipelines_.emplace(device, driver.compile(kernel_, source_)).first;
      driver.launch(found->second, call);
    });
  }

 private:
  static uint64_t scalar(ffi::AnyView value, DLDataType type) {
    uint64_t bits = 0;
    if (type.code == kDLFloat && type.bits == 32) {
      float number = float(value.cast<double>());
      std::memcpy(&bits, &number, sizeof number);
    } else if (type.code == kDLFloat) {
      fail("internal", "a kernel takes a float of " + std::to_string(type.bits) + " bits");
    } else {
      bits = uint64_t(value.cast<int64_t>());
    }
    return bits;
  }

  Kernel kernel_;
  std::string source_;
  std::mutex mutex_;
  std::map<std::shared_ptr<Device<Driver>>, typename Driver::Pipeline> pipelines_;
};

/** The kernels of a library. */
template <class Driver>
class Library final : public ffi::ModuleObj {
 public:
  explicit Library(const ffi::Bytes& bytes) : bytes_(bytes) {
    Reader reader(bytes.data(), bytes.size());
    std::tie(kernels_, sources_) = Driver::parse(reader);
    for (const auto& [name, kernel] : kernels_) {
      if (!sources_.count(name)) fail("artifact_invalid", "the library has no source of kernel " + name);
    }
  }

  const char* kind() const final { return Driver::kKind; }
  int GetPropertyMask() const final { return ffi::Module::kBinarySerializable | ffi::Module::kRunnable; }
  ffi::Bytes SaveToBytes() const final { return bytes_; }
  bool ImplementsFunction(const ffi::String& name) final { return kernels_.count(name) > 0; }

  ffi::String InspectSource(const ffi::String&) const final {
    std::string all;
    for (const auto& [name, source] : sources_) all += source + "\n";
    return all;
  }

  ffi::Optional<ffi::Function> GetFunction(const ffi::String& name) final {
    auto found = kernels_.find(name);
    if (found == kernels_.end()) return std::nullopt;
    auto function = std::make_shared<Function<Driver>>(found->second, sources_.at(name));
    return ffi::Function::FromPacked([function](ffi::PackedArgs arguments, ffi::Any*) { (*function)(arguments); });
  }

 private:
  ffi::Bytes bytes_;
  std::map<std::string, Kernel> kernels_;
  std::map<std::string, std::string> sources_;
};

/** Makes a Driver known to TVM and to webcompile/backends. */
template <class Driver>
void register_plugin() {
  using Map = ffi::Map<ffi::String, ffi::Any>;
  const std::string kind = Driver::kKind, prefix = "webcompile." + kind + ".";
  ffi::reflection::GlobalDef()
      .def(("ffi.Module.load_from_bytes." + kind).c_str(),
           [](const ffi::Bytes& bytes) { return ffi::Module(ffi::make_object<Library<Driver>>(bytes)); })
      .def_packed(("device_api." + kind).c_str(),
                  [](ffi::PackedArgs, ffi::Any* result) {
                    static auto* devices = new DeviceInterface<Driver>();
                    *result = static_cast<void*>(static_cast<tvm::runtime::DeviceAPI*>(devices));
                  })
      .def((prefix + "runnable").c_str(),
           [](const ffi::Module& compiled) { return ffi::Module(ffi::make_object<Library<Driver>>(compiled->SaveToBytes())); })
      .def((prefix + "open_library").c_str(), [](const ffi::String& path) { Driver::open_library(path); })
      .def((prefix + "devices").c_str(),
           [] {
             ffi::Array<Map> all;
             for (const Properties& of : Devices<Driver>::all().list()) {
               ffi::Map<ffi::String, int64_t> limits;
               for (const auto& [name, value] : of.limits) limits.Set(name, value);
               ffi::Array<ffi::String> features;
               for (const std::string& feature : of.features) features.push_back(feature);
               all.push_back(Map({{"name", ffi::String(of.name)},
                                  {"driver", ffi::String(of.driver)},
                                  {"api", ffi::String(of.api)},
                                  {"is_software", of.is_software},
                                  {"features", features},
                                  {"limits", limits}}));
             }
             return all;
           })
      .def((prefix + "counters").c_str(), [](int index) { return Devices<Driver>::all().open(index)->counters(); })
      .def((prefix + "lose").c_str(),
           [](int index) { Devices<Driver>::all().open(index)->use([](Driver& driver) { driver.lose(); }); });
}

}  // namespace webcompile
