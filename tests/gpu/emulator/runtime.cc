// The CUDA runtime of an emulated device: a Hopper of few multiprocessors.

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <vector>

#include "cuda_runtime_api.h"
#include "tests/gpu/emulator/device.h"
#include "tests/gpu/emulator/queue.h"

struct EmulatedStream {};
struct EmulatedEvent {
  using Time = std::chrono::steady_clock::time_point;
  uint64_t number = 0;         // of the work it waits for
  std::shared_ptr<Time> time;  // when that had happened
};

namespace gatefold::cuda::emulator {
namespace {

// GATEFOLD_EMULATOR_MEMORY: bytes, which a test may change at any time; else 8 GiB.
size_t MemoryBytes() {
  const char* const bytes = std::getenv("GATEFOLD_EMULATOR_MEMORY");
  return bytes == nullptr ? size_t{8} << 30 : std::strtoull(bytes, nullptr, 10);
}
constexpr int kMultiprocessors = 2;  // so that workers take several pieces of work each

// Whose memory: the host's may always be touched.
enum class Side { kHost, kDevice };

struct Mapping {
  char* begin;
  size_t mapped, asked;
  Side side;
};

class Memory {
 public:
  char* Map(size_t bytes, size_t align, Side side) {
    const size_t page = PageBytes();
    const size_t rounded = (bytes + align - 1) / align * align;
    const size_t mapped = (rounded + page - 1) / page * page + 2 * page;
    char* const begin = static_cast<char*>(
        mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (begin == MAP_FAILED || mprotect(begin, page, PROT_NONE) != 0 ||
        mprotect(begin + mapped - page, page, PROT_NONE) != 0) {
      Fail("no memory is left");
    }
    char* const data = begin + mapped - page - rounded;
    std::memset(begin + page, 0xFF, mapped - 2 * page);  // NaN until it is written
    const std::lock_guard lock(mutex_);
    mappings_[data] = {begin, mapped, bytes, side};
    used_ += mapped;
    if (side == Side::kDevice && device_key_ >= 0 &&
        pkey_mprotect(begin + page, mapped - 2 * page, PROT_READ | PROT_WRITE, device_key_) != 0) {
      Fail("memory cannot be protected");
    }
    return data;
  }

  // Of this thread.
  void Allow(bool access) const {
    if (device_key_ >= 0) pkey_set(device_key_, access ? 0 : PKEY_DISABLE_ACCESS);
  }

  bool Unmap(char* data) {
    const std::lock_guard lock(mutex_);
    const auto found = mappings_.find(data);
    if (found == mappings_.end()) return false;
    const Mapping& mapping = found->second;
    const DeviceAccess access;
    const size_t page = PageBytes();
    const char* const end = mapping.begin + mapping.mapped - page;
    const auto is_untouched = [](char byte) { return byte == '\xFF'; };
    if (!std::all_of(data + mapping.asked, const_cast<char*>(end), is_untouched) ||
        !std::all_of(mapping.begin + page, data, is_untouched)) {
      Fail("memory beside an allocation was written");
    }
    used_ -= mapping.mapped;
    munmap(mapping.begin, mapping.mapped);
    mappings_.erase(found);
    return true;
  }

  size_t used() {
    const std::lock_guard lock(mutex_);
    return used_;
  }

  cudaMemoryType TypeOf(const void* pointer) {
    const std::lock_guard lock(mutex_);
    const char* const at = static_cast<const char*>(pointer);
    auto next = mappings_.upper_bound(const_cast<char*>(at));
    if (next == mappings_.begin()) return cudaMemoryTypeUnregistered;
    const auto& [data, mapping] = *--next;
    if (at >= data + mapping.asked) return cudaMemoryTypeUnregistered;
    return mapping.side == Side::kHost ? cudaMemoryTypeHost : cudaMemoryTypeDevice;
  }

 private:
  static size_t PageBytes() { return static_cast<size_t>(sysconf(_SC_PAGESIZE)); }

  // Of the device's memory, and only kernels and copies have it. Negative: this processor has no
  // memory protection keys, and whoever touches the wrong side is not seen.
  const int device_key_ = pkey_alloc(0, PKEY_DISABLE_ACCESS);

  std::mutex mutex_;
  std::map<char*, Mapping> mappings_;
  size_t used_ = 0;
};

Memory& TheMemory() {
  static Memory* const memory = new Memory;
  return *memory;
}

size_t FreeBytes() { return MemoryBytes() - std::min(MemoryBytes(), TheMemory().used()); }

constexpr size_t kCodeBytes = 64 << 10;  // must be free for a new kernel, which takes none of it

}  // namespace

bool Load(const void* kernel) {
  static std::mutex mutex;
  static auto* const loaded = new std::set<const void*>;
  const std::lock_guard lock(mutex);
  if (loaded->contains(kernel)) return true;
  if (FreeBytes() < kCodeBytes) return false;
  loaded->insert(kernel);
  return true;
}

// What a device's copies brought for pinned memory: there when somebody waits, and not before.
class Deliveries {
 public:
  void Add(void* to, const void* from, size_t bytes) {
    const auto* const first = static_cast<const char*>(from);
    const std::lock_guard lock(mutex_);
    waiting_.push_back({to, std::vector<char>(first, first + bytes)});
  }
  void Bring() {
    const std::lock_guard lock(mutex_);
    for (const Delivery& delivery : waiting_) {
      std::memcpy(delivery.to, delivery.bytes.data(), delivery.bytes.size());
    }
    waiting_.clear();
  }

 private:
  struct Delivery {
    void* to;
    std::vector<char> bytes;
  };
  std::mutex mutex_;
  std::vector<Delivery> waiting_;
};

Deliveries& TheDeliveries() {
  static Deliveries* const deliveries = new Deliveries;
  return *deliveries;
}

cudaError_t DeviceError() { return IsLost() ? cudaErrorIllegalAddress : cudaSuccess; }

// What the runtime's calls do that wait for the device.
template <typename Wait>
cudaError_t Await(Wait wait) {
  if (!IsLost()) {
    const DeviceAccess access;
    wait();
    TheDeliveries().Bring();
  }
  return DeviceError();
}
cudaError_t Await() {
  return Await([] { Queue::Get().AwaitAll(); });
}
cudaError_t AwaitStream(cudaStream_t stream) {
  return Await([&] { Queue::Get().AwaitStream(stream); });
}

// Of a stream. Other kernels may not be over when it happens, these are.
void Add(cudaStream_t stream, std::function<void()> work) {
  if (IsLost()) return;
  Queue::Get().Add(stream, [work = std::move(work)] {
    const DeviceAccess access;
    Device::Get().Finish();
    work();
  });
}

char* MapGuarded(size_t bytes, size_t align) { return TheMemory().Map(bytes, align, Side::kHost); }
void UnmapGuarded(char* data) { TheMemory().Unmap(data); }

thread_local int n_accesses = 0;

DeviceAccess::DeviceAccess() {
  if (n_accesses++ == 0) TheMemory().Allow(true);
}
DeviceAccess::~DeviceAccess() {
  if (--n_accesses == 0) TheMemory().Allow(false);
}

cudaError_t Allocate(void** data, size_t bytes, Side side) {
  *data = nullptr;
  if (bytes == 0 || IsLost()) return DeviceError();
  if (bytes > FreeBytes()) {
    return cudaErrorMemoryAllocation;
  }
  // A device aligns to 256; what nobody relies on would hide who reads a little too far.
  *data = TheMemory().Map(bytes, 16, side);
  return cudaSuccess;
}

}  // namespace gatefold::cuda::emulator

using gatefold::cuda::emulator::Add;
using gatefold::cuda::emulator::Allocate;
using gatefold::cuda::emulator::Await;
using gatefold::cuda::emulator::AwaitStream;
using gatefold::cuda::emulator::DeviceAccess;
using gatefold::cuda::emulator::DeviceError;
using gatefold::cuda::emulator::Fail;
using gatefold::cuda::emulator::FreeBytes;
using gatefold::cuda::emulator::kMultiprocessors;
using gatefold::cuda::emulator::MemoryBytes;
using gatefold::cuda::emulator::Queue;
using gatefold::cuda::emulator::Side;
using gatefold::cuda::emulator::TheDeliveries;
using gatefold::cuda::emulator::TheMemory;

cudaError_t cudaDriverGetVersion(int* version) {
  *version = 1;
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) { return cudaDriverGetVersion(version); }
cudaError_t cudaGetDeviceCount(int* n) {
  *n = 1;
  return cudaSuccess;
}
cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) { return device == 0 ? cudaSuccess : cudaErrorInvalidValue; }

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  if (device != 0) return cudaErrorInvalidValue;
  *properties = {};
  std::snprintf(properties->name, sizeof(properties->name), "emulated device");
  properties->major = 9;
  properties->multiProcessorCount = kMultiprocessors;
  properties->totalGlobalMem = MemoryBytes();
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  if (device != 0) return cudaErrorInvalidValue;
  *value = attribute == cudaDevAttrComputeCapabilityMajor ? 9 : kMultiprocessors;
  return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  *total = MemoryBytes();
  *free = FreeBytes();
  return cudaSuccess;
}

cudaError_t cudaGetLastError() { return cudaSuccess; }

const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "no error";
    case cudaErrorInvalidValue:
      return "invalid argument";
    case cudaErrorMemoryAllocation:
      return "out of memory";
    case cudaErrorNoKernelImageForDevice:
      return "no kernel image is available for execution on the device";
    case cudaErrorLaunchOutOfResources:
      return "too many resources requested for launch";
    case cudaErrorIllegalAddress:
      return "an illegal memory access was encountered";
    case cudaErrorInsufficientDriver:
      return "CUDA driver version is insufficient for CUDA runtime version";
  }
  return "unknown error";
}

cudaError_t cudaMalloc(void** data, size_t bytes) { return Allocate(data, bytes, Side::kDevice); }
cudaError_t cudaFree(void* data) {
  if (data == nullptr) return cudaSuccess;
  Await();
  return TheMemory().Unmap(static_cast<char*>(data)) ? cudaSuccess : cudaErrorInvalidValue;
}
cudaError_t cudaMallocHost(void** data, size_t bytes) { return Allocate(data, bytes, Side::kHost); }
cudaError_t cudaFreeHost(void* data) { return cudaFree(data); }
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* pointer) {
  attributes->type = TheMemory().TypeOf(pointer);
  return cudaSuccess;
}

cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind) {
  AwaitStream(nullptr);
  const DeviceAccess access;
  if (bytes > 0) std::memcpy(to, from, bytes);
  return DeviceError();
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  if (kind == cudaMemcpyDeviceToHost && TheMemory().TypeOf(to) != cudaMemoryTypeHost) {
    AwaitStream(stream);
    return cudaMemcpy(to, from, bytes, kind);
  }
  Add(stream, [=] {
    if (kind == cudaMemcpyDeviceToHost) {
      TheDeliveries().Add(to, from, bytes);
    } else {
      TheDeliveries().Bring();  // in the order of the stream: `from` may be what is awaited
      if (bytes > 0) std::memcpy(to, from, bytes);
    }
  });
  return DeviceError();
}
cudaError_t cudaMemset(void* data, int byte, size_t bytes) {
  return cudaMemsetAsync(data, byte, bytes, nullptr);
}
cudaError_t cudaMemsetAsync(void* data, int byte, size_t bytes, cudaStream_t stream) {
  Add(stream, [=] {
    if (bytes > 0) std::memset(data, byte, bytes);
  });
  return DeviceError();
}

cudaError_t cudaDeviceSynchronize() { return Await(); }
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = new EmulatedStream;
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  delete stream;
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) { return AwaitStream(stream); }

cudaError_t cudaEventCreate(cudaEvent_t* event) {
  *event = new EmulatedEvent;
  return cudaSuccess;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  return cudaEventCreate(event);
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  const auto time = event->time = std::make_shared<EmulatedEvent::Time>();
  if (!gatefold::cuda::emulator::IsLost()) {
    Queue::Get().Add(stream, [time] { *time = std::chrono::steady_clock::now(); });
  }
  event->number = Queue::Get().number();
  return DeviceError();
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  return Await([&] { Queue::Get().Await(event->number); });
}
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t stop) {
  for (const cudaEvent_t event : {start, stop}) {
    if (event->time == nullptr || *event->time == EmulatedEvent::Time())
      Fail("an event that nobody waited for");
  }
  *milliseconds = std::chrono::duration<float, std::milli>(*stop->time - *start->time).count();
  return cudaSuccess;
}
