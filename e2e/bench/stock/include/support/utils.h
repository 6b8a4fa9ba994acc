// The one text function that TVM's runtime uses of a header that the wheel does not ship.
#pragma once

#include <cstring>
#include <string>

namespace tvm {
namespace support {

inline bool StartsWith(const std::string& text, const char* prefix) { return text.rfind(prefix, 0) == 0; }

}  // namespace support
}  // namespace tvm
