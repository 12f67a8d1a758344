#include "bank/verify.h"

#include <map>
#include <set>

#include "bank/segment_file.h"

namespace msa {
namespace {

class Examination {
 public:
  Examination(const DocumentStore& store, const Bank::Progress& progress) : store_(store), progress_(progress) {}

  std::vector<std::string> run(const SegmentOpener& open_segment) {
    const std::shared_ptr<void> view = view_with_segments(open_segment);
    append(store_.verify());
    for (const auto& [number, segment] : segments_) {
      append(segment->verify());
      done_bytes_ += static_cast<int64_t>(segment->bytes());
      if (progress_) progress_(done_bytes_, total_bytes_);
    }
    next_id_ = store_.next_id();
    store_.visit_documents([this](const StoredDocument& document) { examine(document); });
    for (const auto& [number, segment] : segments_) {
      if (rows_of_[number] == segment->n_documents()) continue;
      problems_.push_back(segment->where() + ": holds " + std::to_string(segment->n_documents()) +
                          " documents, the table documents has " + std::to_string(rows_of_[number]) + " of it");
    }
    return std::move(problems_);
  }

 private:
  /// Segments are opened first: the writer may take them away while the rest of this state is read.
  std::shared_ptr<void> view_with_segments(const SegmentOpener& open_segment) {
    constexpr int kTries = 10;
    for (int attempt = 1;; ++attempt) {
      std::shared_ptr<void> view = store_.hold_view();
      const int64_t counter = store_.change_counter();
      open_all(open_segment);
      if (unreadable_.empty() || attempt == kTries) return view;
      view.reset();
      if (store_.change_counter() == counter) return store_.hold_view();
    }
  }

  void open_all(const SegmentOpener& open_segment) {
    segments_.clear();
    unreadable_.clear();
    problems_.clear();
    total_bytes_ = 0;
    for (const SegmentRow& row : store_.load(0).segments) {
      try {
        std::shared_ptr<const Segment> segment = open_segment(row);
        total_bytes_ += static_cast<int64_t>(segment->bytes());
        segments_.emplace(row.number, std::move(segment));
      } catch (const Error& error) {
        problems_.emplace_back(error.what());
        unreadable_.insert(row.number);
      }
    }
  }

  void examine(const StoredDocument& document) {
    const DocumentRecord& r = document.record;
    const auto report = [&](const std::string& what) {
      problems_.push_back("document " + std::to_string(r.id) + ": " + what);
    };
    if (r.has_text && r.content_hash != content_hash(r.text)) report("its text does not match its hash");
    if (r.has_text && r.text_bytes != static_cast<int64_t>(r.text.size()))
      report("its text has another length than recorded");
    if (r.created.empty()) report("its commit is missing");
    if (r.id < 1 || r.id >= next_id_) report("its id is not below next_id");
    const int64_t p = store_.shape().chunk_tokens;
    if (r.n_tokens < 1 || r.n_chunks != (r.n_tokens - 1) / p + 1) report("its tokens and chunks disagree");
    const auto found = segments_.find(document.segment);
    if (found == segments_.end()) {
      if (!unreadable_.contains(document.segment)) report("its segment is missing");
      return;
    }
    const Segment& segment = *found->second;
    ++rows_of_[document.segment];
    if (document.index < 0 || document.index >= segment.n_documents() || segment.id(document.index) != r.id) {
      return report("its segment holds another document at its place");
    }
    const auto starts = segment.chunk_starts().subspan(static_cast<size_t>(document.index), 2);
    if (starts[1] - starts[0] != r.n_chunks) report("its segment holds another number of chunks");
  }

  void append(std::vector<std::string> more) {
    for (std::string& problem : more) problems_.push_back(std::move(problem));
  }

  const DocumentStore& store_;
  const Bank::Progress& progress_;
  std::vector<std::string> problems_;
  std::map<int64_t, std::shared_ptr<const Segment>> segments_;  // by number
  std::set<int64_t> unreadable_;
  std::map<int64_t, int64_t> rows_of_;  // rows of `documents` per segment
  int64_t next_id_ = 0;
  int64_t done_bytes_ = 0;
  int64_t total_bytes_ = 0;
};

}  // namespace

std::vector<std::string> verify_bank(const DocumentStore& store, const SegmentOpener& open_segment,
                                     const Bank::Progress& progress) {
  return Examination(store, progress).run(open_segment);
}

}  // namespace msa
