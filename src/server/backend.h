// What the routes work on. The context, the generator and the ranks belong to the engine thread; the bank is safe to
// use from any.
#pragma once
#include <string>

#include "bank/bank.h"
#include "engine/generator.h"
#include "engine/model.h"

namespace msa::server {

struct Backend {
  Context& context;
  const Model& model;
  Bank& bank;
  Generator& generator;
  ShardDriver* ranks = nullptr;
  std::string model_name, bank_name;
};

}  // namespace msa::server
