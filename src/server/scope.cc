#include "server/scope.h"

#include <utility>

#include "bank/filter.h"
#include "server/http_error.h"

namespace msa::server {
namespace {

std::string in_quotes(std::string_view text) {
  std::string out = "'";
  for (const char c : text) {
    out += c;
    if (c == '\'') out += c;
  }
  return out + "'";
}

std::string in_namespaces(const std::vector<std::string>& namespaces) {
  std::string out = "namespace in (";
  for (size_t i = 0; i < namespaces.size(); ++i) out += (i == 0 ? "" : ", ") + in_quotes(namespaces[i]);
  return out + ")";
}

}  // namespace

ScopeRequest read_scope(const Fields& fields) {
  return {fields.texts("namespace", 1000), fields.text("filter").value_or(""), fields.text("as_of").value_or("")};
}

DocumentScope permitted_scope(const ScopeRequest& request, const Access& access) {
  for (const std::string& name : request.namespaces) {
    if (!access.may_read(name)) {
      throw HttpError{403, "this key may not read namespace '" + name + "'", "namespace", "namespace_forbidden"};
    }
  }
  DocumentScope scope;
  scope.as_of = request.as_of;
  std::vector<std::string> namespaces = request.namespaces;
  if (namespaces.empty() && !access.reads_all()) {
    namespaces = access.read;
    if (namespaces.empty()) {
      throw HttpError{403, "this key may read no namespace", "", "namespace_forbidden"};
    }
  }
  if (!namespaces.empty()) scope.filter = in_namespaces(namespaces);
  try {
    if (Filter::parse(request.filter).kind != Filter::Kind::kAll) {
      scope.filter += scope.filter.empty() ? request.filter : " and (" + request.filter + ")";
    }
  } catch (const Error& e) {
    throw HttpError{400, e.what(), "filter", "invalid_filter"};
  }
  return scope;
}

}  // namespace msa::server
