#include "eval/judge.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <httplib.h>

#include <atomic>
#include <nlohmann/json.hpp>
#include <thread>
#include <vector>

#include "core/error.h"

namespace msa::eval {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

TEST(ScoreInReply, TheLastLabelledNumber) {
  EXPECT_EQ(score_in_reply("score: 4"), 4.0);
  EXPECT_EQ(score_in_reply("A score: 2 at first sight.\nScore: 3.5/5\n"), 3.5);
  EXPECT_EQ(score_in_reply("**score:** 0"), 0.0);
  EXPECT_EQ(score_in_reply("score: 5."), 5.0);
}

TEST(ScoreInReply, NothingElseIsAScore) {
  for (const char* reply : {"", "4", "score:", "score: good", "score: 6", "score: -1", "score: nan", "score: 1e9"}) {
    EXPECT_EQ(score_in_reply(reply), std::nullopt) << reply;
  }
}

/// An endpoint on this machine that answers what the test says.
class JudgeEndpoint : public ::testing::Test {
 protected:
  void SetUp() override {
    server_.Post("/v1/chat/completions", [this](const httplib::Request& request, httplib::Response& response) {
      ++requests_;
      authorization_ = request.get_header_value("Authorization");
      body_ = json::parse(request.body, nullptr, false);
      response.status = requests_ <= failures_ ? failure_ : 200;
      response.set_content(reply_, "application/json");
    });
    port_ = server_.bind_to_any_port("127.0.0.1");
    ASSERT_GT(port_, 0);
    thread_ = std::thread([this] { server_.listen_after_bind(); });
    while (!server_.is_running()) std::this_thread::yield();
  }
  void TearDown() override {
    server_.stop();
    thread_.join();
  }

  std::optional<double> grade(const std::string& reply) {
    reply_ = reply;
    requests_ = 0;
    const Judge judge({"http://127.0.0.1:" + std::to_string(port_) + "/v1/", "grader", "secret"});
    return judge.grade("Who built it?", answers_, "Ada did");
  }
  static std::string completion(const std::string& text) {
    return json{{"choices", {{{"message", {{"content", text}}}}}}}.dump();
  }
  void expect_error(const std::string& reply, const std::string& message) {
    try {
      grade(reply);
      ADD_FAILURE() << "no error for " << reply;
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), HasSubstr(message));
    }
  }

  const std::vector<std::string> answers_{"Ada", "Ada Lovelace"};
  httplib::Server server_;
  std::thread thread_;
  int port_ = 0;
  std::atomic<int> requests_ = 0;
  int failures_ = 0, failure_ = 500;  // the first requests fail, with this status
  std::string reply_, authorization_;
  json body_;
};

TEST_F(JudgeEndpoint, IsAskedWithQuestionAnswersAndPrediction) {
  EXPECT_EQ(grade(completion("Right.\nscore: 5")), 5.0);
  EXPECT_EQ(requests_, 1);
  EXPECT_EQ(authorization_, "Bearer secret");
  EXPECT_EQ(body_["model"], "grader");
  const std::string prompt = body_["messages"][0]["content"];
  EXPECT_THAT(prompt, HasSubstr("Question: Who built it?"));
  EXPECT_THAT(prompt, HasSubstr("Reference answer: Ada\nReference answer: Ada Lovelace"));
  EXPECT_THAT(prompt, HasSubstr("Answer to grade: Ada did"));
}

TEST_F(JudgeEndpoint, AReplyWithoutScoreIsNoGrade) { EXPECT_EQ(grade(completion("I cannot say.")), std::nullopt); }

TEST_F(JudgeEndpoint, IsAskedAgainWhileItIsBusy) {
  failures_ = 1;
  failure_ = 429;
  EXPECT_EQ(grade(completion("score: 2")), 2.0);
  EXPECT_EQ(requests_, 2);
}

TEST_F(JudgeEndpoint, ARefusedRequestIsNotRepeated) {
  failures_ = 100;
  failure_ = 401;
  expect_error("no such key", "status 401: no such key");
  EXPECT_EQ(requests_, 1);
}

TEST_F(JudgeEndpoint, WhatIsNoCompletionIsAnError) {
  for (const char* reply : {"", "<html>", "[]", "{}", R"({"choices": []})", R"({"choices": [{"message": {}}]})"}) {
    expect_error(reply, "no chat completion");
  }
}

TEST(Judge, AnAddressThatIsNone) {
  for (const char* url : {"", "host/v1", "ftp://host/v1", "http://", "http:///v1"}) {
    EXPECT_THROW(Judge({url, "grader", ""}), Error) << url;
  }
}

}  // namespace
}  // namespace msa::eval
