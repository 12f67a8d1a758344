#include "comm/launcher.h"

#include <charconv>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <string>

#include "core/error.h"

namespace msa {
namespace {

/// The first of these variables that is set, Open MPI's and MPICH's; `otherwise` where none is.
int number_of(std::initializer_list<const char*> variables, int least, int otherwise, const char* what) {
  for (const char* variable : variables) {
    const char* text = std::getenv(variable);
    if (text == nullptr) continue;
    int number = 0;
    const char* end = text + std::strlen(text);
    const auto [parsed, error] = std::from_chars(text, end, number);
    if (error != std::errc() || parsed != end || number < least) {
      throw Error("\"" + std::string(text) + "\" is no " + what, variable,
                  "unset it, or start the program with mpirun");
    }
    return number;
  }
  return otherwise;
}

}  // namespace

int launched_size() { return number_of({"OMPI_COMM_WORLD_SIZE", "PMI_SIZE"}, 1, 1, "number of ranks"); }

int launched_rank() { return number_of({"OMPI_COMM_WORLD_RANK", "PMI_RANK"}, 0, 0, "rank"); }

int launched_local_rank() {
  return number_of({"OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID"}, 0, launched_rank(), "rank");
}

int launched_local_size() {
  return number_of({"OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS"}, 1, launched_size(), "number of ranks");
}

}  // namespace msa
