// Stop sequences: an answer ends before the first of them, and no beginning of one is sent before it is known not to
// be.
#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace msa::server {

class StopFilter {
 public:
  /// Empty sequences are left aside.
  explicit StopFilter(std::vector<std::string> stops);

  /// What may be sent now.
  std::string feed(std::string_view piece);
  /// What was held back, at the end.
  std::string finish();
  /// A stop sequence was found; nothing follows.
  bool stopped() const { return stopped_; }

 private:
  std::vector<std::string> stops_;
  std::string held_;
  bool stopped_ = false;
};

}  // namespace msa::server
