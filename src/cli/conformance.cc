#include "engine/conformance.h"

#include <fmt/format.h>

#include <iostream>

#include "cli/commands.h"

namespace msa::cli {
namespace {

int run(const Common& common, const std::string& directory) {
  Context context = make_context(common);
  const Precision precision = common.dtype == "auto" ? Precision::kF32 : parse_precision(common.dtype);
  const ConformanceReport report = run_conformance(context, directory, precision);
  Json tensors = Json::object();
  for (const auto& [name, d] : report.tensors) {
    if (!common.json) {
      std::cout << fmt::format("{:4}  {:32} norm {:.2e}  max abs {:.2e}\n", d.ok ? "ok" : "FAIL", name, d.rel_norm,
                               d.max_abs);
    }
    tensors[name] = {{"max_abs", d.max_abs}, {"max_rel", d.max_rel}, {"rel_norm", d.rel_norm}, {"ok", d.ok}};
  }
  const double tolerance = precision == Precision::kF32 ? kConformanceF32 : kConformanceBF16;
  if (common.json)
    print_json({{"ok", report.ok}, {"tolerance", tolerance}, {"tensors", tensors}});
  else
    std::cout << (report.ok ? "conforms" : "DOES NOT CONFORM") << fmt::format(" (tolerance {:.0e})\n", tolerance);
  return report.ok ? 0 : 1;
}

}  // namespace

void register_conformance(CLI::App& app, Common& common, Command& command) {
  CLI::App* c = app.add_subcommand("conformance", "Check the engine against recorded outputs of the public code");
  auto directory = std::make_shared<std::string>();
  c->add_option("DIR", *directory, "A golden case")->required();
  add_device_option(*c, common);
  c->add_option("--dtype", common.dtype, "f32 (default) or bf16");
  c->add_option("--threads", common.threads, "Threads (default: all CPUs)")->check(CLI::Range(0, 1024));
  add_json_option(*c, common);
  c->callback([&common, &command, directory] { command = [&common, directory] { return run(common, *directory); }; });
}

}  // namespace msa::cli
