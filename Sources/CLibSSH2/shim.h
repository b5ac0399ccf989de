// libssh2_session_callback_set2 came with 1.11.1, which calls the older one deprecated: we build on both.
#define LIBSSH2_DISABLE_DEPRECATION
#include <libssh2.h>
#include <libssh2_sftp.h>
