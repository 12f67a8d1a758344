// Small BEIR sets, a byte-level tokenizer and a template, written to a folder that goes away with the test.
#pragma once
#include <fstream>
#include <optional>
#include <string>
#include <vector>

#include "../engine/tiny_model.h"
#include "core/thread_pool.h"
#include "tokenizer/template.h"
#include "tokenizer/tokenizer.h"
#include "train/data/batcher.h"
#include "train/data/recipe.h"
#include "train/data/training_data.h"

namespace msa::train {

using msa::testing::TemporaryFolder;

struct TinyQuestion {
  std::string id, text;
  std::vector<std::string> answers;
  std::vector<std::string> gold;
  std::vector<std::string> hops = {};
  std::string type = "";
};

struct TinyDocument {
  std::string id, title, text;
};

class TinySets {
 public:
  TinySets() {
    msa::testing::write_tokenizer(folder.path());
    msa::testing::write_template(folder.path());
    tokenizer.emplace(Tokenizer::from_json_file((folder.path() / "tokenizer.json").string()));
    prompts.emplace(PromptTemplate::load((folder.path() / "msa_template.json").string(), *tokenizer));
  }

  std::string path(const std::string& name) const { return (folder.path() / name).string(); }

  void write(const std::string& name, const std::string& bytes) const {
    std::filesystem::create_directories((folder.path() / name).parent_path());
    std::ofstream(folder.path() / name, std::ios::binary) << bytes;
  }

  void write_set(const std::string& name, const std::vector<TinyDocument>& documents,
                 const std::vector<TinyQuestion>& questions) const {
    std::string corpus, queries, qrels = "query-id\tcorpus-id\tscore\n";
    for (const TinyDocument& d : documents) {
      corpus += nlohmann::json{{"_id", d.id}, {"title", d.title}, {"text", d.text}}.dump() + "\n";
    }
    for (const TinyQuestion& q : questions) {
      nlohmann::json line = {{"_id", q.id}, {"text", q.text}, {"answers", q.answers}, {"type", q.type}};
      if (!q.hops.empty()) line["hops"] = q.hops;
      queries += line.dump() + "\n";
      for (const std::string& gold : q.gold) qrels += q.id + "\t" + gold + "\t1\n";
    }
    write(name + "/corpus.jsonl", corpus);
    if (questions.empty()) return;
    write(name + "/queries.jsonl", queries);
    write(name + "/qrels.tsv", qrels);
  }

  /// Documents d0 … of articles of four each, two questions about every document.
  void write_numbered_set(const std::string& name, int n) const {
    std::vector<TinyDocument> documents;
    std::vector<TinyQuestion> questions;
    for (int i = 0; i < n; ++i) {
      const std::string number = std::to_string(i);
      documents.push_back(
          {"d" + number, "Article " + std::to_string(i / 4), name + " text " + number + " says ans" + number});
      for (const std::string which : {"a", "b"}) {
        questions.push_back({"q" + number + which,
                             "What does " + name + " " + number + which + " say?",
                             {"ans" + number},
                             {"d" + number},
                             {},
                             which});
      }
    }
    write_set(name, documents, questions);
  }

  DataRecipe recipe(const std::string& data) const {
    const toml::table table = toml::parse("[data]\n" + data);
    return parse_data_recipe(TomlFields(table, "recipe.toml", "").need_table("data"), folder.path().string());
  }

  TrainingData load(const DataRecipe& recipe) const {
    ThreadPool pool(2);
    return load_training_data(recipe, *tokenizer, pool);
  }

  std::string decode(std::span<const int32_t> tokens) const {
    return tokenizer->decode(tokens, /*skip_special=*/false);
  }

  TemporaryFolder folder;
  std::optional<Tokenizer> tokenizer;
  std::optional<PromptTemplate> prompts;
};

/// What an Error says, or "no error".
template <class F>
std::string error_of(F&& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

}  // namespace msa::train
