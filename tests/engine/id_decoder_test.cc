#include "engine/id_decoder.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>

namespace msa {
namespace {

// Spells an id as "[", its digits, "]": tokens 10, 0…9, 11.
IdCandidate candidate(DocumentId id, double prior) {
  IdCandidate c{id, {10}, prior};
  for (const char digit : std::to_string(id)) c.tokens.push_back(digit - '0');
  c.tokens.push_back(11);
  return c;
}

DocumentId decode(IdDecoder decoder, const std::vector<float>& logits) {
  while (!decoder.take(decoder.best(logits))) {
  }
  return decoder.result().id;
}

const std::vector<float> kFlat(12, 0.0f);

TEST(IdDecoder, WritesOnlyPermittedIdsWhateverTheModelWants) {
  std::vector<float> logits(12, 0.0f);
  logits[9] = 50.0f;  // the model insists on 9s
  EXPECT_EQ(decode(IdDecoder({candidate(12, .5), candidate(13, .5)}, 0.0f), logits), 12);
  EXPECT_EQ(decode(IdDecoder({candidate(12, .5), candidate(19, .5)}, 0.0f), logits), 19);
}

TEST(IdDecoder, WeightZeroIgnoresThePrior) {
  std::vector<float> logits(12, 0.0f);
  logits[2] = 1.0f;
  EXPECT_EQ(decode(IdDecoder({candidate(1, .999), candidate(2, .001)}, 0.0f), logits), 2);
  EXPECT_EQ(decode(IdDecoder({candidate(1, .999), candidate(2, .001)}, 1.0f), logits), 1);
}

TEST(IdDecoder, PriorOfAPrefixIsTheSumOfItsIds) {
  // 20…24 share .6, 1 alone has .4: the first digit falls to 2, and then the best of them.
  std::vector<IdCandidate> ids{candidate(1, .4)};
  for (int i = 0; i < 5; ++i) ids.push_back(candidate(20 + i, i == 3 ? .2 : .1));
  EXPECT_EQ(decode(IdDecoder(ids, 1.0f), kFlat), 23);
}

TEST(IdDecoder, OneIdMayBeginAnother) {
  EXPECT_EQ(decode(IdDecoder({candidate(1, .9), candidate(12, .1)}, 1.0f), kFlat), 1);
  EXPECT_EQ(decode(IdDecoder({candidate(1, .1), candidate(12, .9)}, 1.0f), kFlat), 12);
}

TEST(RouterPrior, IsASoftmaxAndNeverZero) {
  const std::vector<float> scores{0.9f, 0.6f, -100.0f};
  const std::vector<double> prior = router_prior(scores, 0.03f);
  EXPECT_NEAR(prior[0] + prior[1], 1.0, 1e-9);
  EXPECT_NEAR(prior[0] / prior[1], std::exp(10.0), 1.0);
  EXPECT_GT(prior[2], 0.0);
}

}  // namespace
}  // namespace msa
