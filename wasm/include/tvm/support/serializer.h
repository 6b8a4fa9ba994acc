// The format of TVM's module bytes: little-endian scalars, and containers as a 64-bit count followed by the elements.
// WebAssembly is little-endian too, so a scalar is its bytes in memory.
#pragma once

#include <tvm/ffi/container/array.h>
#include <tvm/ffi/container/map.h>
#include <tvm/ffi/string.h>
#include <tvm/support/io.h>

#include <string>
#include <type_traits>
#include <unordered_map>
#include <utility>
#include <vector>

namespace tvm {
namespace support {

template <typename T>
struct Serializer<T, std::enable_if_t<std::is_arithmetic_v<T> || std::is_enum_v<T>>> {
  static constexpr bool enabled = true;
  static bool Read(Stream* stream, T* value) { return stream->Read(value, sizeof(T)) == sizeof(T); }
  static void Write(Stream* stream, const T& value) { stream->Write(&value, sizeof(T)); }
};

template <>
struct Serializer<DLDataType> {
  static constexpr bool enabled = true;
  static bool Read(Stream* stream, DLDataType* value) {
    return stream->Read(&value->code) && stream->Read(&value->bits) && stream->Read(&value->lanes);
  }
  static void Write(Stream* stream, const DLDataType& value) {
    stream->Write(value.code);
    stream->Write(value.bits);
    stream->Write(value.lanes);
  }
};

template <>
struct Serializer<DLDevice> {
  static constexpr bool enabled = true;
  static bool Read(Stream* stream, DLDevice* value) {
    int32_t type = 0;
    if (!stream->Read(&type) || !stream->Read(&value->device_id)) return false;
    value->device_type = static_cast<DLDeviceType>(type);
    return true;
  }
  static void Write(Stream* stream, const DLDevice& value) {
    stream->Write(static_cast<int32_t>(value.device_type));
    stream->Write(value.device_id);
  }
};

template <>
struct Serializer<std::string> {
  static constexpr bool enabled = true;
  static bool Read(Stream* stream, std::string* value) {
    uint64_t size = 0;
    if (!stream->Read(&size)) return false;
    value->resize(static_cast<size_t>(size));
    return stream->Read(value->data(), value->size()) == value->size();
  }
  static void Write(Stream* stream, const std::string& value) {
    stream->Write(static_cast<uint64_t>(value.size()));
    stream->Write(value.data(), value.size());
  }
};

template <>
struct Serializer<ffi::String> {
  static constexpr bool enabled = true;
  static bool Read(Stream* stream, ffi::String* value) {
    std::string text;
    if (!stream->Read(&text)) return false;
    *value = ffi::String(std::move(text));
    return true;
  }
  static void Write(Stream* stream, const ffi::String& value) { stream->Write(std::string(value)); }
};

template <typename T>
struct Serializer<std::vector<T>> {
  static constexpr bool enabled = true;
  static bool Read(Stream* stream, std::vector<T>* value) {
    uint64_t size = 0;
    if (!stream->Read(&size)) return false;
    value->resize(static_cast<size_t>(size));
    return stream->ReadArray(value->data(), value->size());
  }
  static void Write(Stream* stream, const std::vector<T>& value) {
    stream->Write(static_cast<uint64_t>(value.size()));
    stream->WriteArray(value.data(), value.size());
  }
};

template <typename T>
struct Serializer<ffi::Array<T>> {
  static constexpr bool enabled = true;
  static bool Read(Stream* stream, ffi::Array<T>* value) {
    std::vector<T> items;
    if (!stream->Read(&items)) return false;
    *value = ffi::Array<T>(items.begin(), items.end());
    return true;
  }
  static void Write(Stream* stream, const ffi::Array<T>& value) {
    stream->Write(std::vector<T>(value.begin(), value.end()));
  }
};

template <typename K, typename V>
struct Serializer<std::unordered_map<K, V>> {
  static constexpr bool enabled = true;
  static bool Read(Stream* stream, std::unordered_map<K, V>* value) {
    uint64_t size = 0;
    if (!stream->Read(&size)) return false;
    value->clear();
    for (uint64_t i = 0; i < size; ++i) {
      K key;
      if (!stream->Read(&key) || !stream->Read(&(*value)[key])) return false;
    }
    return true;
  }
  static void Write(Stream* stream, const std::unordered_map<K, V>& value) {
    stream->Write(static_cast<uint64_t>(value.size()));
    for (const auto& [key, item] : value) {
      stream->Write(key);
      stream->Write(item);
    }
  }
};

template <typename K, typename V>
struct Serializer<ffi::Map<K, V>> {
  static constexpr bool enabled = true;
  static bool Read(Stream* stream, ffi::Map<K, V>* value) {
    uint64_t size = 0;
    if (!stream->Read(&size)) return false;
    *value = ffi::Map<K, V>();
    for (uint64_t i = 0; i < size; ++i) {
      K key;
      V item{ffi::UnsafeInit()};
      if (!stream->Read(&key) || !stream->Read(&item)) return false;
      value->Set(key, item);
    }
    return true;
  }
  static void Write(Stream* stream, const ffi::Map<K, V>& value) {
    stream->Write(static_cast<uint64_t>(value.size()));
    for (const auto& [key, item] : value) {
      stream->Write(key);
      stream->Write(item);
    }
  }
};

}  // namespace support
}  // namespace tvm
