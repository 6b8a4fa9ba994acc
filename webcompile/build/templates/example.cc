// Continues a prompt with a packaged model: example FOLDER NUM_TOKENS TOKEN_ID...
// Prints the ids of the most likely tokens. Texts become ids with any library that reads tokenizer.json.
#include <tvm/ffi/container/array.h>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/dtype.h>
#include <tvm/ffi/extra/module.h>
#include <tvm/ffi/function.h>
#include <tvm/ffi/string.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <numeric>
#include <string>
#include <vector>

#include "webcompile_model.h"

namespace ffi = tvm::ffi;
using ffi::Tensor;

namespace {

const DLDevice kDevice = {static_cast<DLDeviceType>(WEBCOMPILE_DEVICE_TYPE), 0};

Tensor Upload(const ffi::Shape& shape, DLDataType dtype, const void* values, size_t nbytes) {
  static const auto alloc = ffi::Function::GetGlobalRequired("runtime.TVMTensorAllocWithScope");
  static const auto copy = ffi::Function::GetGlobalRequired("runtime.TVMTensorCopyFromBytes");
  const auto tensor = alloc(shape, dtype, kDevice, nullptr).cast<Tensor>();
  copy(tensor, const_cast<void*>(values), static_cast<int64_t>(nbytes));
  return tensor;
}

Tensor Upload(const std::vector<int>& values) {
  const ffi::Shape shape({static_cast<int64_t>(values.size())});
  return Upload(shape, DLDataType{kDLInt, 32, 1}, values.data(), values.size() * sizeof(int));
}

void Download(const Tensor& tensor, std::vector<float>& values) {
  static const auto copy = ffi::Function::GetGlobalRequired("runtime.TVMTensorCopyToBytes");
  copy(tensor, static_cast<void*>(values.data()), static_cast<int64_t>(values.size() * sizeof(float)));
}

ffi::Module OpenModel() {
  const auto library = ffi::Function::GetGlobalRequired("ffi.SystemLib")(WEBCOMPILE_LIBRARY).cast<ffi::Module>();
  const auto machine = library->GetFunction("vm_load_executable").value()().cast<ffi::Module>();
  const int cpu = kDLCPU, pooled = 2;  // how memory is kept
  const auto start = machine->GetFunction("vm_initialization").value();
  if (kDevice.device_type == kDLCPU) {
    start(cpu, 0, pooled);
  } else {
    start(static_cast<int>(kDevice.device_type), 0, pooled, cpu, 0, pooled);
  }
  return machine;
}

ffi::Any LoadWeights(const std::string& folder) {
  const int device_type = kDevice.device_type;
  ffi::Function::GetGlobalRequired("vm.builtin.tensor_cache.load")(folder, device_type, 0);
  ffi::Array<ffi::String> names;
  for (const char* name : webcompile_params) names.push_back(name);
  return ffi::Function::GetGlobalRequired("vm.builtin.param_array_from_cache_by_name")(names);
}

// What all layers keep, zeroed: what is not written yet must at least be numbers.
ffi::Array<Tensor> MakeCache(int num_pages) {
  ffi::Array<Tensor> cache;
  for (const auto& part : webcompile_cache) {
    std::vector<int64_t> sizes{num_pages};
    for (const int* size = part.shape; *size != 0; ++size) sizes.push_back(*size);
    const DLDataType dtype = ffi::StringToDLDataType(part.dtype);
    const int64_t count = std::accumulate(sizes.begin(), sizes.end(), int64_t{1}, std::multiplies<>());
    const std::vector<char> zeros(static_cast<size_t>(count) * dtype.bits / 8);
    cache.push_back(Upload(ffi::Shape(sizes.begin(), sizes.end()), dtype, zeros.data(), zeros.size()));
  }
  return cache;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) {
    std::fprintf(stderr, "usage: %s FOLDER NUM_TOKENS TOKEN_ID...\n", argv[0]);
    return 2;
  }
  const int num_tokens = std::atoi(argv[2]);
  std::vector<int> tokens;
  for (int i = 3; i < argc; ++i) tokens.push_back(std::atoi(argv[i]));

  const ffi::Module model = OpenModel();
  const auto prefill = model->GetFunction("prefill").value(), decode = model->GetFunction("decode").value();
  const ffi::Any params = LoadWeights(argv[1]);
  const int num_pages = (static_cast<int>(tokens.size()) + num_tokens) / WEBCOMPILE_PAGE_TOKENS + 1;
  std::vector<int> pages(num_pages);
  std::iota(pages.begin(), pages.end(), 0);
  const Tensor page_table = Upload(pages);
  const ffi::Array<Tensor> cache = MakeCache(num_pages);

  std::vector<float> logits(WEBCOMPILE_VOCAB_SIZE);
  for (int i = 0, position = 0; i < num_tokens; ++i) {
    // The whole prompt at first, in chunks that the model takes; then one token at a time.
    while (position < static_cast<int>(tokens.size())) {
      const int count = std::min(static_cast<int>(tokens.size()) - position, WEBCOMPILE_PREFILL_CHUNK_TOKENS);
      const std::vector<int> chunk(tokens.begin() + position, tokens.begin() + position + count);
      const auto& step = count == 1 ? decode : prefill;
      const auto out = step(Upload(chunk), Upload({position}), page_table, cache, params).cast<Tensor>();
      Download(out, logits);
      position += count;
    }
    tokens.push_back(static_cast<int>(std::max_element(logits.begin(), logits.end()) - logits.begin()));
    std::printf("%d%c", tokens.back(), i + 1 < num_tokens ? ' ' : '\n');
  }
  return 0;
}
