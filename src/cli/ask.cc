#include <fmt/format.h>

#include <iostream>
#include <random>

#include "cli/commands.h"
#include "engine/generator.h"
#include "server/answer_json.h"

namespace msa::cli {
namespace {

struct Options {
  std::string question;
  AskOptions ask;
  bool trace = false;
  std::optional<uint64_t> seed;
};

Json to_json(const Answer& answer, const std::vector<int>& layers) {
  return {{"answer", answer.text},
          {"stop_reason", answer.stop_reason},
          {"documents", server::documents_json(answer)},
          {"hops", server::hops_json(answer, layers)},
          {"tokens", {{"prompt", answer.prompt_tokens}, {"answer", answer.answer_tokens}}},
          {"ms", {{"answer", answer.answer_ms}, {"total", answer.total_ms}}}};
}

void print_trace(const Answer& answer) {
  for (size_t i = 0; i < answer.hops.size(); ++i) {
    const HopTrace& h = answer.hops[i];
    std::cerr << fmt::format(
        "hop {}: {} tokens, prefill {:.0f} ms, routing {:.1f} ms, reading {:.0f} ms, decoding {:.0f} ms\n", i + 1,
        h.prompt_tokens, h.prefill_ms, h.route_ms, h.rerank_ms, h.decode_ms);
    if (h.routing.bounded) {
      std::cerr << fmt::format("  bounds     {} of {} chunks scored again, {} layers fell back\n", h.routing.candidates,
                               h.routing.chunks, h.routing.fell_back);
    }
    for (size_t j = 0; j < std::min<size_t>(5, h.routed.size()); ++j) {
      std::cerr << fmt::format("  routed     {:7.4f}  [{}]  {}\n", h.routed[j].score, h.routed[j].id,
                               one_line(h.routed[j].external_id, 60));
    }
    for (const ReadCandidate& c : h.read) std::cerr << fmt::format("  read       {:7.4f}  [{}]\n", c.relevance, c.id);
    if (!h.generated.empty()) std::cerr << "  generated  " << one_line(h.generated, 100) << '\n';
    std::cerr << "  end        " << describe(h.end) << '\n';
  }
}

int run(const Common& common, Options o) {
  const auto start = std::chrono::steady_clock::now();
  if (o.seed)
    o.ask.sampling.seed = *o.seed;
  else if (o.ask.sampling.temperature > 0)
    o.ask.sampling.seed = std::random_device{}();
  Ranks ranks(common);
  if (!ranks.is_driver()) return ranks.serve();
  Context context = make_context(common);
  const Model model = load_model(context, common);
  const auto bank = open_bank(common, model, BankMode::kRead);
  const double load_ms = ms_since(start);
  if (bank->size() == 0) std::cerr << "msa: the bank is empty; the answer comes without documents\n";
  const Answer answer =
      Generator(model, *bank, device_options(common), ranks.driver(context)).ask(context, o.question, o.ask);
  if (common.json) {
    Json out = to_json(answer, model.config().memory.routing_layers);
    out["ms"]["load"] = load_ms;
    if (answer.missing.any()) out["missing"] = server::missing_json(answer.missing);
    if (o.ask.sampling.temperature > 0) out["seed"] = o.ask.sampling.seed;
    print_json(out);
    return 0;
  }
  if (o.trace) print_trace(answer);
  std::cout << answer.text << '\n';
  for (const FetchedDocument& d : answer.documents) {
    const std::string relevance = d.relevance ? fmt::format(" (relevance {:.2f})", *d.relevance) : "";
    std::cout << fmt::format("  [{}] {}{}: {}\n", d.id, one_line(d.external_id, 40), relevance, one_line(d.text, 160));
  }
  if (answer.missing.any()) std::cout << "  " << describe_missing(answer.missing) << '\n';
  std::cerr << fmt::format(
      "{} documents in memory, {} hops, {} prompt tokens, {} answer tokens, {:.0f} ms (+ {:.0f} ms to load)\n",
      bank->size(), answer.hops.size(), answer.prompt_tokens, answer.answer_tokens, answer.total_ms, load_ms);
  return 0;
}

}  // namespace

void register_ask(CLI::App& app, Common& common, Command& command) {
  CLI::App* ask = app.add_subcommand("ask", "Answer a question from the memory, with the documents it came from");
  auto o = std::make_shared<Options>();
  ask->add_option("QUESTION", o->question, "The question")->required();
  ask->add_flag("--trace", o->trace, "Show what each hop routed, wrote and fetched");
  add_answer_options(*ask, o->ask);
  ask->add_option("--max-bytes", o->ask.max_fetched_bytes, "Bytes of text fetched at most")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 30))
      ->capture_default_str();
  ask->add_option("--temperature", o->ask.sampling.temperature, "0: greedy")->capture_default_str();
  ask->add_option("--top-p", o->ask.sampling.top_p, "Nucleus sampling, in (0, 1]")->capture_default_str();
  ask->add_option("--seed", o->seed, "Seed of a sampled answer (default: random, reported with --json)");
  add_scope_options(*ask, o->ask.scope);
  add_model_options(*ask, common);
  add_device_bank_options(*ask, common);
  add_rank_options(*ask, common);
  add_bank_option(*ask, common);
  add_json_option(*ask, common);
  ask->callback([&common, &command, o] { command = [&common, o] { return run(common, *o); }; });
}

}  // namespace msa::cli
