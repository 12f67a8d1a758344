#include <fmt/format.h>

#include <chrono>
#include <filesystem>
#include <iostream>
#include <thread>

#include "cli/commands.h"
#include "core/interrupt.h"
#include "server/server.h"

namespace msa::cli {
namespace {

struct Options {
  server::ServerOptions server;
  std::string keys, name;
  bool read_only = false;
};

std::string folder_name(const std::string& path) {
  const std::filesystem::path folder = std::filesystem::absolute(path).lexically_normal();
  return (folder.has_filename() ? folder : folder.parent_path()).filename().string();
}

int run(const Common& common, Options o) {
  install_interrupt_handler();
  if (!o.keys.empty()) o.server.keys = server::Keys::from_file(o.keys);
  Ranks ranks(common);
  if (!ranks.is_driver()) return ranks.serve(/*encodes=*/true, kForAsLongAsItTakes);
  Context context = make_context(common);
  const Model model = load_model(context, common);
  const auto bank = open_bank(common, model, o.read_only ? BankMode::kRead : BankMode::kWrite);
  ShardDriver* const driver = ranks.driver(context);
  Generator generator(model, *bank, device_options(common), driver);
  const server::Backend backend{context,
                                model,
                                *bank,
                                generator,
                                driver,
                                o.name.empty() ? folder_name(model.directory()) : o.name,
                                folder_name(bank_path(common))};
  server::Server server(backend, o.server);
  std::cerr << fmt::format("msa: {} documents of {}, model {}\nlistening on http://{}:{}\n", bank->size(),
                           bank_path(common), backend.model_name, o.server.host, server.port());
  while (!interrupted()) std::this_thread::sleep_for(std::chrono::milliseconds(50));
  std::cerr << "msa: shutting down; what runs comes to its end\n";
  server.stop();
  return 0;
}

}  // namespace

void register_serve(CLI::App& app, Common& common, Command& command) {
  CLI::App* serve = app.add_subcommand("serve", "Serve the memory over HTTP: OpenAI's protocol and a memory API");
  auto o = std::make_shared<Options>();
  serve->add_option("--host", o->server.host, "Address to listen on")->capture_default_str();
  serve->add_option("--port", o->server.port, "Port; 0: any that is free")
      ->check(CLI::Range(0, 65535))
      ->capture_default_str();
  serve->add_option("--keys", o->keys, "File of bearer keys; needed beyond 127.0.0.1");
  serve->add_option("--name", o->name, "Name of the model for clients (default: its folder's)");
  serve->add_flag("--read-only", o->read_only, "Do not change the memory; others may write to it meanwhile");
  serve->add_option("--max-queue", o->server.max_queue, "Requests that may wait")
      ->check(CLI::Range(1, 10000))
      ->capture_default_str();
  add_model_options(*serve, common);
  add_device_bank_options(*serve, common);
  add_rank_options(*serve, common);
  add_bank_option(*serve, common);
  serve->callback([&common, &command, o] { command = [&common, o] { return run(common, *o); }; });
}

}  // namespace msa::cli
