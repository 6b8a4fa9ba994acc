// TVM's tensor.cc writes tensors into JSON as base64. This runtime never does, so the two streams only say so.
#pragma once

#include <tvm/ffi/error.h>
#include <tvm/support/io.h>

namespace tvm {
namespace support {

class NoBase64Stream : public Stream {
 public:
  using Stream::Read;
  using Stream::Write;
  size_t Read(void*, size_t) final { Refuse(); }
  size_t Write(const void*, size_t) final { Refuse(); }

 private:
  [[noreturn]] static void Refuse() { TVM_FFI_THROW(NotImplementedError) << "tensors as JSON are not supported"; }
};

struct Base64InStream final : NoBase64Stream {
  explicit Base64InStream(Stream*) {}
  void InitPosition() {}
};

struct Base64OutStream final : NoBase64Stream {
  explicit Base64OutStream(Stream*) {}
  void Finish() {}
};

}  // namespace support
}  // namespace tvm
