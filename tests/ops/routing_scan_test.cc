// The routing scan on a GPU against plain loops. Skipped where there is no GPU.
#include "ops/routing_scan.h"

#include <gtest/gtest.h>

#if MSA_HAS_CUDA
#include <cuda_runtime.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <numeric>
#include <string>

#include "ops/routing_quantise.h"
#include "routing_testing.h"

namespace msa {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

void expect_ok(cudaError_t status) { ASSERT_EQ(status, cudaSuccess) << cudaGetErrorString(status); }

/// Device memory that starts as NaN bits.
template <class T>
class DeviceArray {
 public:
  explicit DeviceArray(size_t n) : n_(n) {
    expect_ok(cudaMalloc(&data_, std::max<size_t>(n, 1) * sizeof(T)));
    expect_ok(cudaMemset(data_, 0xff, std::max<size_t>(n, 1) * sizeof(T)));
  }
  explicit DeviceArray(const std::vector<T>& from) : DeviceArray(from.size()) {
    expect_ok(cudaMemcpy(data_, from.data(), from.size() * sizeof(T), cudaMemcpyHostToDevice));
  }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;
  ~DeviceArray() { cudaFree(data_); }

  T* get() const { return data_; }
  std::vector<T> download() const {
    std::vector<T> out(n_);
    expect_ok(cudaDeviceSynchronize());
    expect_ok(cudaMemcpy(out.data(), data_, n_ * sizeof(T), cudaMemcpyDeviceToHost));
    return out;
  }

 private:
  T* data_ = nullptr;
  size_t n_;
};

/// A bank on the host and the device.
struct TestBank {
  int n;
  std::vector<bf16> keys;                  // [n_chunks, n]
  std::vector<int32_t> document_of_chunk;  // [n_chunks]
  int n_documents;
  DeviceArray<bf16> device_keys;
  DeviceArray<int32_t> device_documents;
  DeviceArray<char> int8_keys, int4_keys;

  TestBank(int width, std::vector<bf16> all_keys, std::vector<int32_t> documents)
      : n(width),
        keys(std::move(all_keys)),
        document_of_chunk(std::move(documents)),
        n_documents(document_of_chunk.back() + 1),
        device_keys(keys),
        device_documents(document_of_chunk),
        int8_keys(document_of_chunk.size() * quantised_key_bytes(width)),
        int4_keys(document_of_chunk.size() * quantised_key_bytes(width, 4)) {
    quantise_keys_cuda(device_keys.get(), n_chunks(), n, 8, int8_keys.get(), nullptr);
    if (has_4_bits()) quantise_keys_cuda(device_keys.get(), n_chunks(), n, 4, int4_keys.get(), nullptr);
  }

  int64_t n_chunks() const { return static_cast<int64_t>(document_of_chunk.size()); }
  bool has_4_bits() const { return n % kPackedWidthStep == 0; }
  RoutingBank bank(int bits = 8) const {
    const char* const quantised = bits == 4 ? int4_keys.get() : int8_keys.get();
    return {device_keys.get(), quantised, device_documents.get(), n_chunks(), n_documents, n, bits == 4 ? 4 : 8};
  }
  const bf16* key(int64_t chunk) const { return keys.data() + chunk * n; }
};

/// Documents of 1 … most chunks, in order.
std::vector<int32_t> documents_of(int64_t n_chunks, int most, std::mt19937& engine) {
  std::vector<int32_t> out;
  for (int32_t document = 0; static_cast<int64_t>(out.size()) < n_chunks; ++document) {
    const size_t chunks = 1 + engine() % static_cast<uint32_t>(most);
    for (size_t i = 0; i < chunks && static_cast<int64_t>(out.size()) < n_chunks; ++i) out.push_back(document);
  }
  return out;
}

std::vector<int32_t> each_its_own(int64_t n_chunks) {
  std::vector<int32_t> out(static_cast<size_t>(n_chunks));
  std::iota(out.begin(), out.end(), 0);
  return out;
}

struct Outcome {
  RoutingSelection selection;
  std::vector<float> scores;  // [n_documents]
};

/// Device memory of a query against a bank.
struct TestQuery {
  const TestBank& bank;
  int m, k;
  DeviceArray<float> queries;
  DeviceArray<char> scratch;
  DeviceArray<int32_t> rows, n_rows;
  bool filtered = false;

  TestQuery(const TestBank& of, const std::vector<float>& values, int best)
      : bank(of),
        m(static_cast<int>(values.size()) / of.n),
        k(best),
        queries(values),
        scratch(routing_scratch_bytes(of.n_chunks(), of.n_documents, of.n, m)),
        rows(static_cast<size_t>(of.n_chunks())),
        n_rows(1) {}

  void permit(const std::vector<uint8_t>& permitted) {
    const DeviceArray<uint8_t> flags(permitted);
    permitted_chunks(bank.bank(), flags.get(), rows.get(), n_rows.get(), nullptr);
    expect_ok(cudaDeviceSynchronize());
    filtered = true;
  }
  RoutingQuery query() const {
    return {queries.get(), m, k, filtered ? rows.get() : nullptr, filtered ? n_rows.get() : nullptr};
  }
  RoutingScratch run() const {
    return {scratch.get(), routing_scratch_bytes(bank.n_chunks(), bank.n_documents, bank.n, m), nullptr};
  }

  Outcome route(int bits) const {  // 16, 8 or 4
    const DeviceArray<RoutingSelection> selection(1);
    const DeviceArray<float> scores(static_cast<size_t>(bank.n_documents));
    (bits == 16 ? route_bf16 : route_certified)(bank.bank(bits), query(), run(), selection.get());
    document_scores(bank.n_documents, run(), scores.get());
    Outcome out{selection.download()[0], scores.download()};
    expect_ok(cudaGetLastError());
    return out;
  }
};

std::vector<std::pair<int32_t, float>> pairs_of(const RoutingSelection& s) {
  std::vector<std::pair<int32_t, float>> out;
  for (int i = 0; i < std::clamp(s.n, 0, kMaxRoutingTopK); ++i) out.emplace_back(s.documents[i], s.scores[i]);
  return out;
}

std::vector<std::pair<int32_t, float>> best_of(const std::vector<float>& scores, int k) {
  std::vector<std::pair<int32_t, float>> all;
  for (size_t i = 0; i < scores.size(); ++i) {
    if (scores[i] > -kInf) all.emplace_back(static_cast<int32_t>(i), scores[i]);
  }
  const size_t found = std::min(all.size(), static_cast<size_t>(k));
  std::partial_sort(
      all.begin(), all.begin() + static_cast<int64_t>(found), all.end(),
      [](const auto& a, const auto& b) { return a.second != b.second ? a.second > b.second : a.first < b.first; });
  all.resize(found);
  return all;
}

class RoutingScan : public testing::Test {
 protected:
  void SetUp() override {
    int devices = 0;
    const cudaError_t status = cudaGetDeviceCount(&devices);
    if (status != cudaSuccess || devices == 0) GTEST_SKIP() << "no GPU: " << cudaGetErrorString(status);
  }
};

/// The scores of `documents` and that no other document that is forbidden has one.
void expect_scores(const TestBank& bank, const std::vector<float>& queries, const std::vector<uint8_t>& permitted,
                   const std::vector<float>& actual, int64_t work) {
  const std::vector<bf16> rounded_queries = rounded(queries);
  const int64_t m = static_cast<int64_t>(queries.size()) / bank.n;
  std::vector<double> norms;
  for (int64_t q = 0; q < m; ++q) norms.push_back(exact_norm(rounded_queries.data() + q * bank.n, bank.n));
  const int64_t chunks = std::max<int64_t>(1, work / (m * bank.n));  // as many as the work allows, spread out
  const int64_t every = std::max<int64_t>(1, bank.n_chunks() / chunks);
  for (int64_t begin = 0; begin < bank.n_chunks();) {
    const int32_t document = bank.document_of_chunk[static_cast<size_t>(begin)];
    int64_t end = begin;
    while (end < bank.n_chunks() && bank.document_of_chunk[static_cast<size_t>(end)] == document) ++end;
    const float score = actual[static_cast<size_t>(document)];
    if (!permitted.empty() && permitted[static_cast<size_t>(document)] == 0) {
      ASSERT_EQ(score, -kInf) << "document " << document << " is not permitted";
    } else if (begin % every < end - begin) {
      double best = -std::numeric_limits<double>::infinity(), tolerance = 0;
      for (int64_t c = begin; c < end; ++c) {
        const double slack = static_cast<double>(accumulation_slack(bank.n)) * exact_norm(bank.key(c), bank.n);
        for (int64_t q = 0; q < m; ++q) {
          best = std::max(best, exact_product(rounded_queries.data() + q * bank.n, bank.key(c), bank.n));
          tolerance = std::max(tolerance, slack * norms[static_cast<size_t>(q)]);
        }
      }
      ASSERT_NEAR(static_cast<double>(score), best, tolerance) << "document " << document;
    }
    begin = end;
  }
}

/// Every score near the reference, the selection the best of the scores, and the int8 route the same bits.
void expect_route(const TestBank& bank, const std::vector<float>& queries, int k, const std::vector<uint8_t>& permitted,
                  int64_t work) {
  TestQuery query(bank, queries, k);
  if (!permitted.empty()) query.permit(permitted);
  const Outcome exact = query.route(16), again = query.route(16), certified = query.route(8);
  expect_scores(bank, queries, permitted, exact.scores, work);
  EXPECT_EQ(pairs_of(exact.selection), best_of(exact.scores, k));
  EXPECT_EQ(exact.selection.fell_back, 0);
  EXPECT_EQ(pairs_of(again.selection), pairs_of(exact.selection));
  EXPECT_EQ(0, std::memcmp(again.scores.data(), exact.scores.data(), exact.scores.size() * sizeof(float)));
  EXPECT_EQ(pairs_of(certified.selection), pairs_of(exact.selection))
      << certified.selection.candidates << " candidates";
  EXPECT_GE(certified.selection.candidates, certified.selection.n);
  EXPECT_EQ(certified.selection.fell_back, certified.selection.candidates > kRoutingCandidates);
  if (!bank.has_4_bits()) return;
  const RoutingSelection packed = query.route(4).selection;
  EXPECT_EQ(pairs_of(packed), pairs_of(exact.selection)) << packed.candidates << " candidates of 4 bits";
  EXPECT_GE(packed.candidates, packed.n);
}

std::vector<uint8_t> permitted_of(int kind, int n_documents, std::mt19937& engine) {
  std::vector<uint8_t> out;
  for (int i = 0; kind > 0 && i < n_documents; ++i) {
    out.push_back(kind == 1 ? 1 : kind == 2 ? engine() % 3 == 0 : kind == 3 ? i % 97 == 5 : 0);
  }
  return out;
}

TEST_F(RoutingScan, EqualsReference) {
  uint32_t seed = 0;
  for (const int n : {32, 64, 192, 320, 512, 1024}) {
    for (const int64_t n_chunks : {1, 15, 64, 1000, 40001}) {
      std::mt19937 engine(++seed);
      const KeyKind kind = seed % 2 == 0 ? KeyKind::kRandom : KeyKind::kClustered;
      const TestBank bank(n, routing_keys(n_chunks, n, kind, engine), documents_of(n_chunks, 40, engine));
      for (const int m : {1, 2, 7, 8, 16, 31, 32, 33, 64, 65, 128, 512}) {
        const int filter = static_cast<int>(engine() % 5), k = m % 3 == 0 ? 64 : m % 3 == 1 ? 16 : 3;
        SCOPED_TRACE("seed " + std::to_string(seed) + " n " + std::to_string(n) + " chunks " +
                     std::to_string(n_chunks) + " m " + std::to_string(m) + " k " + std::to_string(k) + " filter " +
                     std::to_string(filter));
        expect_route(bank, routing_queries(m, n, bank.keys, engine), k, permitted_of(filter, bank.n_documents, engine),
                     4'000'000);
        if (HasFailure()) return;
      }
    }
  }
}

TEST_F(RoutingScan, QuantiserGivesTheBitsOfTheCpu) {
  for (const int n : {32, 64, 192, 512, 1024}) {
    std::mt19937 engine(static_cast<uint32_t>(n));
    SCOPED_TRACE("seed " + std::to_string(n));
    std::vector<bf16> keys = routing_keys(1000, n, KeyKind::kRandom, engine);
    for (int i = 0; i < n; ++i) {
      keys[static_cast<size_t>(i)] = {0};
      keys[static_cast<size_t>(n + i)] = {static_cast<uint16_t>(engine() % 0x80)};                 // not normal numbers
      keys[static_cast<size_t>(2 * n + i)] = {static_cast<uint16_t>(engine() & 0xffff)};           // any bits
      keys[static_cast<size_t>(3 * n + i)] = {static_cast<uint16_t>(0x3000 + engine() % 0x1000)};  // a wide range
    }
    keys[static_cast<size_t>(4 * n + 7)] = to_bf16(kInf);
    keys[static_cast<size_t>(5 * n + 9)] = to_bf16(std::numeric_limits<float>::quiet_NaN());
    const TestBank bank(n, keys, each_its_own(1000));
    const std::vector<char> actual = bank.int8_keys.download();
    const size_t bytes = quantised_key_bytes(n);
    std::vector<uint32_t> expected(bytes / 4);
    for (size_t j = 0; j < 1000; ++j) {
      quantise_key(bank.key(static_cast<int64_t>(j)), n, expected.data());
      ASSERT_EQ(0, std::memcmp(actual.data() + j * bytes, expected.data(), bytes)) << "key " << j << " n " << n;
    }
  }
}

TEST_F(RoutingScan, BoundsHoldEveryScore) {
  for (const int n : {64, 192, 1024}) {
    for (const KeyKind kind : {KeyKind::kRandom, KeyKind::kClustered}) {
      for (const int m : {1, 9, 32, 100}) {
        std::mt19937 engine(static_cast<uint32_t>(n + m));
        SCOPED_TRACE("seed " + std::to_string(n + m));
        constexpr int64_t kChunks = 5003;
        std::vector<bf16> keys = routing_keys(kChunks, n, kind, engine);
        keys[5] = to_bf16(kInf);  // of which nothing can be known
        const TestBank bank(n, keys, each_its_own(kChunks));
        const TestQuery query(bank, routing_queries(m, n, keys, engine), 16);
        const std::vector<float> scores = query.route(16).scores;
        const DeviceArray<float> lower(kChunks), upper(kChunks);
        chunk_bounds(bank.bank(4), query.query(), query.run(), lower.get(), upper.get());
        const std::vector<float> wide_low = lower.download(), wide_high = upper.download();
        for (size_t j = 0; j < kChunks; ++j) {
          ASSERT_LE(wide_low[j], scores[j]) << "chunk " << j;
          ASSERT_GE(wide_high[j], scores[j]) << "chunk " << j;
        }
        chunk_bounds(bank.bank(), query.query(), query.run(), lower.get(), upper.get());
        const std::vector<float> low = lower.download(), high = upper.download();
        double width = 0;
        for (size_t j = 0; j < kChunks; ++j) {
          ASSERT_LE(low[j], scores[j]) << "chunk " << j;
          ASSERT_GE(high[j], scores[j]) << "chunk " << j;
          if (j > 0) width = std::max(width, static_cast<double>(high[j]) - static_cast<double>(low[j]));
        }
        EXPECT_EQ(high[0], kInf);
        EXPECT_GT(width, 0);
        EXPECT_LT(width, 0.05 * std::sqrt(n / 32.0) * 7) << "wider than the norms of keys and queries explain";
      }
    }
  }
}

/// A chunk's score is its own: wherever it lies, whatever lies beside it, however many queries there are.
TEST_F(RoutingScan, ScoreDependsOnKeyAndQueryAlone) {
  for (const int n : {64, 192, 512, 1024}) {
    std::mt19937 engine(static_cast<uint32_t>(n));
    SCOPED_TRACE("seed " + std::to_string(n));
    constexpr int64_t kChunks = 2000;
    const std::vector<bf16> keys = routing_keys(kChunks, n, KeyKind::kRandom, engine);
    std::vector<bf16> turned;
    for (int64_t j = kChunks - 1; j >= 0; --j) turned.insert(turned.end(), &keys[j * n], &keys[j * n] + n);
    const TestBank bank(n, keys, each_its_own(kChunks)), turned_bank(n, turned, each_its_own(kChunks));
    const std::vector<float> one = routing_queries(1, n, keys, engine);
    const std::vector<float> expected = TestQuery(bank, one, 16).route(16).scores;
    for (const int m : {1, 5, 16, 17, 40, 64, 200}) {
      std::vector<float> queries;
      for (int i = 0; i < m; ++i) queries.insert(queries.end(), one.begin(), one.end());
      EXPECT_EQ(TestQuery(bank, queries, 16).route(16).scores, expected) << m << " queries";
      std::vector<float> scores = TestQuery(turned_bank, queries, 16).route(16).scores;
      std::reverse(scores.begin(), scores.end());
      EXPECT_EQ(scores, expected) << m << " queries, keys turned";
    }
  }
}

TEST_F(RoutingScan, EqualScoresGoByDocument) {
  std::mt19937 engine(11);
  constexpr int n = 192;
  const std::vector<bf16> three = routing_keys(3, n, KeyKind::kRandom, engine);
  std::vector<bf16> keys;
  for (int j = 0; j < 30000; ++j) keys.insert(keys.end(), &three[j % 3 * n], &three[j % 3 * n] + n);
  const TestBank bank(n, keys, documents_of(30000, 2, engine));
  for (const int k : {1, 16, 64}) expect_route(bank, routing_queries(20, n, keys, engine), k, {}, 1'000'000);
  // Zeros of either sign are equal too.
  const TestBank zeros(n, std::vector<bf16>(n * 3000, bf16{0}), each_its_own(3000));
  std::vector<float> queries(2 * n, 1.0f);
  std::fill_n(queries.begin(), n, -1.0f);
  expect_route(zeros, queries, 16, {}, 1'000'000);
}

/// More chunks within the bounds than can be rescored: the scan of all of them takes over.
TEST_F(RoutingScan, FallsBackWhenTooManyAreClose) {
  std::mt19937 engine(12);
  constexpr int n = 64;
  constexpr int64_t kChunks = kRoutingCandidates + 5000;
  const std::vector<bf16> one = routing_keys(1, n, KeyKind::kRandom, engine);
  std::vector<bf16> keys;
  for (int64_t j = 0; j < kChunks; ++j) keys.insert(keys.end(), one.begin(), one.end());
  const TestBank bank(n, keys, documents_of(kChunks, 3, engine));
  const std::vector<float> queries = routing_queries(3, n, keys, engine);
  expect_route(bank, queries, 16, {}, 1'000'000);
  TestQuery query(bank, queries, 16);
  EXPECT_EQ(query.route(8).selection.fell_back, 1);
  EXPECT_EQ(query.route(8).selection.candidates, kChunks);
  // With a filter the fall-back keeps to it.
  std::vector<uint8_t> permitted(static_cast<size_t>(bank.n_documents), 1);
  for (size_t i = 0; i < 50; ++i) permitted[i] = 0;
  query.permit(permitted);
  const RoutingSelection selection = query.route(8).selection;
  EXPECT_EQ(selection.fell_back, 1);
  for (int i = 0; i < 16; ++i) EXPECT_EQ(selection.documents[i], 50 + i);
}

TEST_F(RoutingScan, RulesOutAlmostAllOfManyRandomKeys) {
  std::mt19937 engine(13);
  constexpr int n = 192;
  const TestBank bank(n, routing_keys(200'000, n, KeyKind::kRandom, engine), documents_of(200'000, 8, engine));
  const std::vector<float> queries = routing_queries(32, n, bank.keys, engine);
  expect_route(bank, queries, 16, {}, 4'000'000);
  const RoutingSelection s = TestQuery(bank, queries, 16).route(8).selection;
  std::printf("%d of 200000 chunks rescored\n", s.candidates);
  EXPECT_LT(s.candidates, 20'000);
}

/// Part of the chunks has int8 keys, the others are scanned in two pieces: the documents and scores of one whole scan,
/// and the bounds hold every document. Chunks of no document take no part.
TEST_F(RoutingScan, InSteps) {
  uint32_t seed = 40;
  for (const int n : {64, 1024}) {
    for (const int m : {3, 32, 100}) {
      std::mt19937 engine(++seed);
      SCOPED_TRACE("seed " + std::to_string(seed));
      constexpr int64_t kChunks = 9001, kQuantised = 5003, kSecond = 7777;
      constexpr int k = 16;
      std::vector<int32_t> documents = documents_of(kChunks, 8, engine);
      const int n_documents = documents.back() + 1;
      for (int32_t& d : documents) d = d % 5 == 3 ? -1 : d;
      documents.back() = n_documents - 1;
      const TestBank bank(n, routing_keys(kChunks, n, KeyKind::kRandom, engine), documents);
      TestQuery query(bank, routing_queries(m, n, bank.keys, engine), k);
      const Outcome exact = query.route(16);
      for (int d = 3; d < n_documents - 1; d += 5) ASSERT_EQ(exact.scores[static_cast<size_t>(d)], -kInf);
      EXPECT_EQ(pairs_of(query.route(8).selection), pairs_of(exact.selection));

      const auto piece = [&](int64_t begin, int64_t end) {
        return RoutingBank{bank.device_keys.get() + begin * n,
                           nullptr,
                           bank.device_documents.get() + begin,
                           end - begin,
                           n_documents,
                           n};
      };
      RoutingBank quantised = bank.bank();
      quantised.n_chunks = kQuantised;
      RoutingQuery more = query.query();
      more.more = true;
      const RoutingScratch run = query.run();
      scan_bounds(quantised, query.query(), run);
      scan_documents(piece(kQuantised, kSecond), more, run);
      scan_documents(piece(kSecond, kChunks), more, run);
      find_candidates(quantised, query.query(), run);
      score_candidates(quantised, query.query(), run);
      const DeviceArray<RoutingSelection> selection(1);
      const DeviceArray<float> lower(exact.scores.size()), upper(exact.scores.size());
      select_documents(n_documents, k, run, selection.get());
      EXPECT_EQ(pairs_of(selection.download()[0]), pairs_of(exact.selection));
      document_bounds(n_documents, run, lower.get(), upper.get());
      const std::vector<float> low = lower.download(), high = upper.download();
      for (size_t d = 0; d < exact.scores.size(); ++d) {
        ASSERT_LE(low[d], exact.scores[d]) << "document " << d;
        ASSERT_GE(high[d], exact.scores[d]) << "document " << d;
      }
    }
  }
}

TEST_F(RoutingScan, MarksMeans) {
  constexpr int n = 1000;
  std::mt19937 engine(15);
  std::vector<float> values(3 * n);
  for (float& x : values) x = static_cast<float>(engine() % 7);
  values[5] = -kInf, values[6] = std::numeric_limits<float>::quiet_NaN(), values[7] = kInf;
  const DeviceArray<float> on_device(values);
  const DeviceArray<uint8_t> flags(n);
  for (const float threshold : {-kInf, 3.0f, 6.0f}) {
    mark_means(on_device.get(), 3, n, threshold, flags.get(), nullptr);
    const std::vector<uint8_t> found = flags.download();
    for (size_t i = 0; i < n; ++i) {
      const float mean = (values[i] + values[n + i] + values[2 * n + i]) / 3;
      ASSERT_EQ(found[i], mean >= threshold && mean > -kInf ? 1 : 0) << i;
    }
  }
}

/// NaN never wins; infinity does. The certified route takes such keys as unknown and comes to the same.
TEST_F(RoutingScan, BrokenNumbers) {
  std::mt19937 engine(14);
  constexpr int n = 192, m = 5;
  constexpr int64_t kChunks = 3000;
  std::vector<bf16> keys = routing_keys(kChunks, n, KeyKind::kRandom, engine);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> queries = routing_queries(m, n, keys, engine);
  for (int i = 0; i < n; ++i) keys[static_cast<size_t>(100 * n + i)] = to_bf16(nan);
  keys[700 * n + 3] = to_bf16(nan);
  keys[900 * n + 4] = to_bf16(queries[4] > 0 ? kInf : -kInf);  // infinity with the first query
  const TestBank bank(n, keys, each_its_own(kChunks));
  const TestQuery query(bank, queries, 16);
  const Outcome exact = query.route(16), certified = query.route(8);
  EXPECT_EQ(exact.scores[100], -kInf);
  EXPECT_EQ(exact.scores[700], -kInf);
  EXPECT_EQ(exact.scores[900], kInf);
  EXPECT_EQ(exact.selection.documents[0], 900);
  EXPECT_EQ(pairs_of(exact.selection), best_of(exact.scores, 16));
  EXPECT_EQ(pairs_of(certified.selection), pairs_of(exact.selection));
  // A query that is not a number takes no part; only NaN queries: nothing is found.
  std::vector<float> with_nan = queries, only_nan(n, nan);
  with_nan.insert(with_nan.begin(), only_nan.begin(), only_nan.end());
  for (const int bits : {16, 8, 4}) {
    EXPECT_EQ(pairs_of(TestQuery(bank, with_nan, 16).route(bits).selection), pairs_of(exact.selection));
    EXPECT_EQ(TestQuery(bank, only_nan, 16).route(bits).selection.n, 0);
  }
}

/// Many documents, so that many blocks select; a few chunks of one very long document.
TEST_F(RoutingScan, ManyDocumentsAndALongOne) {
  std::mt19937 engine(15);
  constexpr int n = 32;
  constexpr int64_t kChunks = 1'200'000;
  const std::vector<bf16> keys = routing_keys(kChunks, n, KeyKind::kRandom, engine);
  std::vector<int32_t> documents = each_its_own(kChunks);
  for (size_t j = 0; j < documents.size(); ++j) documents[j] = std::max<int32_t>(0, documents[j] - 90'000);
  const TestBank bank(n, keys, documents);
  for (const int k : {16, 64}) expect_route(bank, routing_queries(4, n, keys, engine), k, {}, 4'000'000);
}

}  // namespace
}  // namespace msa
#else
TEST(RoutingScan, OnGpu) { GTEST_SKIP() << "built without CUDA"; }
#endif
