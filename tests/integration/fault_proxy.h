#pragma once

#include <atomic>
#include <deque>
#include <list>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace gatefold {

// Stands between a router and a shard, on unix sockets, and does to their connections what networks
// and faulty machines do. Owns a thread. Threads: safe.
class FaultProxy {
 public:
  enum class Mode {
    kForward,
    kSilent,       // as a cut network: connections stay open and nothing passes
    kSilentCalls,  // only those that carry calls now; new ones, and descriptions, pass
    kCut,          // connections are closed, and new ones too
    kHalfCut,      // those that there are now are closed, and only the router knows; new ones pass
    kLie,          // one bit of the answers to calls is flipped
  };

  static absl::StatusOr<std::unique_ptr<FaultProxy>> Start(const std::string& listen_path,
                                                           const std::string& target_path);
  ~FaultProxy();

  void SetMode(Mode mode) {
    mode_ = mode;
    ++n_modes_;
  }
  // What the shard says arrives so much later.
  void SetDelay(absl::Duration delay) { delay_nanos_ = absl::ToInt64Nanoseconds(delay); }

 private:
  // HTTP/2 frames of one direction of one connection.
  struct FrameScanner {
    unsigned char header[9];
    size_t n_header = 0;
    size_t n_left = 0;  // of the frame's content
    // Flips the last float's lowest bit in each DATA frame that is large enough to hold rows.
    void Flip(std::string* bytes, bool lie);
  };
  struct Piece {
    std::string bytes;
    size_t n_sent = 0;
    absl::Time due;
  };
  struct Connection {
    int router = -1, shard = -1;
    std::deque<Piece> to_router, to_shard;
    std::string seen;  // the end of what the router sent
    bool carries_calls = false;
    int born = 0;  // in which of the modes that were set
    bool dead = false;
    FrameScanner scanner;
  };

  FaultProxy(int listener, std::string target_path)
      : listener_(listener), target_path_(std::move(target_path)) {}
  void Run();
  void Accept();
  void Read(Connection* connection, bool from_router);
  void Write(Connection* connection, bool to_router, absl::Time now);
  bool Silent(const Connection& connection) const;
  static void CloseBoth(Connection* connection);

  const int listener_;
  const std::string target_path_;
  std::atomic<Mode> mode_{Mode::kForward};
  std::atomic<int> n_modes_{0};
  std::atomic<int64_t> delay_nanos_{0};
  std::atomic<bool> stopping_{false};
  std::list<Connection> connections_;  // the thread's
  std::thread thread_;
};

}  // namespace gatefold
