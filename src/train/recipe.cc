#include "train/recipe.h"

#include <filesystem>

#include "io/file.h"

namespace msa::train {
namespace {

namespace fs = std::filesystem;

constexpr double kHuge = 1e9;

std::string one_of(const TomlFields& t, const char* key, const std::string& otherwise,
                   std::initializer_list<const char*> allowed) {
  const std::string value = t.string(key, otherwise);
  std::string list;
  for (const char* a : allowed) {
    if (value == a) return value;
    list += (list.empty() ? "" : ", ") + std::string(a);
  }
  t.refuse(key, "unknown value '" + printable(value) + "'", "one of: " + list);
}

std::string resolved(const std::string& path, const std::string& root) {
  return path.empty() || fs::path(path).is_absolute() ? path : (fs::path(root) / path).lexically_normal().string();
}

ModelRecipe model_of(const TomlFields& t, const std::string& root) {
  t.allow_only({"base", "start", "train", "rank", "alpha", "layers", "modules", "routers", "precision"});
  ModelRecipe r;
  r.base = resolved(t.need_string("base"), root);
  r.start = resolved(t.string("start", ""), root);
  r.parts.all_weights = one_of(t, "train", "adapter", {"adapter", "all"}) == "all";
  r.parts.rank = static_cast<int>(t.integer("rank", r.parts.rank, 1, 4096));
  r.parts.alpha = t.number("alpha", 2.0 * r.parts.rank, 1e-6, kHuge);
  for (const int64_t layer : t.integers("layers", 0, 10000)) r.parts.layers.push_back(static_cast<int>(layer));
  r.parts.modules = t.strings("modules");
  r.parts.routers = t.flag("routers", true);
  r.precision = one_of(t, "precision", r.precision, {"auto", "f32", "bf16"});
  if (!fs::exists(r.base)) t.refuse("base", "there is no '" + printable(r.base) + "'", "name a model directory");
  if (!r.start.empty() && !fs::exists(r.start)) t.refuse("start", "there is no '" + printable(r.start) + "'");
  if (r.parts.all_weights && !r.start.empty())
    t.refuse("start", "an adapter cannot begin a run that trains all weights");
  return r;
}

OptimizerRecipe optimizer_of(const TomlFields& t) {
  t.allow_only({"adapter_rate", "router_rate", "weights_rate", "layer_weight_rate", "beta1", "beta2", "epsilon",
                "weight_decay", "clip", "warmup_steps", "schedule", "final_share"});
  OptimizerRecipe r;
  r.adapter_rate = t.number("adapter_rate", r.adapter_rate, 0, 1);
  r.router_rate = t.number("router_rate", r.router_rate, 0, 1);
  r.weights_rate = t.number("weights_rate", r.weights_rate, 0, 1);
  r.layer_weight_rate = t.number("layer_weight_rate", r.layer_weight_rate, 0, 1);
  r.beta1 = t.number("beta1", r.beta1, 0, 0.99999);
  r.beta2 = t.number("beta2", r.beta2, 0, 0.9999999);
  r.epsilon = t.number("epsilon", r.epsilon, 0, 1);
  r.weight_decay = t.number("weight_decay", r.weight_decay, 0, 10);
  r.clip = t.number("clip", r.clip, 1e-6, kHuge);
  r.warmup_steps = t.integer("warmup_steps", r.warmup_steps, 0, 1000000);
  r.schedule = one_of(t, "schedule", r.schedule, {"cosine", "linear", "constant"});
  r.final_share = t.number("final_share", r.final_share, 0, 1);
  return r;
}

LossRecipe loss_of(const TomlFields& t) {
  t.allow_only({"routing",
                "tau",
                "warm_share",
                "warm_lm",
                "warm_aux",
                "main_lm",
                "main_aux",
                "cite_weight",
                "mean_weight",
                "mean_tau",
                "distillation",
                "teacher_tau",
                "late_weight",
                "late_tau",
                "late_distillation",
                "cited_weight",
                "cited_distillation",
                "rerank_weight",
                "attend_gold",
                "attend_gold_until"});
  LossRecipe r;
  r.routing = one_of(t, "routing", "equation5", {"equation5", "infonce"}) == "equation5" ? RoutingLoss::kEquation5
                                                                                         : RoutingLoss::kInfoNce;
  r.tau = t.number("tau", r.tau, 1e-4, 100);
  r.warm_share = t.number("warm_share", r.warm_share, 0, 1);
  r.warm_lm = t.number("warm_lm", r.warm_lm, 0, kHuge);
  r.warm_aux = t.number("warm_aux", r.warm_aux, 0, kHuge);
  r.main_lm = t.number("main_lm", r.main_lm, 0, kHuge);
  r.main_aux = t.number("main_aux", r.main_aux, 0, kHuge);
  r.cite_weight = t.number("cite_weight", r.cite_weight, 0, kHuge);
  r.mean_weight = t.number("mean_weight", r.mean_weight, 0, kHuge);
  r.mean_tau = t.number("mean_tau", r.mean_tau, 1e-4, 100);
  r.distillation = t.number("distillation", r.distillation, 0, kHuge);
  r.teacher_tau = t.number("teacher_tau", r.teacher_tau, 1e-4, kHuge);
  r.late_weight = t.number("late_weight", r.late_weight, 0, kHuge);
  r.late_tau = t.number("late_tau", r.late_tau, 1e-4, 100);
  r.late_distillation = t.number("late_distillation", r.late_distillation, 0, kHuge);
  r.cited_weight = t.number("cited_weight", r.cited_weight, 0, kHuge);
  r.cited_distillation = t.number("cited_distillation", r.cited_distillation, 0, kHuge);
  r.rerank_weight = t.number("rerank_weight", r.rerank_weight, 0, kHuge);
  r.attend_gold = t.number("attend_gold", r.attend_gold, 0, 1);
  r.attend_gold_until = t.number("attend_gold_until", r.attend_gold_until, 0, 1);
  return r;
}

EvaluationRecipe evaluation_of(const TomlFields& t, const std::string& root) {
  t.allow_only({"every", "sets"});
  EvaluationRecipe r;
  r.every = t.integer("every", r.every, 1, int64_t{1} << 40);
  for (const TomlFields& set : t.tables("sets")) {
    set.allow_only({"folder", "questions", "documents", "only_at_end"});
    EvaluationRecipe::Set s;
    s.folder = resolved(set.need_string("folder"), root);
    s.questions = set.integer("questions", s.questions, 1, 1000000);
    s.documents = set.integer("documents", s.documents, 0, int64_t{1} << 40);
    s.only_at_end = set.flag("only_at_end", false);
    r.sets.push_back(s);
  }
  return r;
}

RunRecipe run_of(const TomlFields& t, const std::string& root) {
  t.allow_only({"steps", "max_minutes", "seed", "deterministic", "recompute", "device", "batch_threads", "log_every",
                "save_every", "output", "small_checkpoint"});
  RunRecipe r;
  r.steps = t.need_integer("steps", 1, int64_t{1} << 40);
  r.max_minutes = t.number("max_minutes", r.max_minutes, 0, kHuge);
  r.seed = static_cast<uint64_t>(t.integer("seed", 1, 0, int64_t{1} << 62));
  r.deterministic = t.flag("deterministic", r.deterministic);
  const std::string recompute = one_of(t, "recompute", "none", {"none", "keep", "offload"});
  r.recompute = recompute == "none" ? Recompute::kNone : recompute == "keep" ? Recompute::kKeep : Recompute::kOffload;
  r.device = t.string("device", r.device);
  r.batch_threads = static_cast<int>(t.integer("batch_threads", r.batch_threads, 1, 64));
  r.log_every = t.integer("log_every", r.log_every, 1, int64_t{1} << 40);
  r.save_every = t.integer("save_every", r.save_every, 1, int64_t{1} << 40);
  r.output = resolved(t.need_string("output"), root);
  r.small_checkpoint = t.flag("small_checkpoint", r.small_checkpoint);
  return r;
}

}  // namespace

Recipe read_recipe(const std::string& path) {
  const toml::table table = read_toml(path);
  const std::string root = fs::absolute(path).parent_path().string();
  const TomlFields top(table, path, "");
  top.allow_only({"model", "optimizer", "loss", "data", "evaluation", "run"});
  const toml::table none;
  const auto optional = [&](const char* name) {
    return top.has(name) ? top.need_table(name) : TomlFields(none, path, name);
  };
  Recipe r;
  r.model = model_of(top.need_table("model"), root);
  r.optimizer = optimizer_of(optional("optimizer"));
  r.model.parts.layer_weights = r.optimizer.layer_weight_rate > 0;
  r.loss = loss_of(optional("loss"));
  r.data = parse_data_recipe(top.need_table("data"), root);
  r.evaluation = evaluation_of(optional("evaluation"), root);
  r.run = run_of(top.need_table("run"), root);
  r.text = std::string(MappedFile(path).text());
  return r;
}

}  // namespace msa::train
