#include "cli/sources.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>

#include <filesystem>
#include <fstream>
#include <random>

#include "cli/decode_text.h"
#include "core/error.h"

namespace msa {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

std::string compress(const std::string& text, int window_log = 0) {
  ZSTD_CCtx* context = ZSTD_createCCtx();
  if (window_log > 0) {
    ZSTD_CCtx_setParameter(context, ZSTD_c_windowLog, window_log);
    ZSTD_CCtx_setParameter(context, ZSTD_c_contentSizeFlag, 0);
    ZSTD_CCtx_setParameter(context, ZSTD_c_compressionLevel, 1);
  }
  std::string bytes(ZSTD_compressBound(text.size()), '\0');
  ZSTD_inBuffer in{text.data(), text.size(), 0};
  ZSTD_outBuffer out{bytes.data(), bytes.size(), 0};
  // Flushing before the end keeps the frame from taking the (smaller) size of its content as window.
  EXPECT_EQ(ZSTD_compressStream2(context, &out, &in, ZSTD_e_flush), 0u);
  EXPECT_EQ(ZSTD_compressStream2(context, &out, &in, ZSTD_e_end), 0u);
  ZSTD_freeCCtx(context);
  bytes.resize(out.pos);
  return bytes;
}

/// One page that says `text`, with a right cross-reference table.
std::string minimal_pdf(const std::string& text) {
  const std::string content = text.empty() ? "" : "BT /F1 12 Tf 72 700 Td (" + text + ") Tj ET";
  const std::string objects[] = {
      "<< /Type /Catalog /Pages 2 0 R >>", "<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
      "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R "
      "/Resources << /Font << /F1 5 0 R >> >> >>",
      "<< /Length " + std::to_string(content.size()) + " >>\nstream\n" + content + "\nendstream",
      "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"};
  std::string pdf = "%PDF-1.4\n";
  std::string table = "xref\n0 6\n0000000000 65535 f \n";
  int number = 0;
  for (const std::string& object : objects) {
    char entry[32];
    snprintf(entry, sizeof(entry), "%010zu 00000 n \n", pdf.size());
    table += entry;
    pdf += std::to_string(++number) + " 0 obj\n" + object + "\nendobj\n";
  }
  const size_t table_at = pdf.size();
  return pdf + table + "trailer << /Size 6 /Root 1 0 R >>\nstartxref\n" + std::to_string(table_at) + "\n%%EOF\n";
}

class SourcesTest : public testing::Test {
 protected:
  SourcesTest() {
    std::string name = (fs::temp_directory_path() / "sources_test_XXXXXX").string();
    folder_ = mkdtemp(name.data());
  }
  ~SourcesTest() override { fs::remove_all(folder_); }

  std::string path(const std::string& name) const { return (folder_ / name).string(); }
  std::string write(const std::string& name, const std::string& bytes) const {
    fs::create_directories((folder_ / name).parent_path());
    std::ofstream(path(name), std::ios::binary) << bytes;
    return path(name);
  }
  std::vector<SourceDocument> read(const std::vector<std::string>& paths) {
    std::vector<SourceDocument> documents;
    problems_.clear();
    read_sources(
        paths, options_, [&](SourceDocument&& d) { return documents.push_back(std::move(d)), true; }, problems_);
    return documents;
  }
  std::string text_of(const std::string& name, const std::string& bytes) {
    const auto documents = read({write(name, bytes)});
    return documents.size() == 1 ? documents[0].text : "not one document";
  }
  std::string error_of(const std::vector<std::string>& paths) {
    try {
      read(paths);
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  }
  static std::vector<std::string> ids(const std::vector<SourceDocument>& documents) {
    std::vector<std::string> ids;
    for (const auto& document : documents) ids.push_back(document.external_id);
    return ids;
  }
  std::vector<SourceProblem> real_problems() const {
    std::vector<SourceProblem> real;
    for (const auto& problem : problems_) {
      if (!problem.is_note) real.push_back(problem);
    }
    return real;
  }

  fs::path folder_;
  SourceOptions options_;
  std::vector<SourceProblem> problems_;
};

TEST_F(SourcesTest, TextIsTakenAsItIs) {
  options_.metadata_json = R"({"k":"v"})";
  const std::string file = write("a.txt", "  Grüße\n\n# x \n");
  const auto documents = read({file});
  ASSERT_EQ(documents.size(), 1u);
  EXPECT_EQ(documents[0].text, "  Grüße\n\n# x \n");
  EXPECT_EQ(documents[0].external_id, file);
  EXPECT_EQ(documents[0].metadata_json, R"({"k":"v"})");
  EXPECT_TRUE(problems_.empty());
}

TEST_F(SourcesTest, LineEndsAndByteOrderMarks) {
  EXPECT_EQ(text_of("a.md", "\xEF\xBB\xBFone\r\ntwo\rthree\n"), "one\ntwo\nthree\n");
  EXPECT_EQ(text_of("b.txt", std::string("\xFF\xFEh\0\xE9\0\x3D\xD8\0\xDE", 10)), "h\u00e9\U0001F600");
  EXPECT_EQ(text_of("c.txt", std::string("\xFE\xFF\0h\0i", 6)), "hi");
  EXPECT_EQ(text_of("d.TXT", std::string("\xFF\xFE\0\0h\0\0\0", 8)), "h");
  EXPECT_THAT(error_of({write("e.txt", std::string("\xFF\xFEh\0\0\xDE", 6))}), HasSubstr("ill-formed UTF-16LE"));
  EXPECT_THAT(error_of({write("f.txt", std::string("\xFF\xFEh\0i", 5))}), HasSubstr("ill-formed UTF-16LE"));
}

TEST_F(SourcesTest, FewInvalidBytesAreReplacedManyRefused) {
  const std::string text(100, 'x');
  EXPECT_EQ(text_of("a.txt", text + "\xE9" + text), text + "\uFFFD" + text);
  ASSERT_EQ(problems_.size(), 1u);
  EXPECT_TRUE(problems_[0].is_note);
  EXPECT_THAT(error_of({write("b.txt", "caf\xE9 cr\xE8me")}), AllOf(HasSubstr("not UTF-8"), HasSubstr("iconv")));
  EXPECT_THAT(error_of({write("c.txt", std::string("ab\0cd", 5))}), HasSubstr("binary"));
}

TEST(Utf8RepairTest, ReplacesEachIllFormedSequenceOnce) {
  EXPECT_EQ(replace_invalid_utf8("a\xC0\xAF").text, "a\uFFFD\uFFFD");          // overlong
  EXPECT_EQ(replace_invalid_utf8("\xED\xA0\x80").text, "\uFFFD\uFFFD\uFFFD");  // surrogate
  EXPECT_EQ(replace_invalid_utf8("\xF4\x90\x80\x80").text.size(), 12u);        // beyond U+10FFFF
  EXPECT_EQ(replace_invalid_utf8("x\xE2\x82").text, "x\uFFFD");                // cut short
  EXPECT_EQ(replace_invalid_utf8("\xF0\x9F\x98\x80\xE2\x82\xAC").invalid_bytes, 0);
}

TEST_F(SourcesTest, HtmlGivesVisibleText) {
  const std::string html =
      "<html><head><title>Title &amp; more</title><style>p{}</style><script>var a='<p>no</p>';</script></head>"
      "<body><h1>Head</h1><p>Hello <b>wor</b>ld\n and   more<p hidden>secret<br>x</p><ul><li>one<li>two</ul>"
      "<pre>a\n  b</pre><table><tr><td>1<td>2<tr><td>3</table>caf\xC3\xA9 &euro;&nbsp;5<noscript>NO</noscript>";
  EXPECT_EQ(text_of("a.html", html),
            "Title & more\n\nHead\n\nHello world and more\n\none\ntwo\n\na\n  b\n\n1 2\n3\n\ncaf\u00e9 \u20ac 5\n");
}

TEST_F(SourcesTest, HtmlCharsets) {
  EXPECT_EQ(text_of("a.htm", "<meta charset=\"windows-1252\"><p>\x80 caf\xE9"), "\u20ac caf\u00e9\n");
  EXPECT_EQ(text_of("b.htm", "<p>no charset, caf\xC3\xA9"), "no charset, caf\u00e9\n");
  EXPECT_EQ(text_of("c.htm", "<p>no charset, caf\xE9"), "no charset, caf\u00e9\n");
  EXPECT_EQ(text_of("d.htm", "<meta charset=shift_jis><p>\x93\xFA\x96\x7B"), "\u65e5\u672c\n");
  EXPECT_EQ(text_of("e.htm", "<meta charset=gb2312><p>\xC4\xE3\xFF\xBA\xC3<p>end"), "\u4f60\uFFFD\u597d\n\nend\n");
  EXPECT_EQ(text_of("f.htm", "<meta charset=nonsense><p>caf\xE9"), "caf\u00e9\n");
  EXPECT_EQ(text_of("g.htm", std::string("\xFF\xFE<\0p\0>\0\xE9\0", 10)), "\u00e9\n");
}

TEST_F(SourcesTest, HtmlLoadsNothing) {
  write("secret.txt", "SECRET");
  const std::string html = "<!DOCTYPE html [<!ENTITY x SYSTEM \"file://" + path("secret.txt") +
                           "\">]><p>a &x; <iframe src='secret.txt'></iframe> <img src='http://127.0.0.1:1/x'>b";
  EXPECT_THAT(text_of("a.html", html), AllOf(HasSubstr("a &x;"), testing::Not(HasSubstr("SECRET"))));
}

TEST_F(SourcesTest, HtmlOfAnyDepthAndRandomBytes) {
  std::string deep;
  for (int i = 0; i < 20000; ++i) deep += "<div>";
  EXPECT_EQ(text_of("deep.html", deep + "text"), "text\n");

  const unsigned seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  const std::string tokens[] = {
      "<p>",     "<",  "&",       "&#x", "</div>",    "<script>",  "<!--", "-->", "<meta charset=", "utf-16",
      "gb2312>", "\"", "hidden ", "a b", "</script>", "<![CDATA[", "é",    "<?",  "&#1114112;",     "<pre>"};
  for (int round = 0; round < 100; ++round) {
    std::string bytes;
    for (int i = 0; i < 400; ++i) {
      if (round % 2 == 0) {
        bytes += static_cast<char>(1 + random() % 255);
      } else {
        bytes += tokens[random() % std::size(tokens)];
      }
    }
    const std::string file = write("random.html", bytes);
    try {
      for (const auto& document : read({file})) EXPECT_EQ(replace_invalid_utf8(document.text).invalid_bytes, 0);
    } catch (const Error&) {  // refused is as good as read
    }
  }
}

TEST_F(SourcesTest, PdfThroughPdftotext) {
  if (system("pdftotext -v >/dev/null 2>&1") != 0) GTEST_SKIP() << "pdftotext is not installed";
  EXPECT_THAT(text_of("a.pdf", minimal_pdf("Hello from a PDF")), HasSubstr("Hello from a PDF"));
  EXPECT_THAT(text_of("-odd $(name).pdf", minimal_pdf("odd")), HasSubstr("odd"));
  EXPECT_THAT(error_of({write("b.pdf", minimal_pdf(""))}), AllOf(HasSubstr("no text"), HasSubstr("ocrmypdf")));
  EXPECT_THAT(error_of({write("c.pdf", "this is no pdf")}), HasSubstr("pdftotext failed: "));
  EXPECT_THAT(error_of({write("d.pdf", "")}), HasSubstr("empty"));
}

TEST_F(SourcesTest, PdfProgramMissingOrHanging) {
  const std::string pdf = write("a.pdf", minimal_pdf("x"));
  options_.pdftotext = "no-such-pdftotext";
  EXPECT_THAT(error_of({pdf}), AllOf(HasSubstr("not installed"), HasSubstr("apt-get install poppler-utils")));

  options_.pdftotext = write("hang.sh", "#!/bin/sh\necho begun\nsleep 100\n");
  fs::permissions(options_.pdftotext, fs::perms::owner_all);
  options_.pdf_time_limit = std::chrono::milliseconds(300);
  EXPECT_THAT(error_of({pdf}), HasSubstr("did not end within"));

  options_.stop = [] { return true; };
  EXPECT_TRUE(read({pdf}).empty());
}

TEST_F(SourcesTest, PdfProgramThatWritesTooMuch) {
  options_.pdftotext = write("flood.sh", "#!/bin/sh\nexec yes\n");
  fs::permissions(options_.pdftotext, fs::perms::owner_all);
  options_.max_file_bytes = 4 << 20;
  EXPECT_THAT(error_of({write("a.pdf", minimal_pdf("x"))}), HasSubstr("more than 4 MiB of text"));
}

const char kBeir[] =
    "{\"_id\": \"d1\", \"title\": \"T\", \"text\": \"one\", \"metadata\": {\"a\": [1]}}\r\n"
    "\n"
    "{\"_id\": 7, \"title\": \"\", \"text\": \"two\"}\n"
    "{\"_id\": \"d3\", \"text\": \"\"}\n"
    "{\"_id\": \"d4\", \"title\": null, \"text\": \"\\u00e9\"}";

TEST_F(SourcesTest, BeirPlainAndCompressed) {
  const std::string whole = kBeir;
  // Two frames behind one another are one stream.
  for (const auto& file : {write("a.jsonl", whole), write("a.jsonl.zst", compress(whole)),
                           write("b.jsonl.zst", compress(whole.substr(0, 30)) + compress(whole.substr(30)))}) {
    const auto documents = read({file});
    EXPECT_THAT(ids(documents), ElementsAre("d1", "7", "d4")) << file;
    EXPECT_EQ(documents[0].text, "T\none");
    EXPECT_EQ(documents[1].text, "two");
    EXPECT_EQ(documents[2].text, "\u00e9");
    ASSERT_EQ(problems_.size(), 1u);
    EXPECT_EQ(problems_[0].where, file + ":4");
  }
}

TEST_F(SourcesTest, BeirIsStreamed) {
  std::string lines;
  for (int i = 0; i < 20000; ++i) {
    lines += "{\"_id\":\"" + std::to_string(i) + "\",\"text\":\"" + std::string(100, 'a') + "\"}\n";
  }
  const std::string file = write("a.jsonl.zst", compress(lines, 27));
  options_.max_file_bytes = 1 << 20;  // of a line, not of the file
  EXPECT_EQ(read({file}).size(), 20000u);
  int seen = 0;
  read_sources(
      {file}, options_, [&](SourceDocument&&) { return ++seen < 10; }, problems_);
  EXPECT_EQ(seen, 10);
}

TEST_F(SourcesTest, BrokenBeirNamesFileAndLine) {
  const std::string good = "{\"_id\":\"1\",\"text\":\"x\"}\n";
  const auto error_of_line = [&](const std::string& line) { return error_of({write("a.jsonl", good + line)}); };
  EXPECT_THAT(error_of_line("{\"_id\": \"2\", \"te"), AllOf(HasSubstr("a.jsonl:2"), HasSubstr("broken JSON")));
  EXPECT_THAT(error_of_line("[1]"), HasSubstr("no JSON object"));
  EXPECT_THAT(error_of_line("{\"text\":\"x\"}"), AllOf(HasSubstr("a.jsonl:2"), HasSubstr("_id")));
  EXPECT_THAT(error_of_line("{\"_id\":\"\",\"text\":\"x\"}"), HasSubstr("_id"));
  EXPECT_THAT(error_of_line("{\"_id\":\"2\"}"), HasSubstr("\"text\" is missing"));
  EXPECT_THAT(error_of_line("{\"_id\":\"2\",\"text\":5}"), HasSubstr("\"text\" is no string"));
  EXPECT_THAT(error_of_line("{\"_id\":\"2\",\"text\":\"\xFF\"}"), HasSubstr("broken JSON"));
  EXPECT_THAT(error_of_line(std::string(100000, '[')), HasSubstr("broken JSON"));
  EXPECT_THAT(error_of({write("e.jsonl", "\n\n")}), HasSubstr("no documents"));
  options_.max_file_bytes = 1 << 20;
  EXPECT_THAT(error_of_line(std::string(3 << 20, ' ')), HasSubstr("a line longer than 1 MiB"));
}

TEST_F(SourcesTest, BrokenZstd) {
  std::string lines;
  for (int i = 0; i < 1000; ++i) lines += "{\"_id\":\"" + std::to_string(i * i) + "\",\"text\":\"x\"}\n";
  const std::string bytes = compress(lines);
  EXPECT_THAT(error_of({write("cut.jsonl.zst", bytes.substr(0, bytes.size() - 5))}), HasSubstr("cut short"));
  EXPECT_THAT(error_of({write("plain.jsonl.zst", lines)}), HasSubstr("broken zstd stream"));
  EXPECT_THAT(error_of({write("empty.jsonl.zst", "")}), HasSubstr("no documents"));
  EXPECT_THAT(error_of({write("wide.jsonl.zst", compress(lines, 28))}), HasSubstr("--long=27"));
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  for (int round = 0; round < 200; ++round) {
    std::string damaged = bytes;
    damaged[random() % damaged.size()] = static_cast<char>(random());
    error_of({write("damaged.jsonl.zst", damaged)});
  }
}

TEST_F(SourcesTest, FolderInOrderWithoutHiddenUnknownAndLoops) {
  write("docs/b.txt", "b");
  write("docs/a/z.md", "z");
  write("docs/a/y.html", "<p>y");
  write("docs/.hidden/x.txt", "x");
  write("docs/.x.txt", "x");
  write("docs/program.exe", "x");
  write("outside/o.txt", "o");
  fs::create_directory_symlink("..", folder_ / "docs/a/loop");
  fs::create_directory_symlink(folder_ / "outside", folder_ / "docs/link1");
  fs::create_directory_symlink(folder_ / "outside", folder_ / "docs/link2");
  fs::create_directory_symlink(folder_ / "docs", folder_ / "outside/back");
  const std::vector<std::string> expected = {"docs/a/y.html", "docs/a/z.md", "docs/b.txt", "docs/link1/o.txt"};
  for (const auto& argument : {path("docs"), path("docs/"), path("outside/../docs/."), path("docs/a/..")}) {
    EXPECT_EQ(ids(read({argument})), expected) << argument;
    ASSERT_EQ(problems_.size(), 1u);
    EXPECT_TRUE(problems_[0].is_note);
    EXPECT_EQ(problems_[0].what, "skipped 1 of unknown type, 2 hidden, 3 links to folders read elsewhere");
  }
}

TEST_F(SourcesTest, FolderGoesOnAfterBadFiles) {
  write("docs/a.txt", std::string("\0\0", 2));
  write("docs/b.txt", "");
  write("docs/c.jsonl", "{\"_id\":\"c1\",\"text\":\"x\"}\n{broken");
  write("docs/d.txt", "good");
  fs::create_symlink("nowhere", folder_ / "docs/e.txt");
  ASSERT_EQ(mkfifo(path("docs/pipe.txt").c_str(), 0600), 0);
  EXPECT_THAT(ids(read({path("docs")})), ElementsAre("c1", "docs/d.txt"));
  const auto problems = real_problems();
  ASSERT_EQ(problems.size(), 4u);
  EXPECT_EQ(problems[0].where, path("docs/a.txt"));
  EXPECT_EQ(problems[1].where, path("docs/b.txt"));
  EXPECT_EQ(problems[2].where, path("docs/c.jsonl") + ":2");
  EXPECT_EQ(problems[3].where, path("docs/e.txt"));
}

TEST_F(SourcesTest, FolderOfBeirWithoutItsQuestions) {
  write("scifact/corpus.jsonl", "{\"_id\":\"c1\",\"text\":\"x\"}\n");
  write("scifact/queries.jsonl", "{\"_id\":\"q1\",\"text\":\"x?\"}\n");
  EXPECT_THAT(ids(read({path("scifact")})), ElementsAre("c1"));
  EXPECT_THAT(ids(read({path("scifact/queries.jsonl")})), ElementsAre("q1"));
}

TEST_F(SourcesTest, ErrorsOfTheSinkAreNotSwallowed) {
  write("docs/a.txt", "a");
  const auto sink = [](SourceDocument&&) -> bool { throw Error("disk full", "bank"); };
  EXPECT_THROW(read_sources({path("docs")}, options_, sink, problems_), Error);
  EXPECT_TRUE(problems_.empty());
}

TEST_F(SourcesTest, SinkStopsFolders) {
  write("docs/a.txt", "a");
  write("docs/b.txt", "b");
  int seen = 0;
  read_sources(
      {path("docs"), path("docs")}, options_, [&](SourceDocument&&) { return ++seen, false; }, problems_);
  EXPECT_EQ(seen, 1);
}

TEST_F(SourcesTest, NamedPathsMustBeGood) {
  EXPECT_THAT(error_of({path("missing.txt")}), HasSubstr("no such file"));
  EXPECT_THAT(error_of({path("missing.jsonl")}), HasSubstr("no such file"));
  EXPECT_THAT(error_of({path("missing.pdf")}), HasSubstr("no such file"));
  EXPECT_THAT(error_of({write("a.txt", "")}), HasSubstr("empty"));
  EXPECT_THAT(error_of({write("b.txt", " \n\t")}), HasSubstr("no text"));
  EXPECT_THAT(error_of({write("c.html", "<script>x</script>")}), HasSubstr("no text"));
  EXPECT_THAT(error_of({write("d.docx", std::string("PK\3\4\0\0", 6))}), HasSubstr("binary"));
  EXPECT_EQ(text_of("README", "any name may hold text"), "any name may hold text");
  fs::create_directory(folder_ / "void");
  EXPECT_THAT(error_of({path("void")}), HasSubstr("empty folder"));
  fs::create_symlink("self.txt", folder_ / "self.txt");
  EXPECT_THAT(error_of({path("self.txt")}), HasSubstr("cannot be read"));
  options_.max_file_bytes = 1 << 20;
  EXPECT_THAT(error_of({write("big.txt", std::string((1 << 20) + 1, 'x'))}), HasSubstr("larger than 1 MiB"));
  EXPECT_THAT(error_of({"/dev/zero"}), HasSubstr("larger than 1 MiB"));
}

TEST_F(SourcesTest, UnreadableFile) {
  if (geteuid() == 0) GTEST_SKIP() << "root may read everything";
  fs::permissions(write("a.txt", "x"), fs::perms::none);
  EXPECT_THAT(error_of({path("a.txt")}), HasSubstr("cannot be read"));
}

TEST_F(SourcesTest, StdinAndIds) {
  const auto from_stdin = [&](const std::string& bytes) {
    int ends[2];
    EXPECT_EQ(pipe(ends), 0);
    EXPECT_EQ(::write(ends[1], bytes.data(), bytes.size()), static_cast<ssize_t>(bytes.size()));
    close(ends[1]);
    options_.stdin_fd = ends[0];
    auto documents = read({"-"});
    close(ends[0]);
    return documents;
  };
  EXPECT_THAT(ids(from_stdin("hello\r\n")), ElementsAre("-"));
  EXPECT_THROW(from_stdin(""), Error);
  options_.external_id = "mine";
  EXPECT_THAT(ids(from_stdin("hello")), ElementsAre("mine"));
  EXPECT_THAT(ids(read({write("a.txt", "x")})), ElementsAre("mine"));
  EXPECT_THAT(error_of({path("a.txt"), path("a.txt")}), HasSubstr("--id"));
  EXPECT_THAT(error_of({folder_.string()}), HasSubstr("--id"));
  EXPECT_THAT(error_of({write("a.jsonl", kBeir)}), HasSubstr("--id"));
}

}  // namespace
}  // namespace msa
