// Takes Sentinel's place in TensorFlow's registries when the library is loaded.
//
// Device and executor may be registered at any time. The process-wide allocator may not: once TensorFlow has handed it
// out, registering another one aborts the process. So that happens only in the early load, from the wheel's import.

#define EIGEN_USE_THREADS
#include <cstdlib>
#include <cstring>
#include <string>

#include "ffi/src/bridge.rs.h"
#include "tensorflow/core/common_runtime/device_factory.h"
#include "tensorflow/core/common_runtime/executor_factory.h"
#include "tensorflow/core/framework/allocator_registry.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/public/version.h"
#include "tensorflow/core/sentinel/allocator.h"
#include "tensorflow/core/sentinel/device.h"
#include "tensorflow/core/sentinel/executor.h"
#include "tensorflow/core/sentinel/marker_ops.h"
#include "tensorflow/core/util/port.h"

namespace sentinel {
namespace {

constexpr int kDevicePriority = 65;  // stock CPU devices have 60
constexpr int kAllocatorPriority = 1000;
// Of v1.13.1; the official wheels say v1.13.0-rc2-5-g6612da8 or v1.13.1-0-g6612da8951.
constexpr char kWantedCommit[] = "g6612da8";

// Why this library must not take part in this process; null when it may.
const char* Objection() {
  static std::string text;
  const char* version = tf_git_version();
  if (std::strstr(version, kWantedCommit) == nullptr) {
    text = std::string("this TensorFlow is ") + version + "; accepted is the official TensorFlow 1.13.1 (commit " +
           kWantedCommit + ")";
    return text.c_str();
  }
  if (tensorflow::IsMklEnabled()) return "this TensorFlow is an MKL build; accepted is the official tensorflow 1.13.1";
  if (tensorflow::DeviceFactory::GetFactory("GPU") != nullptr) {
    return "this TensorFlow is a GPU build; accepted is the official tensorflow 1.13.1 for CPUs";
  }
  tensorflow::ExecutorFactory* other = nullptr;
  if (tensorflow::ExecutorFactory::GetFactory(kExecutorType, &other).ok()) {
    return "a copy of libsentinel.so is loaded already; accepted is one copy in a process";
  }
  return nullptr;
}

// A registration that fails is how a library tells the loader why it cannot be loaded.
void Refuse(const tensorflow::string& reason) {
  tensorflow::OpRegistry::Global()->Register([reason](tensorflow::OpRegistrationData*) -> tensorflow::Status {
    return tensorflow::errors::FailedPrecondition(reason);
  });
}

struct Plugin {
  Plugin() {
    if (const char* objection = Objection()) {
      Refuse(tensorflow::strings::StrCat("sentinel: not loaded: ", objection));
      return;
    }
    const char* early = std::getenv("SENTINEL_EARLY_LOAD");
    if (early != nullptr && std::strcmp(early, "1") == 0) {
      tensorflow::AllocatorFactoryRegistry::singleton()->Register(__FILE__, __LINE__, "Sentinel", kAllocatorPriority,
                                                                  NewRegistryFactory());
    }
    tensorflow::DeviceFactory::Register("CPU", NewDeviceFactory(), kDevicePriority);
    tensorflow::ExecutorFactory::Register(kExecutorType, NewExecutorFactory());
    RegisterMarkerOps();
    library_loaded();
  }
};

const Plugin plugin;

}  // namespace
}  // namespace sentinel
