// The server over HTTP, with a tiny model.
#include "server/server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <httplib.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <random>

#include "../engine/tiny_model.h"
#include "engine/encoder.h"
#include "engine/generator.h"

namespace msa::server {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

class ServerTest : public ::testing::Test {
 protected:
  ServerTest() { msa::testing::write_tiny_model(folder_.path() / "tiny"); }

  void start(const ServerOptions& wanted = {}) {
    model_.emplace(context_, (folder_.path() / "tiny").string(), Precision::kF32);
    bank_ = Bank::create_or_open(folder_.path() / "bank", bank_shape(model_->transformer()), BankMode::kWrite);
    bank_->skip_ids_below(7);  // a new bank's ids would begin at random, and a tiny model's answer hangs on them
    generator_.emplace(*model_, *bank_);
    ServerOptions options = wanted;
    options.port = 0;
    server_.emplace(Backend{context_, *model_, *bank_, *generator_, nullptr, "tiny", "bank"}, options);
    client_.emplace("127.0.0.1", server_->port());
    client_->set_read_timeout(60);
  }
  void TearDown() override { server_.reset(); }

  struct Reply {
    int status = 0;
    std::string body;
    json object() const { return json::parse(body); }
  };
  static Reply of(const httplib::Result& result) {
    return result ? Reply{result->status, result->body} : Reply{-1, httplib::to_string(result.error())};
  }
  Reply post(const std::string& path, const std::string& body) {
    return of(client_->Post(path, body, "application/json"));
  }
  Reply post(const std::string& path, const json& body) { return post(path, body.dump()); }
  Reply get(const std::string& path) { return of(client_->Get(path)); }

  void add_texts(int n, const std::string& name_space = "") {
    json documents = json::array();
    for (int i = 0; i < n; ++i) {
      documents.push_back({{"text", "Document " + std::to_string(i * 7919) + " tells of " + std::string(i % 9, 'x')},
                           {"id", name_space + std::to_string(i)},
                           {"metadata", {{"n", i}}}});
    }
    const Reply r = post("/v1/memories", {{"documents", documents}, {"namespace", name_space}});
    ASSERT_EQ(r.status, 201) << r.body;
    ASSERT_EQ(r.object()["added"].size(), static_cast<size_t>(n));
  }
  static json question(const std::string& text) {
    return {{"model", "tiny"}, {"max_tokens", 12}, {"messages", {{{"role", "user"}, {"content", text}}}}};
  }

  msa::testing::TemporaryFolder folder_;
  Context context_{1, Device{}};
  std::optional<Model> model_;
  std::unique_ptr<Bank> bank_;
  std::optional<Generator> generator_;
  std::optional<Server> server_;
  std::optional<httplib::Client> client_;
};

TEST_F(ServerTest, KeepsAndForgetsMemories) {
  start();
  add_texts(5);
  json list = get("/v1/memories?limit=3").object();
  ASSERT_EQ(list["data"].size(), 3u);
  EXPECT_TRUE(list["has_more"]);
  const int64_t first = list["data"][0]["id"];
  EXPECT_FALSE(list["data"][0].contains("text"));
  EXPECT_EQ(get("/v1/memories?filter=n%20%3E%3D%203").object()["data"].size(), 2u);
  EXPECT_EQ(get("/v1/memories?after=" + std::to_string(first)).object()["data"].size(), 4u);
  const std::string path = "/v1/memories/" + std::to_string(first);
  EXPECT_THAT(get(path).object()["text"].get<std::string>(), HasSubstr("Document 0"));

  EXPECT_EQ(post("/v1/memories", json{{"text", "Another."}, {"id", "0"}}).status, 409);
  EXPECT_EQ(post("/v1/memories", json{{"text", "Document 0 tells of "}, {"id", "0"}}).object()["unchanged"], 1);
  const Reply patched = of(client_->Patch(path, R"({"metadata": {"n": 50}})", "application/json"));
  EXPECT_EQ(patched.status, 200);
  EXPECT_EQ(patched.object()["metadata"]["n"], 50);
  const Reply put = of(client_->Put(path, R"({"text": "Quite another."})", "application/json"));
  ASSERT_EQ(put.status, 200) << put.body;
  EXPECT_EQ(get(path).status, 404);
  const std::string next = "/v1/memories/" + put.object()["added"][0].dump();
  EXPECT_EQ(get(next).object()["metadata"]["n"], 50);
  EXPECT_EQ(of(client_->Delete(next)).status, 200);
  EXPECT_EQ(of(client_->Delete(next)).status, 404);
  EXPECT_EQ(get("/health").object()["documents"], 4);

  // A text without a name of its own is replaced by its number.
  const json unnamed = post("/v1/memories", json{{"text", "No name."}}).object();
  const std::string one = "/v1/memories/" + unnamed["added"][0].dump();
  EXPECT_EQ(of(client_->Put(one, R"({"text": "Still none."})", "application/json")).status, 200);
  EXPECT_EQ(get("/health").object()["documents"], 5);
}

TEST_F(ServerTest, SearchesAsRouteDoes) {
  start();
  add_texts(6);
  const json found = post("/v1/memories/search", json{{"query", "Who tells?"}, {"top_k", 4}}).object();
  Generator other(*model_, *bank_);
  const Routing routing = other.route(context_, "Who tells?", 4);
  ASSERT_EQ(found["data"].size(), 4u);
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(found["data"][i]["id"], routing.documents[i].id);
    EXPECT_FLOAT_EQ(found["data"][i]["score"].get<float>(), routing.documents[i].score);
  }
  const json few = post("/v1/memories/search", json{{"query", "Who tells?"}, {"filter", "n = 2"}}).object();
  ASSERT_EQ(few["data"].size(), 1u);
  EXPECT_EQ(few["data"][0]["metadata"]["n"], 2);
}

TEST_F(ServerTest, SplitsTextsForASmallContext) {
  msa::testing::write_tiny_model(folder_.path() / "tiny", {.max_positions = 256});
  start();
  const Reply added = post("/v1/memories", json{{"text", std::string(400, 'x')}, {"id", "long"}});
  ASSERT_EQ(added.status, 201) << added.body;
  EXPECT_GT(added.object()["added"].size(), 2u);
}

TEST_F(ServerTest, AChangeDoesNotBringBackWhatIsRemovedMeanwhile) {
  start();
  add_texts(40);
  const json all = get("/v1/memories").object()["data"];
  for (const json& memory : all) {
    const std::string path = "/v1/memories/" + memory["id"].dump();
    std::atomic<bool> begun = false, ended = false;
    std::jthread changer([&] {
      httplib::Client client("127.0.0.1", server_->port());
      while (!ended) {
        const int status = of(client.Patch(path, R"({"metadata": {"n": 50}})", "application/json")).status;
        EXPECT_THAT(status, ::testing::AnyOf(200, 404));
        begun = true;
      }
    });
    while (!begun) std::this_thread::yield();
    EXPECT_EQ(of(client_->Delete(path)).status, 200);
    ended = true;
  }
  EXPECT_EQ(get("/health").object()["documents"], 0);
}

TEST_F(ServerTest, SearchesTheMemoryOfThen) {
  start();
  add_texts(3);
  const json first = get("/v1/memories").object()["data"][0];
  const std::string path = "/v1/memories/" + first["id"].dump();
  ASSERT_EQ(of(client_->Patch(path, R"({"metadata": {"n": 50}})", "application/json")).status, 200);
  ASSERT_EQ(of(client_->Delete(path)).status, 200);
  json search = {{"query", "Who tells?"}, {"filter", "n = 0 or n = 50"}};
  EXPECT_TRUE(post("/v1/memories/search", search).object()["data"].empty());
  search["as_of"] = first["created"];
  const json then = post("/v1/memories/search", search).object()["data"];
  ASSERT_EQ(then.size(), 1u);
  EXPECT_EQ(then[0]["id"], first["id"]);
  EXPECT_EQ(then[0]["metadata"]["n"], 0);
}

TEST_F(ServerTest, AnswersAsAskDoesWholeAndInPieces) {
  start();
  add_texts(6);
  json body = question("Who tells of it?");
  body["memory"] = {{"trace", true}};
  const Reply whole = post("/v1/chat/completions", body);
  ASSERT_EQ(whole.status, 200) << whole.body;
  const json reply = whole.object();
  AskOptions ask;
  ask.max_answer_tokens = 12;
  const Answer expected = Generator(*model_, *bank_).ask(context_, "Who tells of it?", ask);
  EXPECT_EQ(reply["object"], "chat.completion");
  EXPECT_EQ(reply["usage"]["completion_tokens"], expected.answer_tokens);
  ASSERT_EQ(reply["memory"]["documents"].size(), expected.documents.size());
  ASSERT_GT(expected.documents.size(), 0u);
  for (size_t i = 0; i < expected.documents.size(); ++i) {
    EXPECT_EQ(reply["memory"]["documents"][i]["id"], expected.documents[i].id);
  }
  EXPECT_EQ(reply["memory"]["hops"].size(), expected.hops.size());

  body["stream"] = true;
  body["stream_options"] = {{"include_usage", true}};
  const Reply stream = post("/v1/chat/completions", body);
  ASSERT_EQ(stream.status, 200);
  std::string text, finish;
  json memory, usage;
  std::istringstream lines(stream.body);
  bool done = false;
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with("data: ")) continue;
    EXPECT_FALSE(done);
    done = line == "data: [DONE]";
    if (done) continue;
    const json chunk = json::parse(line.substr(6));
    EXPECT_EQ(chunk["object"], "chat.completion.chunk");
    if (chunk.contains("usage")) usage = chunk["usage"];
    if (chunk.contains("memory")) memory = chunk["memory"];
    for (const json& c : chunk["choices"]) {
      text += c["delta"].value("content", "");
      if (c["finish_reason"].is_string()) finish = c["finish_reason"];
    }
  }
  EXPECT_TRUE(done);
  EXPECT_EQ(text, reply["choices"][0]["message"]["content"]);
  EXPECT_EQ(finish, reply["choices"][0]["finish_reason"]);
  EXPECT_EQ(usage, reply["usage"]);
  EXPECT_EQ(memory["documents"], reply["memory"]["documents"]);
}

TEST_F(ServerTest, ReadsCandidatesOnDemandWhereTheModelHasPromptsForIt) {
  const std::filesystem::path path = folder_.path() / "tiny" / "msa_template.json";
  json prompts = json::parse(std::ifstream(path));
  json body = question("Who tells of it?");
  body["memory"] = {{"trace", true}, {"rerank", 3}};
  start();
  add_texts(6);
  const Reply read = post("/v1/chat/completions", body);
  ASSERT_EQ(read.status, 200) << read.body;
  const json memory = read.object()["memory"];
  EXPECT_EQ(memory["hops"][0]["read"].size(), 3u);
  ASSERT_FALSE(memory["documents"].empty());
  for (const json& d : memory["documents"]) EXPECT_TRUE(d.contains("relevance")) << d;
  EXPECT_FALSE(memory.contains("not_found"));

  json strict = body;
  strict["memory"]["min_relevance"] = 1;
  const json nothing = post("/v1/chat/completions", strict).object();
  EXPECT_EQ(nothing["memory"]["not_found"], true);
  EXPECT_EQ(nothing["choices"][0]["message"]["content"], kNotFound);
  EXPECT_EQ(nothing["choices"][0]["finish_reason"], "stop");
  strict["memory"]["rerank"] = 0;
  const Reply unread = post("/v1/chat/completions", strict);
  EXPECT_EQ(unread.status, 400) << unread.body;
  EXPECT_EQ(unread.object()["error"]["param"], "memory.min_relevance");

  server_.reset();
  bank_.reset();
  prompts["id_decoding"].erase("rerank");
  std::ofstream(path) << prompts.dump();
  start();
  const Reply refused = post("/v1/chat/completions", body);
  EXPECT_EQ(refused.status, 400) << refused.body;
  EXPECT_EQ(refused.object()["error"]["param"], "memory.rerank");
}

TEST_F(ServerTest, RefusesInOpenAIsShape) {
  start();
  const auto expect = [&](const Reply& r, int status, const std::string& code) {
    EXPECT_EQ(r.status, status) << r.body;
    EXPECT_EQ(r.object()["error"]["code"], code) << r.body;
    EXPECT_FALSE(r.object()["error"]["message"].get<std::string>().empty());
  };
  json body = question("Who?");
  body["model"] = "gpt";
  expect(post("/v1/chat/completions", body), 404, "model_not_found");
  expect(post("/v1/chat/completions", question(" ")), 400, "missing_value");
  expect(post("/v1/chat/completions", question(std::string(5000, 'x'))), 400, "context_length_exceeded");
  body = question(std::string(5000, 'x'));
  body["stream"] = true;  // before the first event an error is a reply of its own
  expect(post("/v1/chat/completions", body), 400, "context_length_exceeded");
  expect(post("/v1/completions", json{{"model", "tiny"}}), 400, "missing_value");
  body = question("Who?");
  body["memory"] = {{"filter", "namespace ="}};
  expect(post("/v1/chat/completions", body), 400, "invalid_filter");
  for (const bool stream : {false, true}) {
    body["memory"] = {{"as_of", "yesterday"}};
    body["stream"] = stream;
    expect(post("/v1/chat/completions", body), 400, "invalid_time");
  }
  expect(post("/v1/memories/search", json{{"query", "Who?"}, {"as_of", "yesterday"}}), 400, "invalid_time");
  const json one = {{"id", "a"}, {"text", "First."}}, other = {{"id", "a"}, {"text", "Second."}};
  expect(post("/v1/memories", json{{"documents", {one, other}}}), 400, "invalid_value");
  expect(get("/v1/nothing"), 404, "not_found");
  expect(get("/v1/memories/999999"), 404, "not_found");
  expect(get("/v1/memories?limit=-1"), 400, "invalid_value");
  expect(get("/v1/models/gpt"), 404, "model_not_found");
  EXPECT_EQ(get("/v1/models/tiny").object()["id"], "tiny");
}

TEST_F(ServerTest, AClientThatLeavesEndsItsAnswer) {
  start();
  add_texts(4);
  json body = question("Who tells of it?");
  body["max_tokens"] = 500;
  const std::string text = body.dump();
  const std::string request = "POST /v1/chat/completions HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\n" +
                              ("Content-Length: " + std::to_string(text.size())) + "\r\n\r\n" + text;
  {
    const int leaving = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    to.sin_port = htons(static_cast<uint16_t>(server_->port()));
    ASSERT_EQ(connect(leaving, reinterpret_cast<const sockaddr*>(&to), sizeof to), 0);
    ASSERT_EQ(send(leaving, request.data(), request.size(), 0), static_cast<ssize_t>(request.size()));
    close(leaving);
  }
  std::string metrics;
  for (int i = 0; i < 600 && metrics.find("route=\"/v1/chat/completions\"") == std::string::npos; ++i) {
    usleep(50'000);
    metrics = get("/metrics").body;
  }
  EXPECT_THAT(metrics, HasSubstr("msa_requests_total{route=\"/v1/chat/completions\",status=\"499\"} 1"));
  EXPECT_THAT(metrics, HasSubstr("msa_tokens_total{kind=\"answer\"} 0"));
  EXPECT_EQ(post("/v1/chat/completions", question("Who tells of it?")).status, 200);
}

TEST_F(ServerTest, OutlivesHostileBytes) {
  start();
  const uint64_t seed = std::random_device{}();
  std::mt19937_64 random(seed);
  SCOPED_TRACE("seed " + std::to_string(seed));
  const std::string good = question("Who?").dump();
  for (int i = 0; i < 300; ++i) {
    std::string body = good;
    for (uint64_t n = 1 + random() % 4; n > 0; --n) body[random() % body.size()] = static_cast<char>(random());
    const char* path = i % 3 == 0 ? "/v1/memories" : i % 3 == 1 ? "/v1/chat/completions" : "/v1/memories/search";
    const int status = post(path, body).status;
    EXPECT_TRUE(status == 200 || status == 201 || (status >= 400 && status < 500)) << status << " " << body;
  }
  EXPECT_EQ(get("/health").status, 200);
}

TEST_F(ServerTest, TooLargeABodyIsRefused) {
  ServerOptions options;
  options.max_body_bytes = 1000;
  start(options);
  const std::string body = json{{"text", std::string(2000, 'x')}}.dump();
  EXPECT_EQ(post("/v1/memories", body).status, 413);
  const auto in_chunks = [&](size_t offset, httplib::DataSink& sink) {
    if (offset < body.size()) return sink.write(body.data() + offset, body.size() - offset);
    sink.done();
    return true;
  };
  // The connection is closed on what was not read, so that the reply may not arrive.
  EXPECT_THAT(of(client_->Post("/v1/memories", in_chunks, "application/json")).status, ::testing::AnyOf(411, -1));
  EXPECT_EQ(get("/health").object()["documents"], 0);
}

/// The key "secret" reads "a" alone and writes it; "admin" does everything.
TEST_F(ServerTest, KeysBoundWhatIsSeen) {
  std::ofstream(folder_.path() / "keys.json")
      << R"({"keys": [{"name": "s", "sha256": "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b",
                       "read": ["a"], "write": ["a"]},
                      {"name": "admin", "sha256": "8c6976e5b5410415bde908bd4dee15dfb167a9c873fc4bb8a81f6f2ab448a918",
                       "read": "*", "write": "*"}]})";
  ServerOptions options;
  options.keys = Keys::from_file(folder_.path() / "keys.json");
  start(options);
  EXPECT_EQ(get("/health").status, 200);
  EXPECT_EQ(get("/v1/memories").status, 401);
  EXPECT_EQ(get("/metrics").status, 401);
  client_->set_bearer_token_auth("admin");
  add_texts(4, "a");
  add_texts(4, "b");
  const int64_t hidden = get("/v1/memories?namespace=b").object()["data"][0]["id"];
  client_->set_bearer_token_auth("secret");
  EXPECT_EQ(get("/v1/memories").object()["data"].size(), 4u);
  EXPECT_EQ(get("/v1/memories?namespace=b").status, 403);
  EXPECT_EQ(get("/v1/memories/" + std::to_string(hidden)).status, 404);
  EXPECT_EQ(of(client_->Delete("/v1/memories/" + std::to_string(hidden))).status, 404);
  EXPECT_EQ(post("/v1/memories", json{{"text", "x"}, {"namespace", "b"}}).status, 403);
  EXPECT_EQ(post("/v1/memories/search", json{{"query", "Who?"}, {"top_k", 100}}).object()["data"].size(), 4u);
  json all = question("Who tells of it?");
  all["memory"] = {{"filter", "namespace = 'b' or namespace = 'a'"}, {"trace", true}};
  const json reply = post("/v1/chat/completions", all).object();
  for (const json& hop : reply["memory"]["hops"]) {
    for (const json& d : hop["routed"]) EXPECT_THAT(d["external_id"].get<std::string>(), ::testing::StartsWith("a"));
  }
}

TEST_F(ServerTest, ServesStrangersOnlyWithKeys) {
  ServerOptions options;
  options.host = "0.0.0.0";
  EXPECT_THROW(start(options), Error);
  options.host = "127.0.0.1";
  server_.reset();
  generator_.reset();
  bank_.reset();
  start(options);
  ServerOptions taken;
  taken.port = server_->port();
  EXPECT_THROW(Server(Backend{context_, *model_, *bank_, *generator_, nullptr, "tiny", "bank"}, taken), Error);
}

TEST_F(ServerTest, EightClientsAtOnce) {
  start();
  add_texts(4);
  std::vector<std::thread> clients;
  std::atomic<int> failures = 0;
  for (int c = 0; c < 8; ++c) {
    clients.emplace_back([&, c] {
      httplib::Client client("127.0.0.1", server_->port());
      client.set_read_timeout(60);
      for (int i = 0; i < 4; ++i) {
        const std::string id = std::to_string(c) + "-" + std::to_string(i);
        const auto added =
            client.Post("/v1/memories", json{{"text", "Text " + id}, {"id", id}}.dump(), "application/json");
        const auto answer =
            client.Post("/v1/chat/completions", question("Who is " + id + "?").dump(), "application/json");
        const auto list = client.Get("/v1/memories?limit=1000");
        if (!added || added->status != 201 || !answer || answer->status != 200 || !list ||
            list->body.find('"' + id + '"') == std::string::npos) {
          ++failures;
        }
      }
    });
  }
  for (std::thread& c : clients) c.join();
  EXPECT_EQ(failures, 0);
  EXPECT_EQ(get("/health").object()["documents"], 36);
  EXPECT_EQ(bank_->verify(), std::vector<std::string>{});
}

TEST_F(ServerTest, TheClientsOfOthersUnderstandIt) {
#ifdef MSA_PYTHON
  start();
  add_texts(6);
  const std::string command =
      std::string(MSA_PYTHON) + " " MSA_SOURCE_DIR "/tests/server/clients.py " + std::to_string(server_->port());
  const int status = std::system(command.c_str());
  if (WEXITSTATUS(status) == 77) GTEST_SKIP() << "the packages openai and prometheus-client are missing";
  EXPECT_EQ(status, 0);
#else
  GTEST_SKIP() << "no Python with openai and prometheus-client (-DMSA_PYTHON=…)";
#endif
}

}  // namespace
}  // namespace msa::server
