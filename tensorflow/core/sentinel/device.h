// The CPU device under Sentinel: our memory for tensors and for Eigen's temporaries, and a word to Rust around each
// kernel.
#ifndef TENSORFLOW_CORE_SENTINEL_DEVICE_H_
#define TENSORFLOW_CORE_SENTINEL_DEVICE_H_

#include "tensorflow/core/common_runtime/device_factory.h"

namespace sentinel {

// Makes CPU devices: Sentinel's for sessions that ask for it, and for the others what stock TensorFlow makes.
tensorflow::DeviceFactory* NewDeviceFactory();

// The name under which Sentinel's executor is registered and chosen.
extern const char kExecutorType[];

}  // namespace sentinel

#endif  // TENSORFLOW_CORE_SENTINEL_DEVICE_H_
