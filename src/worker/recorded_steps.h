// What a worker's part of the process's step record says (core/step_record.h): the batches of all its steps that are
// not over. Any of them may be what the process dies of.
//
// Threading: the step loop's thread. Ownership: the record must outlive it; none is fine.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <vector>

#include "core/step_record.h"
#include "scheduler/scheduler.h"

namespace baton {

class RecordedSteps {
 public:
  RecordedSteps(StepRecord* record, size_t part) : record_(record), part_(part) {}
  void Begin(const StepPlan& plan, const Scheduler& scheduler);
  // The oldest one is over.
  void End();
  // The newest one did not begin after all.
  void Abandon();

 private:
  void Write();

  StepRecord* const record_;
  const size_t part_;
  std::deque<std::vector<uint64_t>> steps_;  // names of their requests
};

}  // namespace baton
