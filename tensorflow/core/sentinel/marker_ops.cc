#define EIGEN_USE_THREADS
#include "tensorflow/core/sentinel/marker_ops.h"

#include "ffi/src/bridge.rs.h"
#include "tensorflow/core/framework/common_shape_fns.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/op_kernel.h"

namespace sentinel {
namespace {

using tensorflow::OpKernel;
using tensorflow::OpKernelConstruction;
using tensorflow::OpKernelContext;

template <bool wanted>
class ProfileOp : public OpKernel {
 public:
  explicit ProfileOp(OpKernelConstruction* construction) : OpKernel(construction) {}
  void Compute(OpKernelContext* context) override { ask_profile(wanted); }
};

// An identity: that it ran is all it says, and the recorder sees that like any other operation.
class AddLayerOp : public OpKernel {
 public:
  explicit AddLayerOp(OpKernelConstruction* construction) : OpKernel(construction) {}
  void Compute(OpKernelContext* context) override { context->set_output(0, context->input(0)); }
  bool IsExpensive() override { return false; }
};

template <typename Kernel>
void RegisterKernel(const char* op, const char* class_name) {
  new tensorflow::kernel_factory::OpKernelRegistrar(
      tensorflow::register_kernel::Name(op).Device(tensorflow::DEVICE_CPU).Build(), class_name,
      [](OpKernelConstruction* construction) -> OpKernel* { return new Kernel(construction); });
}

void RegisterOp(const tensorflow::OpDefBuilder& builder) {
  tensorflow::OpRegistry::Global()->Register(
      [builder](tensorflow::OpRegistrationData* data) { return builder.Finalize(data); });
}

}  // namespace

void RegisterMarkerOps() {
  // Stateful, or grappler would fold and merge them.
  RegisterOp(tensorflow::OpDefBuilder("SentinelStartProfile")
                 .SetIsStateful()
                 .SetShapeFn(tensorflow::shape_inference::NoOutputs)
                 .Doc("Profiles the next step of a graph of some size, without further warm-up, and plans it anew."));
  RegisterOp(tensorflow::OpDefBuilder("SentinelEndProfile")
                 .SetIsStateful()
                 .SetShapeFn(tensorflow::shape_inference::NoOutputs)
                 .Doc("Takes back SentinelStartProfile."));
  RegisterOp(tensorflow::OpDefBuilder("SentinelAddLayer")
                 .Input("x: T")
                 .Output("y: T")
                 .Attr("T: type")
                 .Attr("backward: bool = false")
                 .SetIsStateful()
                 .SetShapeFn(tensorflow::shape_inference::UnchangedShape)
                 .Doc("Passes x on. What runs after it belongs to the next layer."));
  RegisterKernel<ProfileOp<true>>("SentinelStartProfile", "ProfileOp");
  RegisterKernel<ProfileOp<false>>("SentinelEndProfile", "ProfileOp");
  RegisterKernel<AddLayerOp>("SentinelAddLayer", "AddLayerOp");
}

}  // namespace sentinel
