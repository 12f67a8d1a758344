#include "server/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

namespace msa::server {
namespace {

using prometheus::BuildCounter;
using prometheus::BuildGauge;
using prometheus::BuildHistogram;

}  // namespace

struct Metrics::State {
  prometheus::Registry registry;
  prometheus::Family<prometheus::Counter>& requests =
      BuildCounter().Name("msa_requests_total").Help("Requests by route and status").Register(registry);
  prometheus::Family<prometheus::Histogram>& seconds =
      BuildHistogram().Name("msa_request_seconds").Help("Duration of requests by route").Register(registry);
  prometheus::Family<prometheus::Counter>& tokens =
      BuildCounter().Name("msa_tokens_total").Help("Tokens, by kind").Register(registry);
  prometheus::Counter& prompt = tokens.Add({{"kind", "prompt"}});
  prometheus::Counter& answer = tokens.Add({{"kind", "answer"}});
  prometheus::Counter& encoded = tokens.Add({{"kind", "encoded"}});
  prometheus::Counter& added =
      BuildCounter().Name("msa_documents_added_total").Help("Documents encoded").Register(registry).Add({});
  prometheus::Gauge& queued =
      BuildGauge().Name("msa_queue_length").Help("Requests that wait for the engine").Register(registry).Add({});
  prometheus::Gauge& capacity =
      BuildGauge().Name("msa_queue_capacity").Help("Requests that may wait").Register(registry).Add({});
  prometheus::Gauge& documents =
      BuildGauge().Name("msa_bank_documents").Help("Live documents").Register(registry).Add({});
  prometheus::Gauge& chunks = BuildGauge().Name("msa_bank_chunks").Help("Of live documents").Register(registry).Add({});
  prometheus::Gauge& bank_tokens =
      BuildGauge().Name("msa_bank_tokens").Help("Of live documents").Register(registry).Add({});
};

Metrics::Metrics() : state_(std::make_unique<State>()) {}
Metrics::~Metrics() = default;

void Metrics::count_request(const std::string& route, int status, std::chrono::steady_clock::time_point start) {
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  static const prometheus::Histogram::BucketBoundaries kBounds{.005, .01, .025, .05, .1, .25, .5,
                                                               1,    2.5, 5,    10,  25, 50,  100};
  state_->requests.Add({{"route", route}, {"status", std::to_string(status)}}).Increment();
  state_->seconds.Add({{"route", route}}, kBounds).Observe(seconds.count());
}

void Metrics::count_answer(int prompt_tokens, int answer_tokens) {
  state_->prompt.Increment(prompt_tokens);
  state_->answer.Increment(answer_tokens);
}

void Metrics::count_added(int64_t documents, int64_t tokens) {
  state_->added.Increment(static_cast<double>(documents));
  state_->encoded.Increment(static_cast<double>(tokens));
}

std::string Metrics::text(const Now& now) {
  state_->queued.Set(static_cast<double>(now.queued));
  state_->capacity.Set(static_cast<double>(now.queue_capacity));
  state_->documents.Set(static_cast<double>(now.documents));
  state_->chunks.Set(static_cast<double>(now.chunks));
  state_->bank_tokens.Set(static_cast<double>(now.tokens));
  return prometheus::TextSerializer().Serialize(state_->registry.Collect());
}

}  // namespace msa::server
