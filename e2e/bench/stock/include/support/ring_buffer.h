// A queue of bytes, for TVM's RPC. The wheel ships the users of this header, not the header.
#pragma once

#include <tvm/ffi/error.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <vector>

namespace tvm {
namespace support {

class RingBuffer {
 public:
  size_t bytes_available() const { return bytes_.size(); }
  void Reserve(size_t nbytes) { bytes_.reserve(nbytes); }

  void Read(void* target, size_t nbytes) {
    TVM_FFI_ICHECK(nbytes <= bytes_.size());
    std::memcpy(target, bytes_.data(), nbytes);
    Drop(nbytes);
  }
  void Write(const void* source, size_t nbytes) {
    const char* begin = static_cast<const char*>(source);
    bytes_.insert(bytes_.end(), begin, begin + nbytes);
  }
  // The callbacks return how many bytes they took or gave.
  template <typename Send>
  size_t ReadWithCallback(Send send, size_t max_nbytes) {
    size_t taken = send(bytes_.data(), std::min(max_nbytes, bytes_.size()));
    Drop(taken);
    return taken;
  }
  template <typename Receive>
  size_t WriteWithCallback(Receive receive, size_t max_nbytes) {
    size_t before = bytes_.size();
    bytes_.resize(before + max_nbytes);
    size_t given = receive(bytes_.data() + before, max_nbytes);
    bytes_.resize(before + given);
    return given;
  }

 private:
  void Drop(size_t nbytes) { bytes_.erase(bytes_.begin(), bytes_.begin() + static_cast<std::ptrdiff_t>(nbytes)); }

  std::vector<char> bytes_;
};

}  // namespace support
}  // namespace tvm
