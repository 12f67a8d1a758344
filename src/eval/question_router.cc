#include "eval/question_router.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "engine/bank_memory.h"
#include "engine/sharded_memory.h"

namespace msa::eval {
namespace {

// Scores of a pack's questions, all layers, are kept until the pass is done.
constexpr int64_t kMaxScoreBytes = int64_t{1} << 29;

/// Each question sees its own cache and its own selection; they share the products of the layers.
class PackedQueries : public Stage {
 public:
  struct Question {
    KvCache cache;
    std::unique_ptr<RoutedMemory> memory;
    std::span<const uint8_t> routed;  // [its tokens]
  };

  PackedQueries(const ModelConfig& config, std::span<Question> questions) : last_layer_(config.n_layers - 1) {
    starts_.push_back(0);
    for (Question& q : questions) {
      stages_.emplace_back(config, q.cache, q.memory.get(), q.routed);
      starts_.push_back(starts_.back() + static_cast<int64_t>(q.routed.size()));
    }
  }

  void begin(Context& context) override {
    for (QueryStage& stage : stages_) stage.begin(context);
  }

  bool attend(Context& context, const LayerActivations& in, const Tensor& out) override {
    for (size_t i = 0; i < stages_.size(); ++i) {
      const int64_t begin = starts_[i], end = starts_[i + 1];
      stages_[i].attend(context, in.slice(begin, end), out.slice_rows(begin, end));
    }
    return in.layer < last_layer_;  // all are routed: what comes behind serves generation
  }

 private:
  int last_layer_;
  std::vector<QueryStage> stages_;
  std::vector<int64_t> starts_;  // [questions + 1]
};

/// The question's prompt up to the last token that routes: what stands behind cannot change its scores.
Prompt routing_prompt(const Model& model, std::string_view question, int room) {
  Prompt prompt = model.prompts().query(question);
  const auto last = std::find(prompt.routed.rbegin(), prompt.routed.rend(), uint8_t{1});
  if (last == prompt.routed.rend()) throw Error("the question is empty", "question", "give it a text");
  const auto length = static_cast<size_t>(prompt.routed.rend() - last);
  if (length > static_cast<size_t>(room)) {
    throw Error("the question has " + std::to_string(length) + " tokens; at most " + std::to_string(room) + " fit",
                "question '" + std::string(question.substr(0, 80)) + "…'", "leave it out of the set");
  }
  prompt.tokens.resize(length);
  prompt.routed.resize(length);
  return prompt;
}

}  // namespace

QuestionRouter::QuestionRouter(const Model& model, std::shared_ptr<const Snapshot> snapshot,
                               const RoutingOptions& options)
    : model_(model), snapshot_(std::move(snapshot)), options_(options), device_(options.device) {
  if (options_.top_k <= 0) options_.top_k = model.config().memory.top_k_documents;
}

void QuestionRouter::route(Context& context, std::span<const std::string_view> questions, const Sink& sink) {
  int64_t slots = 1;
  for (const auto& segment : snapshot_->segments) slots += segment->n_documents();
  const int64_t score_bytes = slots * snapshot_->shape.n_layers() * static_cast<int64_t>(sizeof(float));
  const auto most = static_cast<size_t>(std::max<int64_t>(1, kMaxScoreBytes / score_bytes));
  const int room = model_.config().max_positions - model_.head().length() - options_.top_k;
  std::vector<Prompt> pack;
  int64_t pack_tokens = 0;
  for (size_t i = 0; i < questions.size(); ++i) {
    pack.push_back(routing_prompt(model_, questions[i], room));
    pack_tokens += static_cast<int64_t>(pack.back().tokens.size());
    if (i + 1 < questions.size() && pack.size() < most && pack_tokens < options_.pack_tokens) continue;
    route_pack(context, pack, i + 1 - pack.size(), sink);
    tokens_ += std::exchange(pack_tokens, 0);
    pack.clear();
  }
}

void QuestionRouter::route_pack(Context& context, std::span<const Prompt> prompts, size_t first, const Sink& sink) {
  const ModelConfig& config = model_.config();
  const int attended = options_.attend_memory ? options_.top_k : 0;
  std::vector<PackedQueries::Question> questions(prompts.size());
  std::vector<int32_t> tokens, positions;
  for (size_t i = 0; i < prompts.size(); ++i) {
    const int length = static_cast<int>(prompts[i].tokens.size());
    questions[i].cache = KvCache(config, model_.head().length() + length, model_.transformer().activation_dtype(),
                                 model_.transformer().device());
    questions[i].cache.assign(context, model_.head());
    if (options_.ranks != nullptr) {
      questions[i].memory =
          std::make_unique<ShardedMemory>(context, config, snapshot_, MemoryQuery{attended}, device_, *options_.ranks);
    } else {
      questions[i].memory = std::make_unique<BankMemory>(config, snapshot_, MemoryQuery{attended},
                                                         device_.keys(context, snapshot_), device_.content(context));
    }
    questions[i].routed = prompts[i].routed;
    tokens.insert(tokens.end(), prompts[i].tokens.begin(), prompts[i].tokens.end());
    for (int t = 0; t < length; ++t) positions.push_back(model_.head().length() + options_.top_k + t);
  }
  PackedQueries stage(config, questions);
  model_.transformer().forward(context, workspace_, tokens, positions, stage);
  for (size_t i = 0; i < questions.size(); ++i) sink(first + i, *questions[i].memory);
}

}  // namespace msa::eval
