// WebGPU through wgpu-native: the WGSL of the browser on Vulkan, Metal and Direct3D 12.
//
// Commands are recorded into one encoder, dispatches that follow each other into one pass, and submitted when a buffer is
// written or read, or when the uniform slots are used up. Scalars of all dispatches of a submit go to the device in one
// write; each dispatch finds its own by a dynamic offset. Bind groups are kept until one of their buffers goes.
#include <algorithm>
#include <unordered_map>

#include "guard.h"
#include "plugin.h"
#include "webgpu_api.h"

namespace webcompile {
namespace {

std::unique_ptr<WebGPU> wgpu;          // set by open_library, once
std::vector<WGPUAdapter> adapters;     // in the order of Driver::list

std::string text(WGPUStringView view) {
  if (!view.data) return "";
  return view.length == WGPU_STRLEN ? std::string(view.data) : std::string(view.data, view.length);
}

WGPUStringView view(const std::string& text) { return {text.data(), text.size()}; }

const auto kSubgroups = static_cast<WGPUFeatureName>(WGPUNativeFeature_Subgroup);

const char* api_name(WGPUBackendType type) {
  switch (type) {
    case WGPUBackendType_Vulkan: return "vulkan";
    case WGPUBackendType_Metal: return "metal";
    case WGPUBackendType_D3D12: return "d3d12";
    default: return "other";
  }
}

/** Real GPUs first, discrete before integrated ones. */
int rank(WGPUAdapterType type) { return type == WGPUAdapterType_CPU ? 9 : int(type); }

Properties describe(WGPUAdapter adapter) {
  WGPUAdapterInfo info = {};
  wgpu->AdapterGetInfo(adapter, &info);
  Properties made{text(info.device), text(info.description), api_name(info.backendType),
                  info.adapterType == WGPUAdapterType_CPU, {}, {}};
  wgpu->AdapterInfoFreeMembers(info);
  if (wgpu->AdapterHasFeature(adapter, WGPUFeatureName_ShaderF16)) made.features.push_back("shader-f16");
  if (wgpu->AdapterHasFeature(adapter, kSubgroups)) made.features.push_back("subgroups");
  WGPULimits limits = {};
  wgpu->AdapterGetLimits(adapter, &limits);
  made.limits = {{"max_workgroup_threads", limits.maxComputeInvocationsPerWorkgroup},
                 {"max_shared_bytes", limits.maxComputeWorkgroupStorageSize},
                 {"max_buffer_bytes", int64_t(std::min(limits.maxBufferSize, limits.maxStorageBufferBindingSize))},
                 {"max_buffers", limits.maxStorageBuffersPerShaderStage}};
  return made;
}

class Driver {
 public:
  static constexpr const char* kKind = "webgpu";
  struct Memory {
    WGPUBuffer buffer;
    uint64_t id;  // never given twice
    uint64_t capacity;
    bool is_bound;
  };
  struct Pipeline {
    uint64_t id;
    WGPUBindGroupLayout layout;
    WGPUComputePipeline pipeline;
    uint32_t uniform_bytes;
  };

  std::string lost;
  std::map<std::string, int64_t> counters{{"dispatches", 0}, {"submits", 0}, {"bind_groups", 0}, {"pipelines", 0}};

  static void open_library(const std::string& path) {
    if (!wgpu) wgpu = std::make_unique<WebGPU>(SharedLibrary(path));
  }

  static std::pair<std::map<std::string, Kernel>, std::map<std::string, std::string>> parse(Reader& reader) {
    auto kernels = reader.kernels();
    return {kernels, reader.texts()};
  }

  static std::vector<Properties> list() {
    if (!wgpu) fail("driver_missing", "wgpu-native was not opened");
    wgpu->SetLogLevel(WGPULogLevel_Off);  // errors are thrown
    WGPUInstanceExtras extras = {};
    extras.chain.sType = static_cast<WGPUSType>(WGPUSType_InstanceExtras);
    extras.backends = WGPUInstanceBackend_Vulkan | WGPUInstanceBackend_Metal | WGPUInstanceBackend_DX12;
    WGPUInstanceDescriptor descriptor = {};
    descriptor.nextInChain = &extras.chain;
    WGPUInstance instance = wgpu->CreateInstance(&descriptor);
    adapters.resize(wgpu->InstanceEnumerateAdapters(instance, nullptr, nullptr));
    wgpu->InstanceEnumerateAdapters(instance, nullptr, adapters.data());
    std::vector<std::pair<int, WGPUAdapter>> ranked;
    for (WGPUAdapter adapter : adapters) {
      WGPUAdapterInfo info = {};
      wgpu->AdapterGetInfo(adapter, &info);
      ranked.emplace_back(rank(info.adapterType), adapter);
      wgpu->AdapterInfoFreeMembers(info);
    }
    std::stable_sort(ranked.begin(), ranked.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
    std::vector<Properties> all;
    for (size_t i = 0; i < ranked.size(); ++i) all.push_back(describe(adapters[i] = ranked[i].second));
    return all;
  }

  explicit Driver(int index) {
    WGPUAdapter adapter = adapters[index];
    wgpu->AdapterGetLimits(adapter, &limits_);
    limits_.nextInChain = nullptr;
    std::vector<WGPUFeatureName> features;
    for (WGPUFeatureName feature : {WGPUFeatureName_ShaderF16, kSubgroups})
      if (wgpu->AdapterHasFeature(adapter, feature)) features.push_back(feature);
    WGPUDeviceDescriptor descriptor = {};
    descriptor.requiredFeatureCount = features.size();
    descriptor.requiredFeatures = features.data();
    descriptor.requiredLimits = &limits_;
    descriptor.deviceLostCallbackInfo = {nullptr, WGPUCallbackMode_AllowSpontaneous, on_lost, this, nullptr};
    descriptor.uncapturedErrorCallbackInfo = {nullptr, on_error, this, nullptr};
    WGPURequestDeviceCallbackInfo callback = {nullptr, WGPUCallbackMode_AllowSpontaneous, on_device, this, nullptr};
    wgpu->AdapterRequestDevice(adapter, &descriptor, callback);  // wgpu-native answers before it returns
    if (!device_) fail("device_missing", "the adapter gave no device: " + failure_);
    queue_ = wgpu->DeviceGetQueue(device_);
    uniforms_ = make_buffer(kSlots * kSlotBytes, WGPUBufferUsage_Uniform | WGPUBufferUsage_CopyDst);
    scalars_.resize(kSlots * kSlotBytes / 4);
  }

  ~Driver() {
    end_pass();
    if (encoder_) wgpu->CommandEncoderRelease(encoder_);
    forget_groups();
    for (auto& [writes, layout] : layouts_) {
      wgpu->PipelineLayoutRelease(layout.pipeline);
      wgpu->BindGroupLayoutRelease(layout.group);
    }
    if (staging_) wgpu->BufferRelease(staging_);
    wgpu->BufferRelease(uniforms_);
    guard([this] { wgpu->QueueRelease(queue_); });
    guard([this] { wgpu->DeviceRelease(device_); });
  }

  Memory create(size_t nbytes) {
    uint64_t most = std::min(limits_.maxBufferSize, limits_.maxStorageBufferBindingSize);
    if (nbytes > most) {
      fail("out_of_memory",
           "a buffer of " + std::to_string(nbytes) + " bytes is needed; this device allows " + std::to_string(most));
    }
    auto usage = WGPUBufferUsage_Storage | WGPUBufferUsage_CopySrc | WGPUBufferUsage_CopyDst;
    return {make_buffer(nbytes, usage), ++last_id_, nbytes, false};
  }

  void release(Memory& memory) {
    if (memory.is_bound) forget_groups();
    wgpu->BufferRelease(memory.buffer);  // commands keep what they still need
  }

  /** The last word of a size that is no multiple of 4 keeps what lies behind. */
  void write(Memory& target, size_t offset, const char* source, size_t nbytes) {
    if (offset % 4) fail("internal", "a write starts within a word");
    size_t whole = nbytes / 4 * 4;
    flush();
    for (size_t at = 0; at < whole; at += kChunkBytes) {
      size_t chunk = std::min(kChunkBytes, whole - at);
      wgpu->QueueWriteBuffer(queue_, target.buffer, offset + at, source + at, chunk);
      written_ += chunk;
      if (written_ >= kChunkBytes) drain_writes();
    }
    if (whole < nbytes) {
      char word[4] = {};
      read(target, offset + whole, word, 4);
      std::memcpy(word, source + whole, nbytes - whole);
      wgpu->QueueWriteBuffer(queue_, target.buffer, offset + whole, word, 4);
      written_ += 4;
    }
    check("write a buffer");
  }

  void read(Memory& source, size_t offset, char* target, size_t nbytes) {
    for (size_t at = 0; at < nbytes; at += kChunkBytes) {
      size_t chunk = std::min(kChunkBytes, nbytes - at), from = (offset + at) / 4 * 4;
      size_t lead = offset + at - from, span = (lead + chunk + 3) / 4 * 4;
      if (staging_bytes_ < span) grow_staging(span);
      end_pass();
      wgpu->CommandEncoderCopyBufferToBuffer(commands(), source.buffer, from, staging_, 0, span);
      flush();
      WGPUMapAsyncStatus status = {};
      auto on_mapped = [](WGPUMapAsyncStatus result, WGPUStringView, void* to, void*) {
        *static_cast<WGPUMapAsyncStatus*>(to) = result;
      };
      WGPUBufferMapCallbackInfo callback = {nullptr, WGPUCallbackMode_AllowSpontaneous, on_mapped, &status, nullptr};
      wgpu->BufferMapAsync(staging_, WGPUMapMode_Read, 0, span, callback);
      wait();
      check("read a buffer");
      if (status != WGPUMapAsyncStatus_Success) fail("internal", "a buffer could not be mapped");
      const void* mapped = nullptr;
      guard([&] { mapped = wgpu->BufferGetConstMappedRange(staging_, 0, span); });
      check("read a buffer");
      std::memcpy(target + at, static_cast<const char*>(mapped) + lead, chunk);
      wgpu->BufferUnmap(staging_);
    }
  }

  void copy(Memory& from, size_t from_offset, Memory& to, size_t to_offset, size_t nbytes) {
    if ((from_offset | to_offset | nbytes) % 4) fail("internal", "a copy on the device splits a word");
    end_pass();
    if (from.buffer != to.buffer) {
      wgpu->CommandEncoderCopyBufferToBuffer(commands(), from.buffer, from_offset, to.buffer, to_offset, nbytes);
      return;
    }
    // WebGPU refuses a copy within one buffer. What is released lives on until the commands are done.
    WGPUBuffer between = make_buffer(nbytes, WGPUBufferUsage_CopySrc | WGPUBufferUsage_CopyDst);
    wgpu->CommandEncoderCopyBufferToBuffer(commands(), from.buffer, from_offset, between, 0, nbytes);
    wgpu->CommandEncoderCopyBufferToBuffer(commands(), between, 0, to.buffer, to_offset, nbytes);
    wgpu->BufferRelease(between);
  }

  Pipeline compile(const Kernel& kernel, const std::string& source) {
    size_t num_buffers = 0, num_scalars = 1;  // the grid's
    for (DLDataType type : kernel.types) ++(Kernel::is_buffer(type) ? num_buffers : num_scalars);
    if (kernel.writes.size() != num_buffers) fail("artifact_invalid", kernel.name + " does not say what it writes");
    const Layout& layout = find_layout(kernel.writes);
    std::string code = source;  // naga has subgroups without being told, and does not know the word
    static const std::string enable = "enable subgroups;";
    if (size_t at = code.find(enable); at != std::string::npos) code.erase(at, enable.size());
    WGPUShaderSourceWGSL wgsl = {};
    wgsl.chain.sType = WGPUSType_ShaderSourceWGSL;
    wgsl.code = view(code);
    WGPUShaderModuleDescriptor shader = {};
    shader.nextInChain = &wgsl.chain;
    // Our kernels stay within their buffers, on the CPU too, where nobody checks.
    WGPUShaderModule module = wgpu->DeviceCreateShaderModuleTrusted(device_, &shader, WGPUShaderRuntimeChecks_None);
    check("take the source of " + kernel.name);
    WGPUComputePipelineDescriptor descriptor = {};
    descriptor.layout = layout.pipeline;
    descriptor.compute.module = module;
    descriptor.compute.entryPoint = view(kernel.name);
    WGPUComputePipeline pipeline = wgpu->DeviceCreateComputePipeline(device_, &descriptor);
    wgpu->ShaderModuleRelease(module);
    check("compile " + kernel.name);
    ++counters["pipelines"];
    auto uniform_bytes = uint32_t((num_scalars * 4 + kSlotBytes - 1) / kSlotBytes * kSlotBytes);
    return {++last_id_, layout.group, pipeline, uniform_bytes};
  }

  void release(Pipeline& pipeline) {
    forget_groups();
    wgpu->ComputePipelineRelease(pipeline.pipeline);
    --counters["pipelines"];
  }

  void launch(Pipeline& pipeline, const Call<Memory>& call) {
    if (scalars_end_ + pipeline.uniform_bytes > kSlots * kSlotBytes) flush();
    uint32_t offset = scalars_end_, x = call.grid[0], y = call.grid[1], z = call.grid[2];
    scalars_end_ += pipeline.uniform_bytes;
    uint32_t* scalar = &scalars_[offset / 4];
    for (const auto& argument : call.arguments)
      if (!argument.memory) *scalar++ = uint32_t(argument.bits);
    *scalar = x - 1;  // the last block along x, which may be spread over x and z
    if (x > limits_.maxComputeWorkgroupsPerDimension) {
      if (z != 1) fail("internal", "a grid is too large");
      z = (x - 1) / limits_.maxComputeWorkgroupsPerDimension + 1;
      x = limits_.maxComputeWorkgroupsPerDimension;
    }
    WGPUBindGroup group = find_group(pipeline, call);
    if (!pass_) pass_ = wgpu->CommandEncoderBeginComputePass(commands(), nullptr);
    wgpu->ComputePassEncoderSetPipeline(pass_, pipeline.pipeline);
    wgpu->ComputePassEncoderSetBindGroup(pass_, 0, group, 1, &offset);
    wgpu->ComputePassEncoderDispatchWorkgroups(pass_, x, y, z);
    ++counters["dispatches"];
  }

  /** What was written is the driver's already: only commands are waited for. */
  void sync() {
    flush();
    if (!is_idle_) wait();
    check("wait for the device");
  }

  void lose() { wgpu->DeviceDestroy(device_); }

 private:
  struct Layout {
    WGPUBindGroupLayout group;
    WGPUPipelineLayout pipeline;
  };
  struct Hash {
    size_t operator()(const std::vector<uint64_t>& ids) const {
      size_t hash = 0;
      for (uint64_t id : ids) hash = hash * 1099511628211u + id;
      return hash;
    }
  };
  static constexpr uint32_t kSlots = 1024, kSlotBytes = 256;  // dispatches per submit; every device aligns to 256
  static constexpr size_t kChunkBytes = size_t(64) << 20;

  static void on_device(WGPURequestDeviceStatus, WGPUDevice device, WGPUStringView message, void* self, void*) {
    static_cast<Driver*>(self)->device_ = device;
    if (!device) static_cast<Driver*>(self)->failure_ = text(message);
  }

  static void on_lost(const WGPUDevice*, WGPUDeviceLostReason, WGPUStringView message, void* self, void*) {
    static_cast<Driver*>(self)->lost = "the device was lost: " + text(message);
  }

  static void on_error(const WGPUDevice*, WGPUErrorType type, WGPUStringView message, void* self, void*) {
    auto* driver = static_cast<Driver*>(self);
    if (!driver->failure_.empty()) return;  // what follows is a consequence
    driver->failure_ = text(message);
    driver->is_out_of_memory_ = type == WGPUErrorType_OutOfMemory;
    // wgpu-native tells on_lost when it pleases, and gives this loss no type of its own.
    if (driver->lost.empty() && driver->failure_.find("is lost") != std::string::npos) driver->lost = driver->failure_;
  }

  /** Throws what has gone wrong since the last check. */
  void check(const std::string& what) {
    std::string failure;
    failure.swap(failure_);
    if (!lost.empty()) fail("device_lost", lost);
    if (failure.empty()) return;
    fail(is_out_of_memory_ ? "out_of_memory" : "internal", "WebGPU could not " + what + ": " + failure);
  }

  WGPUBuffer make_buffer(uint64_t nbytes, WGPUBufferUsage usage) {
    WGPUBufferDescriptor descriptor = {};
    descriptor.size = nbytes;
    descriptor.usage = usage;
    WGPUBuffer buffer = wgpu->DeviceCreateBuffer(device_, &descriptor);
    if (!failure_.empty() && buffer) wgpu->BufferRelease(buffer);
    check("make a buffer of " + std::to_string(nbytes) + " bytes");
    return buffer;
  }

  void grow_staging(size_t nbytes) {
    if (staging_) wgpu->BufferRelease(staging_);
    staging_ = nullptr;
    staging_bytes_ = 0;
    staging_ = make_buffer(nbytes, WGPUBufferUsage_MapRead | WGPUBufferUsage_CopyDst);
    staging_bytes_ = nbytes;
  }

  /** Calls what panics if the device is lost: see guard.c. */
  template <class Work>
  void guard(Work work) {
    bool is_done = webcompile_guard([](void* call) { (*static_cast<Work*>(call))(); }, &work);
    if (!is_done && lost.empty()) lost = "the device was lost";
  }

  void wait() {
    guard([this] { wgpu->DevicePoll(device_, true, nullptr); });
    is_idle_ = true;
    written_ = 0;
  }

  /** The driver holds copies of what is written until the next submit. */
  void drain_writes() {
    guard([this] { wgpu->QueueSubmit(queue_, 0, nullptr); });
    wait();
  }

  WGPUCommandEncoder commands() {
    if (!encoder_) encoder_ = wgpu->DeviceCreateCommandEncoder(device_, nullptr);
    return encoder_;
  }

  void end_pass() {
    if (!pass_) return;
    wgpu->ComputePassEncoderEnd(pass_);
    wgpu->ComputePassEncoderRelease(pass_);
    pass_ = nullptr;
  }

  void flush() {
    end_pass();
    if (!encoder_) return;
    if (scalars_end_ > 0) wgpu->QueueWriteBuffer(queue_, uniforms_, 0, scalars_.data(), scalars_end_);
    scalars_end_ = 0;
    WGPUCommandBuffer recorded = wgpu->CommandEncoderFinish(encoder_, nullptr);
    wgpu->CommandEncoderRelease(encoder_);
    encoder_ = nullptr;
    guard([&] { wgpu->QueueSubmit(queue_, 1, &recorded); });
    wgpu->CommandBufferRelease(recorded);
    is_idle_ = false;
    ++counters["submits"];
    check("run commands");
  }

  const Layout& find_layout(const std::vector<bool>& writes) {
    auto known = layouts_.find(writes);
    if (known != layouts_.end()) return known->second;
    std::vector<WGPUBindGroupLayoutEntry> entries(writes.size() + 1);
    for (size_t i = 0; i < entries.size(); ++i) {
      entries[i] = {};
      entries[i].binding = uint32_t(i);
      entries[i].visibility = WGPUShaderStage_Compute;
      if (i == writes.size()) {
        entries[i].buffer.type = WGPUBufferBindingType_Uniform;
        entries[i].buffer.hasDynamicOffset = true;
      } else {
        entries[i].buffer.type = writes[i] ? WGPUBufferBindingType_Storage : WGPUBufferBindingType_ReadOnlyStorage;
      }
    }
    WGPUBindGroupLayoutDescriptor group = {};
    group.entryCount = entries.size();
    group.entries = entries.data();
    Layout made{wgpu->DeviceCreateBindGroupLayout(device_, &group), nullptr};
    WGPUPipelineLayoutDescriptor pipeline = {};
    pipeline.bindGroupLayoutCount = 1;
    pipeline.bindGroupLayouts = &made.group;
    made.pipeline = wgpu->DeviceCreatePipelineLayout(device_, &pipeline);
    check("lay out a kernel's buffers");
    return layouts_[writes] = made;
  }

  WGPUBindGroup find_group(Pipeline& pipeline, const Call<Memory>& call) {
    key_.assign(1, pipeline.id);
    for (const auto& argument : call.arguments)
      if (argument.memory) key_.push_back(argument.memory->id);
    auto known = groups_.find(key_);
    if (known != groups_.end()) return known->second;
    std::vector<WGPUBindGroupEntry> entries;
    auto bind = [&](WGPUBuffer buffer, uint64_t nbytes) {
      WGPUBindGroupEntry entry = {};
      entry.binding = uint32_t(entries.size());
      entry.buffer = buffer;
      entry.size = nbytes;
      entries.push_back(entry);
    };
    for (const auto& argument : call.arguments) {
      if (!argument.memory) continue;
      bind(argument.memory->buffer, argument.memory->capacity);
      argument.memory->is_bound = true;
    }
    bind(uniforms_, pipeline.uniform_bytes);
    WGPUBindGroupDescriptor descriptor = {};
    descriptor.layout = pipeline.layout;
    descriptor.entryCount = entries.size();
    descriptor.entries = entries.data();
    WGPUBindGroup group = wgpu->DeviceCreateBindGroup(device_, &descriptor);
    check("bind a kernel's buffers");
    ++counters["bind_groups"];
    return groups_[key_] = group;
  }

  void forget_groups() {
    for (auto& [key, group] : groups_) wgpu->BindGroupRelease(group);
    groups_.clear();
    counters["bind_groups"] = 0;
  }

  WGPUDevice device_ = nullptr;
  WGPUQueue queue_ = nullptr;
  WGPULimits limits_ = {};
  std::string failure_;
  bool is_out_of_memory_ = false;

  WGPUCommandEncoder encoder_ = nullptr;
  WGPUComputePassEncoder pass_ = nullptr;
  WGPUBuffer uniforms_ = nullptr, staging_ = nullptr;
  std::vector<uint32_t> scalars_;
  uint32_t scalars_end_ = 0;
  size_t staging_bytes_ = 0, written_ = 0;  // written since the last submit
  bool is_idle_ = true;

  uint64_t last_id_ = 0;
  std::map<std::vector<bool>, Layout> layouts_;
  std::unordered_map<std::vector<uint64_t>, WGPUBindGroup, Hash> groups_;
  std::vector<uint64_t> key_;
};

}  // namespace

TVM_FFI_STATIC_INIT_BLOCK() { register_plugin<Driver>(); }

}  // namespace webcompile
