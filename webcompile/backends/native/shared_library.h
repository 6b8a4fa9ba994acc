// A driver's library, opened when it is needed: the plugin itself links against none.
#pragma once
#include <string>

#include "kernel.h"
#ifdef _WIN32
#include <windows.h>
#else
#include <dlfcn.h>
#endif

namespace webcompile {

class SharedLibrary {
 public:
  /** Throws driver_missing if it is not there. */
  explicit SharedLibrary(const std::string& path) : path_(path) {
#ifdef _WIN32
    handle_ = reinterpret_cast<void*>(LoadLibraryA(path.c_str()));
    std::string reason = "error " + std::to_string(GetLastError());
#else
    handle_ = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    const char* error = handle_ ? nullptr : dlerror();
    std::string reason = error ? error : "";
#endif
    if (!handle_) fail("driver_missing", path + " cannot be opened: " + reason);
  }

  /** Sets `function` to the one of that name. */
  template <class Pointer>
  void find(const char* name, Pointer* function) const {
#ifdef _WIN32
    void* found = reinterpret_cast<void*>(GetProcAddress(static_cast<HMODULE>(handle_), name));
#else
    void* found = dlsym(handle_, name);
#endif
    if (!found) fail("driver_missing", path_ + " has no function " + name);
    *function = reinterpret_cast<Pointer>(found);
  }

 private:
  std::string path_;
  void* handle_;
};

}  // namespace webcompile
