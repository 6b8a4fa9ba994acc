// The part of wgpu-native that webgpu.cc calls. The headers come with the library, in PyPI `wgpu`.
#pragma once
#include <wgpu.h>

#include "shared_library.h"

#define WEBGPU_FUNCTIONS(F)                                                                                              \
  F(CreateInstance) F(InstanceEnumerateAdapters) F(SetLogLevel)                                                          \
  F(AdapterGetInfo) F(AdapterInfoFreeMembers) F(AdapterGetLimits) F(AdapterHasFeature) F(AdapterRequestDevice)           \
  F(DeviceGetQueue) F(DevicePoll) F(DeviceDestroy) F(DeviceRelease) F(QueueRelease)                                      \
  F(DeviceCreateBuffer) F(BufferRelease) F(BufferMapAsync) F(BufferGetConstMappedRange) F(BufferUnmap)                   \
  F(DeviceCreateShaderModuleTrusted) F(ShaderModuleRelease) F(DeviceCreateComputePipeline) F(ComputePipelineRelease)     \
  F(DeviceCreateBindGroupLayout) F(BindGroupLayoutRelease) F(DeviceCreatePipelineLayout) F(PipelineLayoutRelease)        \
  F(DeviceCreateBindGroup) F(BindGroupRelease)                                                                           \
  F(DeviceCreateCommandEncoder) F(CommandEncoderBeginComputePass) F(CommandEncoderCopyBufferToBuffer)                    \
  F(CommandEncoderFinish) F(CommandEncoderRelease) F(CommandBufferRelease)                                               \
  F(ComputePassEncoderSetPipeline) F(ComputePassEncoderSetBindGroup) F(ComputePassEncoderDispatchWorkgroups)             \
  F(ComputePassEncoderEnd) F(ComputePassEncoderRelease) F(QueueSubmit) F(QueueWriteBuffer)

namespace webcompile {

struct WebGPU {
#define DECLARE(name) decltype(&wgpu##name) name;
  WEBGPU_FUNCTIONS(DECLARE)
#undef DECLARE

  explicit WebGPU(const SharedLibrary& library) {
#define FIND(name) library.find("wgpu" #name, &name);
    WEBGPU_FUNCTIONS(FIND)
#undef FIND
  }
};

}  // namespace webcompile
