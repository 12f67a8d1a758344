#include "model/convert.h"

#include <fmt/format.h>

#include <filesystem>
#include <iostream>

#include "cli/commands.h"

namespace msa::cli {
namespace {

int run(const Common& common, const ConvertOptions& options) {
  const auto start = std::chrono::steady_clock::now();
  convert(options);
  const auto bytes =
      static_cast<int64_t>(std::filesystem::file_size(std::filesystem::path(options.output) / "model.safetensors"));
  if (common.json) {
    print_json({{"output", options.output},
                {"dtype", std::string(traits(options.dtype).name)},
                {"bytes", bytes},
                {"ms", {{"total", ms_since(start)}}}});
  } else {
    std::cout << fmt::format("{}: {:.1f} MB of {} weights, {:.1f} s\n", options.output,
                             static_cast<double>(bytes) / 1e6, std::string(traits(options.dtype).name),
                             ms_since(start) / 1e3);
  }
  return 0;
}

}  // namespace

void register_convert(CLI::App& app, Common& common, Command& command) {
  CLI::App* c = app.add_subcommand("convert", "Write any readable model as one Hugging Face directory, adapter merged");
  auto o = std::make_shared<ConvertOptions>();
  c->add_option("SOURCE", o->source, "A model directory or a .gguf file")->required();
  c->add_option("OUTPUT", o->output, "A folder that does not exist yet, or is empty")->required();
  c->add_option("--adapter", o->adapter, "LoRA and router weights (default: the adapter in SOURCE, if any)");
  c->add_option("--dtype", o->dtype, "Type of the weights: f32, f16 or bf16 (default)")
      ->transform(CLI::CheckedTransformer(
          std::map<std::string, DType>{{"f32", DType::kF32}, {"f16", DType::kF16}, {"bf16", DType::kBF16}},
          CLI::ignore_case));
  add_json_option(*c, common);
  c->callback([&common, &command, o] { command = [&common, o] { return run(common, *o); }; });
}

}  // namespace msa::cli
