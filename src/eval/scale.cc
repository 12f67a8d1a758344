#include "eval/scale.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <set>
#include <utility>

#include "eval/qa.h"
#include "eval/retrieval.h"
#include "eval/sizes.h"
#include "io/file.h"

namespace msa::eval {
namespace {

constexpr size_t kTimedQuestions = 21;

int64_t resident_bytes() {
  int64_t pages = 0, resident = 0;
  std::ifstream("/proc/self/statm") >> pages >> resident;
  return resident * sysconf(_SC_PAGESIZE);
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values.empty() ? 0 : values[values.size() / 2];
}

Json rows_of(const ScoreTable& table) {
  Json rows = Json::array();
  for (size_t i = 0; i < table.rows(); ++i) rows.push_back(table.row(i));
  return rows;
}

void read_rows(const Json& rows, ScoreTable& table) {
  for (const Json& row : rows) {
    const auto values = row.get<std::vector<double>>();
    if (values.size() != table.columns().size()) throw std::invalid_argument("a row of another length");
    table.add(values);
  }
}

Json relative(const ScoreTable& table, const ScoreTable& base, const Bootstrap& bootstrap) {
  Json out = Json::object();
  for (const std::string& name : table.columns()) {
    out[name] = to_json(ratio_of_means(table.column(name), base.column(name), bootstrap));
  }
  return out;
}

Json counts_of(const ScalePoint& p) {
  return {{"size", p.size},           {"tokens", p.tokens},         {"documents", p.documents},
          {"chunks", p.chunks},       {"bank_bytes", p.bank_bytes}, {"process_bytes", p.process_bytes},
          {"tokens_of", p.tokens_of}, {"routing_ms", p.routing_ms}, {"question_ms", p.question_ms}};
}

ScalePoint read_point(const Json& j) {
  ScalePoint p;
  p.size = j.at("size");
  p.tokens = j.at("tokens");
  p.documents = j.at("documents");
  p.chunks = j.at("chunks");
  p.bank_bytes = j.at("bank_bytes");
  p.process_bytes = j.at("process_bytes");
  p.tokens_of = j.at("tokens_of").get<std::map<std::string, int64_t>>();
  p.routing_ms = j.at("routing_ms");
  p.question_ms = j.at("question_ms");
  read_rows(j.at("retrieval"), p.retrieval);
  read_rows(j.at("answers"), p.answers);
  return p;
}

}  // namespace

ScaleState ScaleState::load(const std::string& path) {
  ScaleState state;
  try {
    const Json file = Json::parse(read_file(path));
    state.header = file.at("header");
    for (const Json& point : file.at("points")) state.points.push_back(read_point(point));
  } catch (const std::exception& error) {
    if (dynamic_cast<const Error*>(&error) != nullptr) throw;
    throw Error(std::string("no results of msa eval scale: ") + error.what(), path, "give --output another name");
  }
  return state;
}

void ScaleState::save(const std::string& path) const {
  Json points_json = Json::array();
  for (const ScalePoint& p : points) {
    Json point = counts_of(p);
    point["retrieval"] = rows_of(p.retrieval);
    point["answers"] = rows_of(p.answers);
    points_json.push_back(std::move(point));
  }
  write_file_atomically(path, Json{{"header", header}, {"points", points_json}}.dump() + "\n");
}

ScaleRun::ScaleRun(Context& context, const Model& model, Bank& bank, const BeirSet& set, const ScaleOptions& options)
    : context_(context),
      model_(model),
      bank_(bank),
      set_(set),
      options_(options),
      builder_(context, model, bank, options.ranks) {
  MSA_CHECK(!options.sizes.empty());
  choose_questions();
  stream_ = std::make_unique<FillStream>(set, gold_, options.corpora, options.bootstrap.seed);
}

void ScaleRun::choose_questions() {
  std::vector<size_t> candidates =
      options_.answered > 0 ? choose_answerable(set_, -1, 0) : eval::choose_questions(set_, -1, 0);
  std::mt19937_64 random(options_.bootstrap.seed);
  for (size_t i = candidates.size(); i > 1; --i) std::swap(candidates[i - 1], candidates[draw_below(random, i)]);
  const int64_t budget = options_.sizes.front() * 9 / 10;
  int64_t tokens = 0;
  std::set<int32_t> gold;
  for (const size_t q : candidates) {
    if (options_.questions >= 0 && static_cast<int64_t>(questions_.size()) >= options_.questions) break;
    int64_t more = 0;
    for (const int32_t d : set_.questions[q].gold) {
      if (!gold.contains(d)) more += builder_.tokens_of(set_.documents[static_cast<size_t>(d)].full_text());
    }
    if (tokens + more > budget) continue;
    tokens += more;
    gold.insert(set_.questions[q].gold.begin(), set_.questions[q].gold.end());
    questions_.push_back(q);
  }
  if (questions_.empty()) {
    throw Error("no question's gold documents fit into " + size_name(options_.sizes.front()) + " tokens", "--sizes",
                "begin with a larger size");
  }
  std::sort(questions_.begin(), questions_.end());
  gold_.assign(gold.begin(), gold.end());
}

Json ScaleRun::header() const {
  Json ids = Json::array();
  for (const size_t q : questions_) ids.push_back(set_.questions[q].id);
  return {{"fingerprint", model_.fingerprint()}, {"smallest", options_.sizes.front()}, {"corpora", options_.corpora},
          {"seed", options_.bootstrap.seed},     {"answered", options_.answered},      {"questions", ids}};
}

void ScaleRun::grow(int64_t size, const ScaleProgress& progress) {
  while (true) {
    if (!waiting_) waiting_ = stream_->next();
    const int64_t cost = builder_.tokens_of(waiting_->text);
    if (tokens_ + cost > size) break;
    builder_.add(waiting_->external_id, waiting_->text);
    tokens_ += cost;
    tokens_of_[name_of(waiting_->origin)] += cost;
    waiting_.reset();
    if (progress) progress("encoding", tokens_, size);
  }
  builder_.commit();
}

void ScaleRun::measure_time(ScalePoint& point) {
  Generator generator(model_, bank_, options_.device, options_.ranks);
  std::vector<double> routing, whole;
  for (size_t i = 0; i < std::min(kTimedQuestions, questions_.size()); ++i) {
    const auto start = std::chrono::steady_clock::now();
    const Routing routed = generator.route(context_, set_.questions[questions_[i]].text, 1);
    whole.push_back(std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count());
    routing.push_back(routed.route_ms);
  }
  point.routing_ms = median(routing);
  point.question_ms = median(whole);
}

void ScaleRun::measure_answers(ScalePoint& point, const ScaleProgress& progress) {
  const auto n = std::min(static_cast<size_t>(options_.answered), questions_.size());
  if (n == 0) return;
  QaOptions options;
  options.ask = options_.ask;
  options.device = options_.device;
  options.ranks = options_.ranks;
  QaEvaluation evaluation(model_, bank_, set_, options);
  for (size_t i = 0; i < n; ++i) {
    const QaAnswer answer = evaluation.answer(context_, QaMode::kSystem, set_.questions[questions_[i]]);
    std::vector<double> row;
    for (const std::string& name : kScaleAnswerColumns) {
      const auto column = std::find(kQaColumns.begin(), kQaColumns.end(), name) - kQaColumns.begin();
      row.push_back(answer.scores[static_cast<size_t>(column)]);
    }
    point.answers.add(row);
    if (progress) progress("answering", static_cast<int64_t>(i + 1), static_cast<int64_t>(n));
  }
}

ScalePoint ScaleRun::measure(int64_t size, const ScaleProgress& progress) {
  ScalePoint point;
  point.size = size;
  RoutingOptions options;
  options.device = options_.device;
  options.ranks = options_.ranks;
  const RetrievalScores scores =
      measure_retrieval(context_, model_, bank_, set_, questions_, options, [&](int64_t done, int64_t total) {
        if (progress) progress("routing", done, total);
      });
  const std::vector<double> gathered = scores.gathered.column("recall@16");
  for (size_t i = 0; i < questions_.size(); ++i) {
    std::vector<double> row;
    for (const char* name : {"recall@1", "recall@5", "recall@16", "mrr"}) {
      const auto column = std::find(kRankingColumns.begin(), kRankingColumns.end(), name) - kRankingColumns.begin();
      row.push_back(scores.mean.row(i)[static_cast<size_t>(column)]);
    }
    row.push_back(gathered[i]);
    point.retrieval.add(row);
  }
  measure_time(point);
  measure_answers(point, progress);
  const BankStatistics statistics = bank_.statistics();
  point.tokens = statistics.tokens;
  point.documents = statistics.documents;
  point.chunks = statistics.chunks;
  point.bank_bytes = statistics.key_bytes + statistics.content_bytes;
  point.process_bytes = resident_bytes();
  point.tokens_of = tokens_of_;
  return point;
}

void ScaleRun::run(ScaleState& state, const ScaleProgress& progress,
                   const std::function<void(const ScalePoint&)>& after) {
  const int64_t in_bank = builder_.tokens();
  const auto measured = [&](int64_t size) {
    return std::any_of(state.points.begin(), state.points.end(), [&](const ScalePoint& p) { return p.size == size; });
  };
  std::vector<int64_t> sizes = options_.sizes;
  while (!sizes.empty() && measured(sizes.back())) sizes.pop_back();  // nothing that needs a bank comes after
  for (const int64_t size : sizes) {
    // What the stream is reckoned at differs a little from what the bank holds: digits of ids, overlapping parts.
    if (!measured(size) && in_bank > size + size / 20) {
      throw Error("the bank has " + std::to_string(in_bank) + " tokens already, and no result for " + size_name(size),
                  bank_.path().string(), "give --bank a new folder, or leave this size out");
    }
    grow(size, progress);
    if (measured(size)) continue;
    state.points.push_back(measure(size, progress));
    after(state.points.back());
  }
}

Json to_json(const ScaleState& state, const Bootstrap& bootstrap) {
  Json out = Json::array();
  for (const ScalePoint& p : state.points) {
    Json point = counts_of(p);
    point["metrics"] = p.retrieval.summary(bootstrap);
    point["relative"] = relative(p.retrieval, state.points.front().retrieval, bootstrap);
    if (p.answers.rows() > 0) {
      point["answers"] = p.answers.summary(bootstrap);
      point["answers_relative"] = relative(p.answers, state.points.front().answers, bootstrap);
    }
    out.push_back(std::move(point));
  }
  return out;
}

}  // namespace msa::eval
