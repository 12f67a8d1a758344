#include <fmt/format.h>

#include <iostream>

#include "cli/commands.h"
#include "engine/generator.h"
#include "server/answer_json.h"

namespace msa::cli {
namespace {

struct Options {
  std::string question;
  int count = 16;
  bool layers = false;
  DocumentScope scope;
};

int run(const Common& common, const Options& o) {
  const auto start = std::chrono::steady_clock::now();
  Ranks ranks(common);
  if (!ranks.is_driver()) return ranks.serve();
  Context context = make_context(common);
  const Model model = load_model(context, common);
  const auto bank = open_bank(common, model, BankMode::kRead);
  const double load_ms = ms_since(start);
  const auto query_start = std::chrono::steady_clock::now();
  const Routing routing = Generator(model, *bank, device_options(common), ranks.driver(context))
                              .route(context, o.question, o.count, o.scope);
  const std::vector<RoutedDocument>& documents = routing.documents;
  const double query_ms = ms_since(query_start);
  const std::vector<int>& layers = model.config().memory.routing_layers;
  if (!common.json) {
    for (const RoutedDocument& d : documents) {
      std::cout << fmt::format("{:8.4f}  [{}]  {}\n", d.score, d.id, one_line(d.external_id, 80));
      for (size_t i = 0; o.layers && i < layers.size(); ++i) {
        std::cout << fmt::format("          layer {:2}  {:8.4f}\n", layers[i], d.layers[i]);
      }
    }
    std::cerr << fmt::format("{} of {} documents, {:.1f} ms (routing alone {:.2f} ms)\n", documents.size(),
                             bank->size(), query_ms, routing.route_ms);
    if (routing.missing.any()) std::cout << describe_missing(routing.missing) << '\n';
    return 0;
  }
  Json list = Json::array();
  for (const RoutedDocument& d : documents) {
    Json scores = Json::object();
    for (size_t i = 0; i < layers.size(); ++i) scores[std::to_string(layers[i])] = d.layers[i];
    list.push_back({{"id", d.id}, {"external_id", d.external_id}, {"score", d.score}, {"layers", scores}});
  }
  Json out = {{"documents", list}, {"ms", {{"load", load_ms}, {"query", query_ms}, {"route", routing.route_ms}}}};
  if (routing.missing.any()) out["missing"] = server::missing_json(routing.missing);
  print_json(out);
  return 0;
}

}  // namespace

void register_route(CLI::App& app, Common& common, Command& command) {
  CLI::App* route = app.add_subcommand("route", "Documents that a question routes to, with scores");
  auto o = std::make_shared<Options>();
  route->add_option("QUESTION", o->question, "The question")->required();
  route->add_option("--top-k", o->count, "How many documents")->check(CLI::Range(1, 1000000))->capture_default_str();
  route->add_flag("--layers", o->layers, "Show the score in each routing layer");
  add_scope_options(*route, o->scope);
  add_model_options(*route, common);
  add_device_bank_options(*route, common);
  add_rank_options(*route, common);
  add_bank_option(*route, common);
  add_json_option(*route, common);
  route->callback([&common, &command, o] { command = [&common, o] { return run(common, *o); }; });
}

}  // namespace msa::cli
