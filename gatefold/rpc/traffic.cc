#include "gatefold/rpc/traffic.h"

#include <algorithm>

namespace gatefold {

std::shared_ptr<PeerTraffic> TrafficTable::Of(const std::string& address) {
  absl::MutexLock lock(&mu_);
  absl::erase_if(peers_, [](const auto& peer) { return peer.second.expired(); });
  std::weak_ptr<PeerTraffic>& known = peers_[address];
  std::shared_ptr<PeerTraffic> traffic = known.lock();
  if (traffic == nullptr) {
    traffic = std::make_shared<PeerTraffic>();
    known = traffic;
  }
  return traffic;
}

TrafficTable::Peers TrafficTable::All() const {
  Peers peers;
  {
    absl::MutexLock lock(&mu_);
    for (const auto& [address, known] : peers_) {
      if (auto traffic = known.lock()) peers.emplace_back(address, std::move(traffic));
    }
  }
  std::sort(peers.begin(), peers.end());
  return peers;
}

void TrafficTable::ObserveAttempts(AttemptObserver observer) {
  absl::MutexLock lock(&mu_);
  observer_ = std::move(observer);
}

void TrafficTable::OnAttempt(absl::string_view method, absl::StatusCode code, absl::Duration time) {
  absl::MutexLock lock(&mu_);  // streams end rarely
  if (observer_) observer_(method, code, time);
}

}  // namespace gatefold
