#include "engine/bank_writer.h"

#include <algorithm>
#include <chrono>

#include "bank/segment_file.h"
#include "bank/segment_format.h"
#include "engine/shard_driver.h"

namespace msa {
namespace {

using Clock = std::chrono::steady_clock;

double ms_since(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

int64_t tokens_of(std::span<const DocumentTokens> documents) {
  int64_t tokens = 0;
  for (const DocumentTokens& d : documents) tokens += static_cast<int64_t>(d.size());
  return tokens;
}

}  // namespace

BankWriter::BankWriter(Context& context, const Model& model, Bank& bank, ShardDriver* ranks)
    : context_(context),
      model_(model),
      bank_(bank),
      ranks_(bank.path().empty() ? nullptr : ranks),
      encoder_(model.transformer(), bank.shape().dtype) {}

AddResult BankWriter::add(std::span<const DocumentId> ids, std::span<const DocumentInput> inputs,
                          std::span<const DocumentTokens> documents, const AddOptions& options,
                          const Progress& progress) {
  MSA_CHECK(ids.size() == inputs.size() && ids.size() == documents.size());
  const auto start = Clock::now();
  double encode_ms = 0;
  AddResult result;
  if (ranks_ == nullptr) {
    const std::vector<EncodedDocument> encoded = encoder_.encode(context_, documents, progress);
    encode_ms = ms_since(start);
    result = bank_.add(ids, inputs, encoded, options);
  } else {
    const Bank::SegmentWriter writer = [&](int64_t first_number) {
      const auto begin = Clock::now();
      Bank::WrittenSegments written = write({ids, documents, progress}, first_number);
      encode_ms = ms_since(begin);
      return written;
    };
    result = bank_.add(ids, inputs, writer, options);
  }
  encode_ms_ += encode_ms;
  store_ms_ += ms_since(start) - encode_ms;
  return result;
}

/// Rank 0 has the last share, and with it the last number.
std::vector<BankWriter::Share> BankWriter::shares_of(const Batch& batch, int64_t first_number) const {
  const std::vector<int>& others = ranks_->others();
  const size_t n = std::min(others.size() + 1, batch.documents.size());
  std::vector<Share> shares;
  int64_t left = tokens_of(batch.documents);
  for (size_t s = 0, begin = 0; s < n; ++s) {
    const int64_t wanted = left / static_cast<int64_t>(n - s);
    const size_t most = batch.documents.size() - (n - s - 1);  // a document for each of the shares behind
    size_t end = begin;
    int64_t tokens = 0;
    while (end < most &&
           (end == begin || s + 1 == n || tokens + static_cast<int64_t>(batch.documents[end].size()) / 2 < wanted)) {
      tokens += static_cast<int64_t>(batch.documents[end++].size());
    }
    shares.push_back({begin, end, s + 1 == n ? 0 : others[s], first_number + static_cast<int64_t>(s), 0});
    left -= tokens;
    begin = end;
  }
  return shares;
}

Bank::WrittenSegments BankWriter::write(const Batch& batch, int64_t first_number) {
  std::vector<Share> shares = shares_of(batch, first_number);
  std::vector<Bank::WrittenSegments> parts(shares.size());
  for (Share& share : shares) {
    if (share.rank != 0) ask(batch, share);
  }
  encode_here(batch, shares.back(), parts.back());
  int64_t next_number = shares.back().number;
  for (size_t s = 0; s + 1 < shares.size(); ++s) {
    if (receive(batch, shares[s], parts[s])) continue;
    shares[s].number = ++next_number;  // the lost rank may still write under the other one
    parts[s] = {};
    encode_here(batch, shares[s], parts[s]);
  }
  Bank::WrittenSegments all;
  for (const Bank::WrittenSegments& part : parts) {
    all.segments.insert(all.segments.end(), part.segments.begin(), part.segments.end());
    all.documents.insert(all.documents.end(), part.documents.begin(), part.documents.end());
    all.opened.insert(all.opened.end(), part.opened.begin(), part.opened.end());
  }
  return all;
}

void BankWriter::ask(const Batch& batch, Share& share) {
  const size_t n = share.end - share.begin;
  Message message = ranks_->request(ShardCommand::kEncode);
  HeadWriter out(message.head);
  out.put_text(std::filesystem::absolute(bank_.path()).string());
  out.put_text(model_.fingerprint());
  out.put(bank_.shape().dtype);
  out.put(share.number);
  out.put_all(batch.ids.subspan(share.begin, n));
  for (const DocumentTokens& d : batch.documents.subspan(share.begin, n)) out.put_all(std::span<const int32_t>(d));
  share.ticket = ranks_->ask({share.rank}, message);
}

void BankWriter::encode_here(const Batch& batch, const Share& share, Bank::WrittenSegments& out) {
  const size_t n = share.end - share.begin;
  const auto encoded = encoder_.encode(context_, batch.documents.subspan(share.begin, n), batch.progress);
  out.opened = {write_segment_file(bank_.path(), bank_.shape(), share.number, batch.ids.subspan(share.begin, n),
                                   rows_of(bank_.shape(), encoded))};
  out.segments = {row_of(*out.opened[0])};
  for (const EncodedDocument& d : encoded) out.documents.push_back({d.n_tokens, d.n_chunks});
}

bool BankWriter::receive(const Batch& batch, const Share& share, Bank::WrittenSegments& out) {
  Message message;
  HeadReader in;
  while (ranks_->reply(share.rank, share.ticket, message, in)) {
    if (const auto tokens = in.get<int64_t>(); tokens > 0) {
      if (batch.progress) batch.progress(tokens);
      continue;
    }
    out.segments = {in.get<SegmentRow>()};
    out.documents = in.get_all<DocumentSize>();
    return true;
  }
  return false;
}

}  // namespace msa
