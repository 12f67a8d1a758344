#include "server/keys.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <iterator>

#include "core/error.h"
#include "server/http_error.h"

namespace msa::server {
namespace {

constexpr const char* kFix = R"(as {"keys": [{"name": "…", "sha256": "…", "read": ["*"], "write": []}]})";

bool allows(const std::vector<std::string>& list, std::string_view name_space) {
  return std::any_of(list.begin(), list.end(), [&](const std::string& n) { return n == "*" || n == name_space; });
}

std::string sha256_hex(std::string_view text) {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned int length = 0;
  MSA_CHECK(EVP_Digest(text.data(), text.size(), digest.data(), &length, EVP_sha256(), nullptr) == 1);
  std::string hex;
  for (unsigned int i = 0; i < length; ++i) {
    hex += "0123456789abcdef"[digest[i] >> 4];
    hex += "0123456789abcdef"[digest[i] & 15];
  }
  return hex;
}

bool is_sha256_hex(const std::string& text) {
  return text.size() == 64 && text.find_first_not_of("0123456789abcdef") == std::string::npos;
}

}  // namespace

bool Access::may_read(std::string_view name_space) const { return allows(read, name_space); }
bool Access::may_write(std::string_view name_space) const { return allows(write, name_space); }

Keys Keys::from_file(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  if (!in) throw Error("cannot be read", file.string(), "check the path given with --keys");
  const std::string text((std::istreambuf_iterator<char>(in)), {});
  Keys keys;
  try {
    const Json root = parse_object(text);
    const Fields top(root);
    top.allow_only({"keys"});
    const Json* list = top.array("keys");
    if (list == nullptr || list->empty()) throw HttpError{400, "keys must list at least one key", "keys", ""};
    for (size_t i = 0; i < list->size(); ++i) {
      const std::string path = "keys[" + std::to_string(i) + "]";
      if (!(*list)[i].is_object()) throw HttpError{400, path + " must be an object", path, ""};
      const Fields key((*list)[i], path);
      key.allow_only({"name", "sha256", "read", "write"});
      Entry entry{key.need_text("sha256"),
                  {key.need_text("name"), key.texts("read", 10000), key.texts("write", 10000)}};
      if (!is_sha256_hex(entry.sha256)) {
        throw HttpError{400, path + ".sha256 must be 64 lower-case hex digits: printf %s \"$KEY\" | sha256sum", "", ""};
      }
      keys.entries_.push_back(std::move(entry));
    }
  } catch (const HttpError& e) {
    throw Error(e.message, file.string(), kFix);
  }
  return keys;
}

std::optional<Access> Keys::find(std::string_view header) const {
  if (!required()) return Access::everything();
  constexpr std::string_view kScheme = "Bearer ";
  if (!header.starts_with(kScheme)) return std::nullopt;
  const std::string hash = sha256_hex(header.substr(kScheme.size()));
  std::optional<Access> found;
  for (const Entry& entry : entries_) {  // all of them: the time tells nothing
    if (CRYPTO_memcmp(entry.sha256.data(), hash.data(), hash.size()) == 0) found = entry.access;
  }
  return found;
}

}  // namespace msa::server
