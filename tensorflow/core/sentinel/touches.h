// Which buffers a kernel reads and writes, by address and size.
#ifndef TENSORFLOW_CORE_SENTINEL_TOUCHES_H_
#define TENSORFLOW_CORE_SENTINEL_TOUCHES_H_

#include <vector>

#include "ffi/src/bridge.rs.h"
#include "tensorflow/core/framework/op_kernel.h"

namespace sentinel {

using Touches = std::vector<Touch>;

// What a kernel's type says of the bytes that it touches.
enum class KernelKind { kReadsAll, kTouchesNothing, kReadsPart };

// Notes the kind of the kernel that has this number from now on. To be called before KindOf of the same number.
void NoteKind(const tensorflow::OpKernel& kernel, uint32_t number);

// The kind of a kernel, from its number where that was noted.
KernelKind KindOf(const tensorflow::OpKernel& kernel, uint32_t number);

// Appends what the kernel is about to read, and what it is about to update in place. Takes addresses only: a copy of a
// Tensor that lives across Compute would keep TensorFlow from forwarding its buffer.
void AppendInputs(tensorflow::OpKernelContext* context, KernelKind kind, Touches* touches);

// Appends what the kernel has written.
void AppendOutputs(tensorflow::OpKernelContext* context, KernelKind kind, Touches* touches);

// A kernel that reads only a part of its first input reads as much as it returns.
void LimitReads(KernelKind kind, const Touches& outputs, Touches* inputs);

inline rust::Slice<const Touch> AsSlice(const Touches& touches) { return {touches.data(), touches.size()}; }

}  // namespace sentinel

#endif  // TENSORFLOW_CORE_SENTINEL_TOUCHES_H_
