// What came of a step: tokens, published blocks, finished sequences.
#include <algorithm>
#include <iterator>
#include <utility>

#include "scheduler/scheduler.h"

namespace baton {

StepShape ShapeOf(const StepPlan& plan) {
  StepShape shape{.decode_rows = plan.decode_rows, .prompt_tokens = plan.prefill_tokens};
  double before = 0;
  for (size_t i = 0; i < plan.batch.items.size(); ++i) {
    const BatchItem& item = plan.batch.items[i];
    if (static_cast<int32_t>(i) < plan.decode_rows) {
      shape.decode_context += item.start;
    } else {
      // The table adds half of all prompt tokens to what is before the first; each item has only its own.
      before += static_cast<double>(item.count) * (item.start + (item.count - plan.prefill_tokens) / 2.0);
    }
  }
  if (plan.prefill_tokens > 0) shape.prompt_context = static_cast<int64_t>(before / plan.prefill_tokens);
  return shape;
}

std::vector<SequenceEvent> Scheduler::Commit(const StepPlan& plan, StepOutput output) {
  if (in_flight_.empty() || plan.step != in_flight_.front().step) return {};
  if (output.items.size() != in_flight_.front().sequences.size()) return Fail(plan);
  clock_us_ += static_cast<double>(output.duration_us);
  NoteStepTime(plan, static_cast<double>(output.duration_us));
  std::vector<SequenceEvent> events;
  const std::vector<Sequence*> sequences = std::move(in_flight_.front().sequences);
  in_flight_.pop_front();
  for (size_t i = 0; i < sequences.size(); ++i) {
    --sequences[i]->in_flight;
    CommitItem(*sequences[i], plan.batch.items[i], output.items[i], events);
  }
  return events;
}

void Scheduler::NoteStepTime(const StepPlan& plan, double took_us) {
  StepTimeTable& times = options_.step_times;
  step_time_factor_.Observe(times.StepUs(ShapeOf(plan)) / times.factor, took_us);
  times.factor = step_time_factor_.value();
}

std::vector<SequenceEvent> Scheduler::Fail(const StepPlan& plan) {
  std::vector<SequenceEvent> events;
  const auto flight = std::ranges::find(in_flight_, plan.step, &Flight::step);
  if (flight == in_flight_.end()) return events;
  const std::vector<Sequence*> sequences = std::move(flight->sequences);
  in_flight_.erase(flight);
  for (Sequence* sequence : sequences) {
    --sequence->in_flight;
    if (!sequence->ended) {
      SequenceEvent& event = events.emplace_back();
      event.sequence = sequence->id;
      event.position = sequence->generated();
      event.finish = FinishReason::kError;
      event.last = true;
    }
    Unannounce(*sequence, sequence->announced_end);
    sequence->named_blocks = static_cast<int32_t>(sequence->blocks.size());  // a step that still runs publishes none
    End(*sequence);
  }
  return events;
}

void Scheduler::CommitItem(Sequence& sequence, const BatchItem& item, StepOutput::Item& output,
                           std::vector<SequenceEvent>& events) {
  sequence.computed += item.count;
  if (item.sample) --sequence.unknown;
  NameFullBlocks(sequence);
  if (sequence.ended) return End(sequence);
  if (item.prompt_logprobs) std::ranges::move(output.prompt_logprobs, std::back_inserter(sequence.collected_logprobs));
  if (!item.sample) return;

  SequenceEvent& event = events.emplace_back();
  event.sequence = sequence.id;
  event.position = sequence.generated();
  event.first = event.position == sequence.first_position;
  event.cached_tokens = std::max(sequence.cached_tokens, 0);
  if (item.prompt_logprobs) event.prompt_logprobs = std::exchange(sequence.collected_logprobs, {});
  sequence.prompt_logprobs = false;
  event.finish = Append(sequence, output.sampled.token);
  event.sampled = std::move(output.sampled);
  event.held = event.finish == FinishReason::kNone && sequence.kind == SequenceKind::kPrefillOnly;
  event.last = event.held || event.finish != FinishReason::kNone;
  if (event.finish != FinishReason::kNone) {
    NoteFinished(sequence);
    End(sequence);
  } else if (event.held) {
    std::erase(running_, &sequence);
    sequence.state = SequenceState::kHeld;
    ++held_;
  }
}

// One more generated token; what comes next is a decode step.
FinishReason Scheduler::Append(Sequence& sequence, TokenId token) {
  sequence.tokens.push_back(token);
  if (sequence.decoding_since_us < 0)
    sequence.decoding_since_us = clock_us_;
  else
    ++sequence.decoded;
  sequence.decoding = sequence.computed + 1 == sequence.length();
  return FinishAfter({options_.eos, options_.max_model_len}, sequence.request.sampling, sequence.prompt_length,
                     sequence.generated(), token);
}

void Scheduler::NoteFinished(const Sequence& sequence) {
  if (sequence.kind == SequenceKind::kPrefillOnly) return;
  constexpr double kWeight = 1.0 / 16;
  expected_generated_ = expected_generated_ < 0
                            ? sequence.generated()
                            : expected_generated_ + kWeight * (sequence.generated() - expected_generated_);
}

}  // namespace baton
