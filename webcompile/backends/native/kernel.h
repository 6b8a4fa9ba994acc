// Kernels as TVM writes them into a library: what they take, how they are launched, and their source.
#pragma once
#include <tvm/ffi/container/map.h>
#include <tvm/ffi/error.h>

#include <cstdint>
#include <cstring>
#include <map>
#include <string>
#include <vector>

namespace webcompile {

/** Throws an error whose kind is a code of webcompile/errors.py; Python makes it one of ours. */
[[noreturn]] inline void fail(const char* code, const std::string& message) { throw tvm::ffi::Error(code, message, ""); }

/** A kernel's interface. Its arguments are followed by one integer for each launch slot. */
struct Kernel {
  std::string name;
  std::vector<DLDataType> types;
  /** Where launch integers go: 0, 1, 2 are the grid's x, y, z, and 3, 4, 5 those of a workgroup. */
  std::vector<int> launch;
  /** By buffer argument, where the target says it (WGSL does). */
  std::vector<bool> writes;

  static bool is_buffer(DLDataType type) { return type.code == kDLOpaqueHandle; }
};

/** Reads TVM's serialized device modules: little-endian numbers, strings and lists with 64-bit lengths in front. */
class Reader {
 public:
  Reader(const char* data, size_t nbytes) : at_(data), end_(data + nbytes) {}

  std::string text() {
    size_t nbytes = length();
    need(nbytes);
    at_ += nbytes;
    return {at_ - nbytes, nbytes};
  }

  std::map<std::string, std::string> texts() {
    std::map<std::string, std::string> all;
    for (size_t n = length(); n; --n) {
      std::string key = text();
      all[key] = text();
    }
    return all;
  }

  std::map<std::string, Kernel> kernels() {
    std::map<std::string, Kernel> all;
    for (size_t n = length(); n; --n) {
      std::string key = text();
      all[key] = kernel();
    }
    return all;
  }

 private:
  template <typename T>
  T number() {
    need(sizeof(T));
    T value;
    std::memcpy(&value, at_, sizeof(T));
    at_ += sizeof(T);
    return value;
  }
  size_t length() { return number<uint64_t>(); }
  void need(size_t nbytes) {
    if (size_t(end_ - at_) < nbytes) fail("artifact_invalid", "the library's kernels are cut off");
  }

  Kernel kernel() {
    Kernel made{text(), {}, {}, {}};
    for (size_t n = length(); n; --n) {
      auto code = number<uint8_t>(), bits = number<uint8_t>();
      made.types.push_back({code, bits, number<uint16_t>()});
    }
    for (size_t n = length(); n; --n) tag(text(), &made);
    for (size_t n = length(); n; --n) number<int32_t>();  // for tensor maps, which these devices lack
    return made;
  }

  static void tag(const std::string& name, Kernel* kernel) {
    static const std::string writes = "paramWriteAccess:";
    if (name.compare(0, writes.size(), writes) == 0) {
      for (char flag : name.substr(writes.size()))
        if (flag == '0' || flag == '1') kernel->writes.push_back(flag == '1');
    } else if (name.compare(0, 9, "blockIdx.") == 0) {
      kernel->launch.push_back(name.back() - 'x');
    } else if (name.compare(0, 10, "threadIdx.") == 0) {
      kernel->launch.push_back(3 + name.back() - 'x');
    } else {
      fail("artifact_invalid", "kernel " + kernel->name + " is launched by " + name + ", which is unknown");
    }
  }

  const char* at_;
  const char* end_;
};

}  // namespace webcompile
