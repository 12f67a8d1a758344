#include <algorithm>
#include <charconv>
#include <set>
#include <string_view>

#include "bank/filter.h"
#include "engine/document_adder.h"
#include "io/text.h"
#include "server/answer_json.h"
#include "server/routes.h"
#include "server/scope.h"

namespace msa::server {
namespace {

constexpr int64_t kMostListed = 1000;

Json memory_object(const DocumentRecord& d) {
  Json out = {{"id", d.id},
              {"object", "memory"},
              {"external_id", d.external_id},
              {"namespace", d.name_space},
              {"metadata", Json::parse(d.metadata_json)},
              {"version", d.version},
              {"tokens", d.n_tokens},
              {"created", d.created}};
  if (!d.text.empty()) out["text"] = d.text;
  return out;
}

struct NewMemories {
  std::string name_space;
  bool replace = false;
  std::vector<NewDocument> documents;
};

NewDocument read_document(const Fields& f) {
  NewDocument d{clean_lines(f.need_text("text")), f.text("id").value_or(""), "{}"};
  if (is_blank(d.text)) throw HttpError{400, f.path("text") + " is empty", f.path("text"), "invalid_value"};
  if (const Json* metadata = f.object("metadata")) d.metadata_json = dump(*metadata);
  return d;
}

void refuse_repeated_ids(const std::vector<NewDocument>& documents) {
  std::set<std::string_view> ids;
  for (size_t i = 0; i < documents.size(); ++i) {
    const std::string& id = documents[i].external_id;
    if (id.empty() || ids.insert(id).second) continue;
    const std::string path = "documents[" + std::to_string(i) + "].id";
    throw HttpError{400, path + ": '" + id + "' comes twice", path, "invalid_value"};
  }
}

NewMemories read_new_memories(const Json& body) {
  const Fields f(body);
  NewMemories r{f.text("namespace").value_or(""), f.boolean("replace").value_or(false), {}};
  if (const Json* list = f.array("documents")) {
    f.allow_only({"documents", "namespace", "replace"});
    for (size_t i = 0; i < list->size(); ++i) {
      const std::string path = "documents[" + std::to_string(i) + "]";
      if (!(*list)[i].is_object()) throw HttpError{400, path + " must be an object", path, "invalid_value"};
      const Fields document((*list)[i], path);
      document.allow_only({"text", "id", "metadata"});
      r.documents.push_back(read_document(document));
    }
    if (list->empty()) throw HttpError{400, "documents must not be empty", "documents", "missing_value"};
    refuse_repeated_ids(r.documents);
  } else {
    f.allow_only({"text", "id", "metadata", "namespace", "replace"});
    r.documents.push_back(read_document(f));
  }
  return r;
}

int64_t query_number(const httplib::Request& in, const char* name, int64_t otherwise, int64_t most) {
  if (!in.has_param(name)) return otherwise;
  const std::string text = in.get_param_value(name);
  int64_t value = 0;
  const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (problem != std::errc() || end != text.data() + text.size() || value < 0 || value > most) {
    throw HttpError{400, std::string(name) + " must be a whole number from 0 to " + std::to_string(most), name,
                    "invalid_value"};
  }
  return value;
}

void check_may_write(const Access& access, const std::string& name_space) {
  if (access.may_write(name_space)) return;
  throw HttpError{403, "this key may not write namespace '" + name_space + "'", "namespace", "namespace_forbidden"};
}

HttpError no_memory(DocumentId id) { return {404, "there is no memory " + std::to_string(id), "id", "not_found"}; }

Json report_object(const AddReport& r) {
  return {{"object", "memory.added"}, {"added", r.added},           {"unchanged", r.unchanged},
          {"replaced", r.replaced},   {"reinstated", r.reinstated}, {"tokens", r.tokens}};
}

}  // namespace

void Server::Routes::add_memory_routes() {
  http_.Get("/v1/memories", handled("/v1/memories", [this](Call& call) { list_memories(call); }));
  http_.Post("/v1/memories", handled("/v1/memories", [this](Call& call) { add_memories(call); }));
  http_.Post("/v1/memories/search", handled("/v1/memories/search", [this](Call& call) { search_memories(call); }));
  const char* one = "/v1/memories/([0-9]{1,18})";
  const std::string label = "/v1/memories/{id}";
  http_.Get(one, handled(label, [this](Call& call) { reply(call, 200, memory_object(found(call, false))); }));
  http_.Put(one, handled(label, [this](Call& call) { replace_memory(call); }));
  http_.Patch(one, handled(label, [this](Call& call) { change_memory(call); }));
  http_.Delete(one, handled(label, [this](Call& call) { delete_memory(call); }));
}

void Server::Routes::need_writable() const {
  if (backend_.bank.mode() == BankMode::kWrite) return;
  throw HttpError{403, "the memory is served for reading alone (fix: start the server without --read-only)", "",
                  "read_only"};
}

DocumentRecord Server::Routes::found(const Call& call, bool to_write) const {
  if (to_write) need_writable();
  const DocumentId id = std::stoll(call.in.matches[1]);
  auto record = backend_.bank.find(id);
  if (!record || !call.access.may_read(record->name_space)) throw no_memory(id);  // not there, or not for this key
  if (to_write) check_may_write(call.access, record->name_space);
  return *record;
}

/// By id, ascending: ?namespace=&filter=&after=ID&limit=N.
void Server::Routes::list_memories(Call& call) {
  ScopeRequest wanted;
  if (call.in.has_param("namespace")) wanted.namespaces = {call.in.get_param_value("namespace")};
  wanted.filter = call.in.get_param_value("filter");
  const DocumentScope scope = permitted_scope(wanted, call.access);
  const int64_t after = query_number(call.in, "after", 0, INT64_MAX);
  const auto limit = static_cast<size_t>(query_number(call.in, "limit", 100, kMostListed));
  const auto snapshot = backend_.bank.snapshot();
  const std::vector<uint8_t> permitted = backend_.bank.permitted(*snapshot, Filter::parse(scope.filter));
  std::vector<DocumentId> ids;
  size_t at = 0;
  for (size_t s = 0; s < snapshot->segments.size(); ++s) {
    const Segment& segment = *snapshot->segments[s];
    for (int64_t i = 0; i < segment.n_documents(); ++i, ++at) {
      const DocumentId id = segment.ids()[static_cast<size_t>(i)];
      if (snapshot->live[s][static_cast<size_t>(i)] != 0 && permitted[at] != 0 && id > after) ids.push_back(id);
    }
  }
  std::sort(ids.begin(), ids.end());
  Json data = Json::array();
  for (size_t i = 0; i < std::min(limit, ids.size()); ++i) {
    if (auto record = backend_.bank.find(ids[i], *snapshot)) {
      record->text.clear();
      data.push_back(memory_object(*record));
    }
  }
  reply(call, 200, {{"object", "list"}, {"data", std::move(data)}, {"has_more", ids.size() > limit}});
}

AddReport Server::Routes::add(const std::string& name_space, bool replace, std::span<const NewDocument> documents,
                              const DocumentRecord* instead_of) {
  AddReport report = queue_.run([&] {
    AdderOptions options;
    options.name_space = name_space;
    options.replace = replace;
    options.max_tokens = std::min(options.max_tokens, DocumentAdder::most_tokens(backend_.model));
    DocumentAdder adder(backend_.context, backend_.model, backend_.bank, options, backend_.ranks);
    if (instead_of != nullptr) {
      adder.only_if_live(instead_of->id);
      // A document with a name gives way to the next one of that name, another one by its number.
      if (instead_of->external_id.empty()) adder.remove(instead_of->id);
    }
    for (const NewDocument& document : documents) adder.take(document);
    adder.commit();
    return adder.report();
  });
  metrics_.count_added(static_cast<int64_t>(report.added.size()), report.tokens);
  return report;
}

void Server::Routes::add_memories(Call& call) {
  const NewMemories wanted = read_new_memories(parse_object(call.in.body));
  need_writable();
  check_may_write(call.access, wanted.name_space);
  const AddReport report = add(wanted.name_space, wanted.replace, wanted.documents);
  reply(call, 201, report_object(report));
}

void Server::Routes::search_memories(Call& call) {
  const Json body = parse_object(call.in.body);
  const Fields f(body);
  f.allow_only({"query", "top_k", "namespace", "filter", "as_of"});
  const std::string query = f.need_text("query");
  if (is_blank(query)) throw HttpError{400, "query is empty", "query", "invalid_value"};
  const auto count = static_cast<int>(f.integer("top_k", 1, kMostListed).value_or(10));
  const DocumentScope scope = permitted_scope(read_scope(f), call.access);
  const Routing routing = queue_.run([&] { return backend_.generator.route(backend_.context, query, count, scope); });
  Json data = Json::array();
  for (const RoutedDocument& d : routing.documents) {
    const auto record = backend_.bank.find(d.id, *routing.snapshot);
    if (!record) continue;  // removed and forgotten meanwhile
    Json object = memory_object(*record);
    object["score"] = d.score;
    data.push_back(std::move(object));
  }
  Json out = {{"object", "list"}, {"data", std::move(data)}, {"ms", routing.route_ms}};
  if (routing.missing.any()) out["missing"] = missing_json(routing.missing);
  reply(call, 200, out);
}

void Server::Routes::replace_memory(Call& call) {
  const Json body = parse_object(call.in.body);
  const Fields f(body);
  f.allow_only({"text", "metadata"});
  NewDocument document = read_document(f);
  const DocumentRecord old = found(call, true);
  document.external_id = old.external_id;
  if (!f.has("metadata")) document.metadata_json = old.metadata_json;
  reply(call, 200, report_object(add(old.name_space, true, std::span(&document, 1), &old)));
}

/// Metadata alone: nothing is encoded.
void Server::Routes::change_memory(Call& call) {
  const Json body = parse_object(call.in.body);
  const Fields f(body);
  f.allow_only({"metadata"});
  const Json* metadata = f.object("metadata");
  if (metadata == nullptr) throw HttpError{400, "metadata is missing", "metadata", "missing_value"};
  const DocumentRecord old = found(call, true);
  if (!backend_.bank.change_metadata(old.id, dump(*metadata))) throw no_memory(old.id);
  const auto record = backend_.bank.find(old.id);
  if (!record) throw no_memory(old.id);  // removed meanwhile
  reply(call, 200, memory_object(*record));
}

void Server::Routes::delete_memory(Call& call) {
  const DocumentRecord old = found(call, true);
  if (!backend_.bank.remove(old.id)) throw no_memory(old.id);
  reply(call, 200, {{"id", old.id}, {"object", "memory.deleted"}, {"deleted", true}});
}

}  // namespace msa::server
