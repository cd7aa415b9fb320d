#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "gatefold/internal/v1/attention.pb.h"
#include "gatefold/internal/v1/expert.pb.h"

namespace gatefold {

// One attention- or expert-service as last described by itself.
struct WorkerEntry {
  enum class State { kUnreachable, kMismatch, kLoading, kReady, kDraining };
  std::string address;
  State state = State::kUnreachable;
  std::string detail;  // why it does not serve
  bool twin = false;   // a mismatch: another entry, which serves, is the same process
  bool gone = false;   // nothing names it any more and it cannot be reached: a pod that ended
  internal::v1::WorkerDescription worker;
  internal::v1::ExpertShard shard;                           // of an expert-service
  internal::v1::AttentionServiceDescribeResponse attention;  // of an attention-service

  // Answers, and nothing says that it must not serve.
  bool in_use() const { return state != State::kUnreachable && state != State::kMismatch; }

  // For people.
  const std::string& name() const { return worker.name().empty() ? address : worker.name(); }
};

const char* WorkerStateName(WorkerEntry::State state);

inline constexpr int kMaxWorkers = 255;  // of a kind

// Who serves what, at one moment: the union of what the workers say. Immutable once it is handed
// out. A worker keeps its index while it lives; the index of one that is long gone may be another's
// one day, at another address.
struct RoutingTable {
  uint64_t version = 0;  // counts up with every change but of how full attention-services are
  std::vector<WorkerEntry> experts;
  std::vector<WorkerEntry> attention;
  // [layer * experts_per_layer + expert]: indices of the shards that announce it and are ready;
  // draining ones only where no other holds it.
  std::vector<std::vector<int>> holders;
  std::vector<int> last_holders;  // the same; of those that nobody holds, who did last; -1: nobody
  int experts_per_layer = 0;
  bool mixed_numerics = false;  // shards of different numerics classes are among the holders

  size_t IndexOf(int layer, int expert) const {
    return static_cast<size_t>(layer) * experts_per_layer + expert;
  }
  const std::vector<int>& HoldersOf(int layer, int expert) const {
    return holders[IndexOf(layer, expert)];
  }
  int LastHolderOf(int layer, int expert) const { return last_holders[IndexOf(layer, expert)]; }

  double CoverageRatio() const;
  // Experts without a live shard, as --experts writes them: "0:3,2:0-7"; of many ranges the first
  // ones, and how many more there are. Empty: none.
  std::string Uncovered() const;
  // Finds the holders anew, from what the shards say. `n_layers`: of the model.
  void FindHolders(int n_layers);
};

}  // namespace gatefold
