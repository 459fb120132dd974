#include "tensorflow/core/sentinel/allocator.h"

#include "ffi/src/bridge.rs.h"
#include "tensorflow/core/platform/mem.h"

namespace sentinel {
namespace {

// A block of Sentinel's, or stock memory while there is no Sentinel or it has none left. Which of the two it was shows
// in the address.
void* Take(size_t alignment, size_t num_bytes) {
  void* block = allocate(alignment, num_bytes);
  return block != nullptr ? block : tensorflow::port::AlignedMalloc(num_bytes, static_cast<int>(alignment));
}

void Release(void* block) {
  if (block != nullptr && !release(static_cast<uint8_t*>(block))) {
    tensorflow::port::AlignedFree(block);
  }
}

class SentinelAllocator : public tensorflow::Allocator {
 public:
  tensorflow::string Name() override { return "sentinel"; }
  void* AllocateRaw(size_t alignment, size_t num_bytes) override { return Take(alignment, num_bytes); }
  void DeallocateRaw(void* block) override { Release(block); }
};

class SentinelEigenAllocator : public Eigen::Allocator {
 public:
  void* allocate(size_t num_bytes) const override {
    return Take(tensorflow::Allocator::kAllocatorAlignment, num_bytes);
  }
  void deallocate(void* block) const override { Release(block); }
};

class SentinelSubAllocator : public tensorflow::SubAllocator {
 public:
  SentinelSubAllocator() : SubAllocator({}, {}) {}
  void* Alloc(size_t alignment, size_t num_bytes) override { return Take(alignment, num_bytes); }
  void Free(void* block, size_t num_bytes) override { Release(block); }
};

class RegistryFactory : public tensorflow::AllocatorFactory {
 public:
  tensorflow::Allocator* CreateAllocator() override { return new SentinelAllocator; }
  tensorflow::SubAllocator* CreateSubAllocator(int numa_node) override { return new SentinelSubAllocator; }
};

}  // namespace

tensorflow::Allocator* DeviceAllocator() {
  static auto* const allocator = new SentinelAllocator;
  return allocator;
}

Eigen::Allocator* EigenAllocator() {
  static auto* const allocator = new SentinelEigenAllocator;
  return allocator;
}

tensorflow::AllocatorFactory* NewRegistryFactory() { return new RegistryFactory; }

}  // namespace sentinel
