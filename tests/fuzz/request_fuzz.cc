// Any bytes as a request's body are taken or refused with status 400 or 404, and stop sequences cut alike however a
// text comes in pieces.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "server/completions.h"
#include "server/http_error.h"
#include "server/stop_filter.h"

namespace {

using msa::server::HttpError;
using msa::server::Json;

template <class F>
void is_refused_or_not(F read) {
  try {
    static_cast<void>(read());
  } catch (const HttpError& e) {
    MSA_CHECK((e.status == 400 || e.status == 404) && !e.message.empty());
    static_cast<void>(msa::server::dump(to_json(e)));
  }
}

void check_stop(std::string_view stop, std::string_view text) {
  msa::server::StopFilter whole({std::string(stop)}), pieces({std::string(stop)});
  std::string expected = whole.feed(text);
  expected += whole.finish();
  std::string got;
  for (const char c : text) got += pieces.feed({&c, 1});
  got += pieces.finish();
  MSA_CHECK(got == expected);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view body(reinterpret_cast<const char*>(data), size);
  is_refused_or_not([&] {
    const Json parsed = msa::server::parse_object(body);
    is_refused_or_not([&] { return msa::server::read_chat_request(parsed, "memory"); });
    is_refused_or_not([&] { return msa::server::read_completion_request(parsed, "memory"); });
    return 0;
  });
  if (size > 4) check_stop(body.substr(0, 1 + data[0] % 3), body.substr(4));
  return 0;
}
