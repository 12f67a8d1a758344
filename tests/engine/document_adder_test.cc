// Texts that replace a document which another thread removes meanwhile.
#include "engine/document_adder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tiny_model.h"

namespace msa {
namespace {

class DocumentAdderTest : public ::testing::Test {
 protected:
  DocumentAdderTest() {
    testing::write_tiny_model(folder_.path());
    model_ = std::make_unique<Model>(context_, folder_.path().string(), Precision::kF32);
    bank_ = Bank::in_memory(bank_shape(model_->transformer(), DType::kF32));
  }

  DocumentAdder adder(bool replace) {
    AdderOptions options;
    options.replace = replace;
    options.max_tokens = std::min(options.max_tokens, DocumentAdder::most_tokens(*model_));
    return {context_, *model_, *bank_, options, nullptr};
  }
  DocumentId add(const NewDocument& document) {
    DocumentAdder one = adder(false);
    one.take(document);
    one.commit();
    return one.report().added.at(0);
  }

  testing::TemporaryFolder folder_;
  Context context_{1};
  std::unique_ptr<Model> model_;
  std::unique_ptr<Bank> bank_;
};

TEST_F(DocumentAdderTest, NothingTakesTheRemovedOnesPlace) {
  int n = 0;
  for (const bool named : {false, true}) {
    // Removed before the text is taken, or after; the same text may not bring it back either.
    for (const bool before : {false, true}) {
      for (const std::string text : {"one", "two"}) {
        const std::string name = named ? "name " + std::to_string(++n) : "";
        SCOPED_TRACE(name + (before ? " before " : " after ") + text);
        const DocumentId old = add({"one", name, "{}"});
        const std::string with_it = bank_->fingerprint();
        if (before) bank_->remove(old);
        DocumentAdder late = adder(true);
        late.only_if_live(old);
        if (!named) late.remove(old);
        late.take({text, name, R"({"changed": 1})"});
        if (!before) bank_->remove(old);
        const bool kept = named && !before && text == "one";  // nothing was left to commit
        if (kept) {
          late.commit();
        } else {
          EXPECT_THROW(late.commit(), DocumentGone);
        }
        EXPECT_EQ(bank_->snapshot()->n_documents(), 0);
        EXPECT_NE(bank_->fingerprint(), with_it);
      }
    }
  }
}

TEST_F(DocumentAdderTest, TheSameTextMayEndPartsOfAnotherVersion) {
  const DocumentId whole = add({"one", "name", "{}"});
  add({"two", "name#1", "{}"});
  DocumentAdder again = adder(true);
  again.only_if_live(whole);
  again.take({"one", "name", "{}"});
  again.commit();  // nothing to encode, a part to end
  EXPECT_EQ(bank_->snapshot()->n_documents(), 1);
  EXPECT_TRUE(bank_->find(whole));
}

TEST_F(DocumentAdderTest, ReplacesTheLiveOne) {
  const DocumentId old = add({"one", "name", "{}"});
  DocumentAdder next = adder(true);
  next.only_if_live(old);
  next.take({"two", "name", "{}"});
  next.commit();
  EXPECT_EQ(bank_->snapshot()->n_documents(), 1);
  EXPECT_EQ(bank_->find_by_external_id("", "name")->text, "two");
  // Of a name that another document has taken over, the new one stays.
  DocumentAdder late = adder(true);
  late.only_if_live(old);
  late.take({"two", "name", R"({"changed": 1})"});
  EXPECT_THROW(late.commit(), DocumentGone);
  EXPECT_EQ(bank_->find_by_external_id("", "name")->metadata_json, "{}");
}

}  // namespace
}  // namespace msa
