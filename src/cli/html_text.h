// The visible text of an HTML page.
#pragma once
#include <string>

namespace msa {

/// `html`: bytes as the file holds them; their charset is a BOM, else UTF-8 where they are valid as such, else what
/// the page declares. Block elements end lines, scripts, styles and hidden elements are dropped, the title comes
/// first. Nothing is fetched. Broken markup gives what a parser can make of it; NUL bytes throw Error.
std::string html_to_text(std::string html, const std::string& where);

}  // namespace msa
