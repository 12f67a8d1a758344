// What the server makes of bodies, keys and scopes, without HTTP.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <random>

#include "../engine/tiny_model.h"
#include "server/completions.h"
#include "server/engine_queue.h"
#include "server/http_error.h"
#include "server/keys.h"
#include "server/scope.h"
#include "server/stop_filter.h"

namespace msa::server {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

template <class F>
HttpError refusal(F f) {
  try {
    f();
  } catch (const HttpError& e) {
    return e;
  }
  ADD_FAILURE() << "nothing was refused";
  return {};
}

Json chat(const Json& more) {
  Json body = {{"model", "m"}, {"messages", Json::array({{{"role", "user"}, {"content", "Who?"}}})}};
  body.update(more);
  return body;
}

TEST(ParseObject, TakesObjectsWithinBounds) {
  EXPECT_EQ(parse_object(R"({"a": [1]})")["a"][0], 1);
  for (const char* bad : {"", "[]", "3", "{", "{\"a\": \xff}", "{\"a\": \"\xc3\x28\"}", "nul", "{}{}"}) {
    EXPECT_EQ(refusal([&] { (void)parse_object(bad); }).status, 400) << bad;
  }
  const std::string deep = R"({"a": )" + std::string(100000, '[');
  EXPECT_THAT(refusal([&] { (void)parse_object(deep); }).message, HasSubstr("64 levels"));
}

TEST(ChatRequest, ReadsEveryField) {
  const CompletionRequest r = read_chat_request(chat({{"temperature", 0.5},
                                                      {"top_p", 0.9},
                                                      {"seed", -1},
                                                      {"stop", {"a", "b"}},
                                                      {"stream", true},
                                                      {"stream_options", {{"include_usage", true}}},
                                                      {"max_tokens", 7},
                                                      {"user", "somebody"},
                                                      {"memory",
                                                       {{"namespace", "n"},
                                                        {"filter", "id > 3"},
                                                        {"top_k", 2},
                                                        {"hops", 0},
                                                        {"max_documents", 5},
                                                        {"rerank", 6},
                                                        {"min_relevance", 0.25},
                                                        {"trace", true}}}}),
                                                "memory");
  EXPECT_EQ(r.model, "m");
  EXPECT_EQ(r.question, "Who?");
  EXPECT_FLOAT_EQ(r.ask.sampling.temperature, 0.5F);
  EXPECT_FLOAT_EQ(r.ask.sampling.top_p, 0.9F);
  EXPECT_EQ(r.seed, UINT64_MAX);
  EXPECT_THAT(r.stop, ElementsAre("a", "b"));
  EXPECT_TRUE(r.stream && r.include_usage && r.trace && r.is_chat);
  EXPECT_EQ(r.ask.max_answer_tokens, 7);
  EXPECT_THAT(r.scope.namespaces, ElementsAre("n"));
  EXPECT_EQ(r.scope.filter, "id > 3");
  EXPECT_EQ(r.ask.top_k, 2);
  EXPECT_EQ(r.ask.max_hops, 0);
  EXPECT_EQ(r.ask.max_documents, 5);
  EXPECT_EQ(r.ask.rerank, 6);
  EXPECT_FLOAT_EQ(r.ask.min_relevance, 0.25F);
}

TEST(ChatRequest, CandidatesReadAreTheModelsNumberOrOneUpTo1024) {
  const auto read = [](const Json& memory) {
    return read_chat_request(chat({{"memory", memory}}), "memory").ask.rerank;
  };
  EXPECT_EQ(read(Json::object()), -1);
  EXPECT_EQ(read({{"rerank", 0}}), 0);
  EXPECT_EQ(read({{"rerank", 1024}}), 1024);
}

TEST(ChatRequest, RefusesWhatItCannotDo) {
  const std::vector<std::pair<Json, std::string>> cases = {
      {{{"tools", Json::array()}}, "tools"},
      {{{"n", 2}}, "n"},
      {{{"logprobs", true}}, "logprobs"},
      {{{"presence_penalty", 0.1}}, "presence_penalty"},
      {{{"logit_bias", {{"5", 1}}}}, "logit_bias"},
      {{{"temperature", "hot"}}, "temperature"},
      {{{"temperature", 2.1}}, "temperature"},
      {{{"top_p", 0}}, "top_p"},
      {{{"seed", 1.5}}, "seed"},
      {{{"seed", 18446744073709551615u}}, "seed"},
      {{{"max_tokens", 0}}, "max_tokens"},
      {{{"stop", 3}}, "stop"},
      {{{"model", nullptr}}, "model"},
      {{{"messages", Json::array()}}, "messages"},
      {{{"messages", "Who?"}}, "messages"},
      {{{"messages", Json::array({3})}}, "messages[0]"},
      {{{"messages", Json::array({{{"role", "assistant"}, {"content", "x"}}})}}, "messages[0].role"},
      {{{"messages", Json::array({{{"role", "user"}, {"content", nullptr}}})}}, "messages[0].content"},
      {{{"memory", {{"depth", 3}}}}, "memory.depth"},
      {{{"memory", {{"top_k", 0}}}}, "memory.top_k"},
      {{{"memory", {{"rerank", -1}}}}, "memory.rerank"},
      {{{"memory", {{"rerank", 1025}}}}, "memory.rerank"},
      {{{"memory", {{"rerank", 1.5}}}}, "memory.rerank"},
      {{{"memory", {{"rerank", "all"}}}}, "memory.rerank"},
      {{{"memory", {{"min_relevance", 1.1}}}}, "memory.min_relevance"},
      {{{"memory", 3}}, "memory"},
  };
  for (const auto& [more, param] : cases) {
    const HttpError e = refusal([&, &m = more] { (void)read_chat_request(chat(m), "memory"); });
    EXPECT_EQ(e.status, 400) << more;
    EXPECT_EQ(e.param, param) << more << e.message;
  }
  EXPECT_EQ(refusal([] { (void)read_chat_request(chat({{"memory", {{"bank", "other"}}}}), "memory"); }).status, 404);
}

TEST(QuestionOf, PutsEarlierMessagesBeforeTheLast) {
  const Json messages = Json::parse(R"([{"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "A"}, {"type": "text", "text": "B"}]},
    {"role": "assistant", "content": "C"}, {"role": "user", "content": "D?"}])");
  EXPECT_EQ(question_of(messages), "system: Be brief.\nuser: A\nB\nassistant: C\nD?");
  EXPECT_EQ(question_of(Json::parse(R"([{"role": "user", "content": "D?"}])")), "D?");
  const Json image = Json::parse(R"([{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}])");
  EXPECT_EQ(refusal([&] { (void)question_of(image); }).code, "unsupported_value");
}

/// However a text is cut into pieces, what comes through is what stands before the first stop sequence.
TEST(StopFilter, DoesNotDependOnThePieces) {
  const uint64_t seed = std::random_device{}();
  std::mt19937_64 random(seed);
  SCOPED_TRACE("seed " + std::to_string(seed));
  for (int round = 0; round < 2000; ++round) {
    std::string text;
    for (uint64_t n = random() % 20; n > 0; --n) text += static_cast<char>('a' + random() % 2);
    std::vector<std::string> stops;
    for (uint64_t n = random() % 3; n > 0; --n) {
      std::string stop;
      for (uint64_t m = random() % 5; m > 0; --m) stop += static_cast<char>('a' + random() % 2);
      stops.push_back(stop);
    }
    size_t end = std::string::npos;
    for (const std::string& stop : stops) end = stop.empty() ? end : std::min(end, text.find(stop));
    StopFilter filter(stops);
    std::string out;
    for (size_t at = 0; at < text.size() && !filter.stopped();) {
      const size_t n = 1 + random() % 4;
      out += filter.feed(std::string_view(text).substr(at, n));
      at += n;
    }
    out += filter.finish();
    // Two sequences may begin at different places and be complete in another order.
    if (end == std::string::npos) {
      EXPECT_EQ(out, text);
    } else {
      EXPECT_TRUE(filter.stopped());
      EXPECT_TRUE(text.starts_with(out));
      for (const std::string& stop : stops) EXPECT_TRUE(stop.empty() || out.find(stop) == std::string::npos);
    }
  }
}

class KeysTest : public ::testing::Test {
 protected:
  Keys read(const std::string& text) const {
    std::ofstream(folder_.path() / "keys.json") << text;
    return Keys::from_file(folder_.path() / "keys.json");
  }
  msa::testing::TemporaryFolder folder_;
};

// SHA-256 of "secret".
constexpr const char* kSecret = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";

TEST_F(KeysTest, FindsAKeyAndWhatItMay) {
  const Keys keys = read(R"({"keys": [{"name": "a", "sha256": ")" + std::string(kSecret) +
                         R"(", "read": ["x", ""], "write": "x"}]})");
  EXPECT_TRUE(keys.required());
  const auto access = keys.find("Bearer secret");
  ASSERT_TRUE(access);
  EXPECT_TRUE(access->may_read("x") && access->may_read("") && access->may_write("x"));
  EXPECT_FALSE(access->may_read("y") || access->may_write("") || access->reads_all());
  for (const char* other : {"", "secret", "Bearer", "Bearer ", "Bearer Secret", "Bearer secret ", "bearer secret"}) {
    EXPECT_FALSE(keys.find(other)) << other;
  }
  EXPECT_TRUE(Keys().find("")->reads_all());
}

TEST_F(KeysTest, NamesWhatIsWrong) {
  for (const char* bad : {"", "[]", "{}", R"({"keys": []})", R"({"keys": [3]})", R"({"keys": [{"name": "a"}]})",
                          R"({"keys": [{"name": "a", "sha256": "12"}]})", R"({"kees": []})"}) {
    EXPECT_THROW((void)read(bad), Error) << bad;
  }
  EXPECT_THROW((void)Keys::from_file(folder_.path() / "none"), Error);
}

TEST(Scope, StaysWithinTheKey) {
  const Access some{"s", {"it's", "b"}, {}};
  EXPECT_EQ(permitted_scope({}, Access::everything()).filter, "");
  EXPECT_EQ(permitted_scope({}, some).filter, "namespace in ('it''s', 'b')");
  EXPECT_EQ(permitted_scope({{"b"}, "id = 1 or id = 2", ""}, some).filter, "namespace in ('b') and (id = 1 or id = 2)");
  EXPECT_EQ(refusal([&] { (void)permitted_scope({{"c"}, "", ""}, some); }).status, 403);
  EXPECT_EQ(refusal([&] { (void)permitted_scope({}, Access{"n", {}, {}}); }).status, 403);
  EXPECT_EQ(refusal([&] { (void)permitted_scope({{}, "id = 1) or (id = 2", ""}, some); }).status, 400);
}

TEST(EngineQueue, RefusesWhenFullAndWhenClosed) {
  EngineQueue queue(1);
  std::promise<void> started, go;
  queue.push([&] {
    started.set_value();
    go.get_future().wait();
  });
  started.get_future().wait();
  std::promise<int> waiting;
  queue.push([&] {
    try {
      queue.refuse_if_closed();
      waiting.set_value(0);
    } catch (const HttpError& e) {
      waiting.set_value(e.status);
    }
  });
  EXPECT_EQ(queue.size(), 1u);
  EXPECT_EQ(refusal([&] { queue.push([] {}); }).status, 429);
  std::thread closer([&] { queue.close(); });
  while (refusal([&] { queue.push([] {}); }).status != 503) std::this_thread::yield();
  go.set_value();
  closer.join();
  EXPECT_EQ(waiting.get_future().get(), 503);
}

TEST(EngineQueue, PassesOnWhatAJobThrows) {
  EngineQueue queue(4);
  EXPECT_EQ(queue.run([] { return 3; }), 3);
  EXPECT_THROW(queue.run([]() -> int { throw Error("a", "b"); }), Error);
}

}  // namespace
}  // namespace msa::server
