#include "worker/recorded_steps.h"

namespace baton {

void RecordedSteps::Begin(const StepPlan& plan, const Scheduler& scheduler) {
  std::vector<uint64_t>& names = steps_.emplace_back();
  if (record_ == nullptr) return;
  for (const BatchItem& item : plan.batch.items) {
    const Sequence* sequence = scheduler.Find(item.sequence);
    if (sequence != nullptr) names.push_back(StepRecord::NameOf(sequence->request));
  }
  Write();
}

void RecordedSteps::End() {
  steps_.pop_front();
  if (record_ != nullptr) Write();
}

void RecordedSteps::Abandon() {
  steps_.pop_back();
  if (record_ != nullptr) Write();
}

void RecordedSteps::Write() {
  std::vector<uint64_t> names;
  for (const std::vector<uint64_t>& step : steps_) names.insert(names.end(), step.begin(), step.end());
  record_->Set(part_, names);
}

}  // namespace baton
