// The operations behind tf.sentinel.start_profile, end_profile and add_layer.
#ifndef TENSORFLOW_CORE_SENTINEL_MARKER_OPS_H_
#define TENSORFLOW_CORE_SENTINEL_MARKER_OPS_H_

namespace sentinel {

// Registers the operations and their kernels. Call once, before any graph is built.
void RegisterMarkerOps();

}  // namespace sentinel

#endif  // TENSORFLOW_CORE_SENTINEL_MARKER_OPS_H_
