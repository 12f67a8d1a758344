#include "train/conformance.h"

#include <fmt/format.h>

#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "train/commands/commands.h"
#include "train/device.h"

namespace msa::train {
namespace {

struct Options {
  std::string directory;
  std::string device = "cpu";
  bool json = false;
};

int run(const Options& o) {
  const std::vector<TensorCheck> checks = run_conformance(o.directory, parse_device(o.device));
  bool ok = true;
  nlohmann::ordered_json tensors = nlohmann::ordered_json::object();
  for (const TensorCheck& c : checks) {
    ok = ok && c.ok;
    tensors[c.name] = {{"relative", c.relative}, {"tolerance", c.tolerance}, {"ok", c.ok}};
    if (!o.json) {
      std::cout << fmt::format("{:4}  {:56} {:.2e}  (at most {:.0e})\n", c.ok ? "ok" : "FAIL", c.name, c.relative,
                               c.tolerance);
    }
  }
  if (o.json)
    std::cout << nlohmann::ordered_json{{"ok", ok}, {"tensors", tensors}}.dump(2) << '\n';
  else
    std::cout << (ok ? "conforms\n" : "DOES NOT CONFORM\n");
  return ok ? 0 : 1;
}

}  // namespace

void register_conformance(CLI::App& app, Command& command) {
  CLI::App* c = app.add_subcommand("conformance", "Check losses and gradients against those of the public code");
  auto o = std::make_shared<Options>();
  c->add_option("DIR", o->directory, "A golden training case")->required();
  c->add_option("--device", o->device, "cpu or cuda")->capture_default_str();
  c->add_flag("--json", o->json, "Print one JSON object");
  c->callback([&command, o] { command = [o] { return run(*o); }; });
}

}  // namespace msa::train
