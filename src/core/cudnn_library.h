// The functions of libcudnn.so.9 that the C++ frontend calls, defined here as calls into the library once it is open.
#pragma once

namespace msa {

/// Null, or why the library cannot be used; opened with the first call.
const char* open_cudnn_library();

}  // namespace msa
