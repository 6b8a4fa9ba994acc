// Streams over memory. TVM's sources find this file as "../support/bytes_io.h", through the include path.
#pragma once

#include <tvm/ffi/string.h>
#include <tvm/support/io.h>

#include <algorithm>
#include <cstring>
#include <string>

namespace tvm {
namespace support {

// Reads from bytes that outlive the stream.
class BytesInStream final : public Stream {
 public:
  BytesInStream(const char* data, size_t nbytes) : data_(data), left_(nbytes) {}
  explicit BytesInStream(const std::string& bytes) : BytesInStream(bytes.data(), bytes.size()) {}
  explicit BytesInStream(const ffi::Bytes& bytes) : BytesInStream(bytes.data(), bytes.size()) {}

  using Stream::Read;
  using Stream::Write;
  size_t Read(void* target, size_t nbytes) final {
    nbytes = std::min(nbytes, left_);
    if (nbytes != 0) std::memcpy(target, data_, nbytes);
    data_ += nbytes;
    left_ -= nbytes;
    return nbytes;
  }
  size_t Write(const void*, size_t) final { return 0; }

 private:
  const char* data_;
  size_t left_;
};

// Appends to a string that outlives the stream.
class BytesOutStream final : public Stream {
 public:
  explicit BytesOutStream(std::string* target) : target_(target) {}

  using Stream::Read;
  using Stream::Write;
  size_t Read(void*, size_t) final { return 0; }
  size_t Write(const void* source, size_t nbytes) final {
    target_->append(static_cast<const char*>(source), nbytes);
    return nbytes;
  }

 private:
  std::string* target_;
};

}  // namespace support
}  // namespace tvm
