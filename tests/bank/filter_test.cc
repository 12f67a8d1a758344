// Filters: what they permit, compared with plain C++ over the same documents, and what hostile text cannot do.
#include "bank/filter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "bank/bank.h"
#include "bank_testing.h"
#include "core/error.h"

namespace msa {
namespace {

using testing::add;
using testing::Batch;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::random_batch;
using testing::small_shape;

class FilterTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const char* metadata[] = {
        R"({"user": "ada", "tags": ["math", "engine"], "time": "2026-01-01", "year": 1843})",
        R"({"user": "ada", "tags": ["letters"], "time": "2026-01-02T10:00:00+02:00", "year": "1852"})",
        R"({"user": "bob", "tags": "math", "time": "2026-03-01T00:00:00Z", "done": true})",
        R"({"user": "o'hara", "tags": [], "time": 5, "done": false, "nested": {"user": "ada"}})",
        R"({"year": "later", "it's \"odd\"": "x", "list": [1, 2.5, "three", null, true]})",
    };
    Batch batch = random_batch(*bank_, 5, random_);
    for (size_t i = 0; i < 5; ++i) {
      batch.inputs[i].metadata_json = metadata[i];
      batch.inputs[i].name_space = i < 3 ? "a" : "b";
    }
    ASSERT_TRUE(add(*bank_, batch).committed());
  }
  std::vector<DocumentId> matching(const std::string& filter) const {
    const auto snapshot = bank_->snapshot();
    const auto flags = bank_->permitted(*snapshot, Filter::parse(filter));
    std::vector<DocumentId> ids;
    size_t slot = 0;
    for (const auto& segment : snapshot->segments) {
      for (int64_t i = 0; i < segment->n_documents(); ++i) {
        if (flags.at(slot++) != 0) ids.push_back(segment->id(i));
      }
    }
    EXPECT_EQ(slot, flags.size());
    return ids;
  }
  std::string error_of(const std::string& filter) const {
    try {
      static_cast<void>(matching(filter));
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  }

  std::mt19937 random_{4};
  std::unique_ptr<Bank> bank_ = Bank::in_memory(small_shape());
};

TEST_F(FilterTest, ComparesFields) {
  EXPECT_THAT(matching(""), ElementsAre(1, 2, 3, 4, 5));
  EXPECT_THAT(matching("namespace = 'a'"), ElementsAre(1, 2, 3));
  EXPECT_THAT(matching("namespace != 'a'"), ElementsAre(4, 5));
  EXPECT_THAT(matching("external_id in ('doc-2', 'doc-5', 'none')"), ElementsAre(2, 5));
  EXPECT_THAT(matching("id >= 2 and id < 4"), ElementsAre(2, 3));
  EXPECT_THAT(matching("user = 'ada'"), ElementsAre(1, 2));
  EXPECT_THAT(matching("user <> 'ada'"), ElementsAre(3, 4, 5)) << "absent is not equal";
  EXPECT_THAT(matching("user = 'o''hara'"), ElementsAre(4));
  EXPECT_THAT(matching("\"it's \"\"odd\"\"\" = 'x'"), ElementsAre(5));
  EXPECT_THAT(matching("user > 'ada' and user < 'c'"), ElementsAre(3));
}

TEST_F(FilterTest, ComparesListsByAnyElement) {
  EXPECT_THAT(matching("tag = 'math'"), ElementsAre(1, 3)) << "one tag need not be a list";
  EXPECT_THAT(matching("tag in ('letters', 'engine')"), ElementsAre(1, 2));
  EXPECT_THAT(matching("tag not in ('letters', 'engine')"), ElementsAre(3, 4, 5));
  EXPECT_THAT(matching("tags = 'math'"), ElementsAre(1, 3));
  EXPECT_THAT(matching("list = 'three' or list = 2.5"), ElementsAre(5));
  EXPECT_THAT(matching("list = 3"), IsEmpty());
}

TEST_F(FilterTest, ComparesNumbersTruthsAndTimes) {
  EXPECT_THAT(matching("year > 1850"), ElementsAre(2)) << "text that is no number is not above every number";
  EXPECT_THAT(matching("year <= 1.9e3"), ElementsAre(1, 2));
  EXPECT_THAT(matching("year = 1852 or year = 1843"), ElementsAre(1, 2));
  EXPECT_THAT(matching("year = '1843'"), ElementsAre(1));
  EXPECT_THAT(matching("done = true"), ElementsAre(3));
  EXPECT_THAT(matching("done = FALSE"), ElementsAre(4));
  EXPECT_THAT(matching("done = 1"), IsEmpty());
  EXPECT_THAT(matching("time < '2026-01-02'"), ElementsAre(1));
  EXPECT_THAT(matching("time = '2026-01-02T08:00'"), ElementsAre(2)) << "times of all zones compare";
  EXPECT_THAT(matching("time >= '2026-02-01' and time < '2026-03-02'"), ElementsAre(3));
  EXPECT_THAT(matching("time > '2026-06-01'"), ElementsAre(4, 5)) << "without one, the time of adding";
}

TEST_F(FilterTest, JoinsByPrecedence) {
  EXPECT_THAT(matching("id = 1 or id = 2 and namespace = 'b'"), ElementsAre(1));
  EXPECT_THAT(matching("(id = 1 or id = 2) and namespace = 'a'"), ElementsAre(1, 2));
  EXPECT_THAT(matching("not (id = 1 or id = 2) AND NOT id = 3"), ElementsAre(4, 5));
  EXPECT_THAT(matching("not not id = 3"), ElementsAre(3));
}

TEST_F(FilterTest, NamesTheMistakeAndItsPlace) {
  EXPECT_THAT(error_of("namespace = "), HasSubstr("a value is expected"));
  EXPECT_THAT(error_of("namespace = 'a"), HasSubstr("a quote is not closed at character 13"));
  EXPECT_THAT(error_of("namespace 'a'"), HasSubstr("a comparison is expected at character 11"));
  EXPECT_THAT(error_of("a = 1 b = 2"), HasSubstr("'and', 'or' or the end is expected at character 7"));
  EXPECT_THAT(error_of("(a = 1"), HasSubstr("')' is expected"));
  EXPECT_THAT(error_of("a in ()"), HasSubstr("a value is expected"));
  EXPECT_THAT(error_of("a = 1x"), HasSubstr("runs into a name"));
  EXPECT_THAT(error_of("a = -"), HasSubstr("filter"));
  EXPECT_THAT(error_of("= 1"), HasSubstr("the name of a field is expected"));
  EXPECT_THAT(error_of("namespace = 3"), HasSubstr("compares with 'text'"));
  EXPECT_THAT(error_of("id = 'a'"), HasSubstr("compares with a number"));
  EXPECT_THAT(error_of("time > 'yesterday'"), HasSubstr("is not a time"));
  EXPECT_THAT(error_of(std::string(500, '(')), HasSubstr("nested too deeply"));
  EXPECT_THAT(error_of("a = '" + std::string(20000, 'x') + "'"), HasSubstr("longer than"));
  std::string many = "a in (0";
  for (int i = 1; i <= 1000; ++i) many += ", " + std::to_string(i);
  EXPECT_THAT(error_of(many + ")"), HasSubstr("more than 1000 values"));
}

TEST_F(FilterTest, TakesWhatItsLimitsAllow) {
  std::string deep = "id = 1";
  for (int i = 0; i < 40; ++i) deep = "not (" + deep + ")";
  EXPECT_THAT(error_of(deep), HasSubstr("nested too deeply"));
  deep = "tag = 'math'";
  for (int i = 0; i < 24; ++i) deep = "not (" + deep + ")";
  EXPECT_THAT(matching(deep), ElementsAre(1, 3));
  std::string wide = "user = 'ada'";
  for (int i = 0; i < 400; ++i) wide += " or k" + std::to_string(i) + " = " + std::to_string(i);
  EXPECT_THAT(matching(wide), ElementsAre(1, 2));
}

TEST_F(FilterTest, HostileTextIsText) {
  const std::string before = bank_->fingerprint();
  for (const char* text :
       {"'; DROP TABLE documents; --", "' OR '1'='1", "a') OR 1=1 --", "\\' OR 1=1", "?1", ":at", "$.x", "%", "\"",
        "x' UNION SELECT id FROM documents --", "json_each(d.metadata)", "NULL", "\xff\xfe"}) {
    const std::string raw = text;
    EXPECT_THAT(error_of(raw), ::testing::AnyOf(HasSubstr("filter"), HasSubstr("expected")));
    std::string quoted, name;
    for (const char c : raw) {
      quoted += c == '\'' ? "''" : std::string(1, c);
      name += c == '"' ? "\"\"" : std::string(1, c);
    }
    EXPECT_THAT(matching("user = '" + quoted + "'"), IsEmpty()) << raw;
    EXPECT_THAT(matching("namespace = '" + quoted + "' or external_id = '" + quoted + "'"), IsEmpty()) << raw;
    EXPECT_THAT(matching("\"" + name + "\" = 'x'"), IsEmpty()) << raw;
    EXPECT_THAT(matching("\"" + name + "\" != 'x'"), ElementsAre(1, 2, 3, 4, 5)) << raw;
  }
  EXPECT_EQ(bank_->fingerprint(), before);
  EXPECT_THAT(bank_->verify(), IsEmpty());
}

TEST_F(FilterTest, RandomTextIsRefusedOrPermitsSomething) {
  const char* pieces[] = {"namespace", "id",   "'a'",   "=",   "and", "or", "not", "(", ")",  "in", ",",
                          "1",         "time", "\"x\"", "tag", ">=",  "!=", "''",  "'", "--", ";",  "true"};
  int taken = 0;
  for (int i = 0; i < 20000; ++i) {
    std::string filter;
    const size_t n = 1 + random_() % 8;
    for (size_t k = 0; k < n; ++k) filter += std::string(pieces[random_() % std::size(pieces)]) + " ";
    taken += error_of(filter) == "no error";
  }
  EXPECT_GT(taken, 20);
}

TEST_F(FilterTest, LooksAtTheSnapshotsOwnState) {
  const auto before = bank_->snapshot();
  ASSERT_TRUE(bank_->reinstate(3, R"({"user": "eve"})"));
  ASSERT_TRUE(bank_->remove(1));
  const auto count = [&](const Snapshot& snapshot, const char* filter) {
    const auto flags = bank_->permitted(snapshot, Filter::parse(filter));
    return std::count(flags.begin(), flags.end(), 1);
  };
  EXPECT_EQ(count(*before, "user = 'bob'"), 1);
  EXPECT_EQ(count(*before, "user = 'eve'"), 0);
  EXPECT_EQ(count(*before, "user = 'ada'"), 2);
  EXPECT_EQ(count(*bank_->snapshot(), "user = 'bob'"), 0);
  EXPECT_EQ(count(*bank_->snapshot(), "user = 'eve'"), 1);
  EXPECT_EQ(count(*bank_->snapshot(), "user = 'ada'"), 1);
  bank_->compact();
  EXPECT_EQ(count(*bank_->snapshot(), "user = 'ada'"), 1) << "in another segment";
}

}  // namespace
}  // namespace msa
