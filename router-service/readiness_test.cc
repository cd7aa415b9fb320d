#include "router-service/readiness.h"

#include <vector>

#include "gtest/gtest.h"

namespace gatefold {
namespace {

using State = WorkerEntry::State;

RoutingTable Table(std::vector<State> experts, std::vector<State> attention) {
  RoutingTable table;
  for (const State state : experts) table.experts.emplace_back().state = state;
  for (const State state : attention) table.attention.emplace_back().state = state;
  return table;
}

TEST(ReadinessTest, AnybodyWhoCanBeReachedIsAProspect) {
  EXPECT_TRUE(HasProspects(Table({State::kReady}, {State::kReady})));
  EXPECT_TRUE(HasProspects(Table({State::kUnreachable}, {State::kReady})));
  EXPECT_TRUE(HasProspects(Table({State::kLoading}, {State::kUnreachable})));
  EXPECT_TRUE(HasProspects(Table({State::kDraining, State::kUnreachable}, {})));
  EXPECT_FALSE(HasProspects(Table({State::kUnreachable}, {State::kUnreachable})));
}

TEST(ReadinessTest, WhoWasReplacedByOthersThatCannotBeUsedIsNone) {
  EXPECT_FALSE(HasProspects(Table({State::kMismatch}, {State::kReady})));
  EXPECT_FALSE(HasProspects(Table({State::kReady}, {State::kUnreachable, State::kMismatch})));
  EXPECT_TRUE(HasProspects(Table({State::kMismatch, State::kDraining}, {State::kReady})));
}

// Its process cannot be reached at the address that was used, and is about to be used at this one.
TEST(ReadinessTest, AnotherAddressOfAProcessIsNoOtherWorker) {
  RoutingTable table = Table({State::kUnreachable, State::kMismatch}, {State::kReady});
  EXPECT_FALSE(HasProspects(table));
  table.experts[1].twin = true;
  EXPECT_TRUE(HasProspects(table));
}

// Scaled to zero: there is nobody to be cut off from.
TEST(ReadinessTest, WhoIsGoneDoesNotCount) {
  RoutingTable table = Table({State::kUnreachable}, {});
  EXPECT_FALSE(HasProspects(table));
  table.experts[0].gone = true;
  EXPECT_TRUE(HasProspects(table));
  EXPECT_TRUE(HasProspects(RoutingTable()));
}

}  // namespace
}  // namespace gatefold
