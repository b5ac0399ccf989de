/* The floor: what libssh2 itself needs for one command on each of some hosts, in C, on one thread, with nothing around it: no
   configuration is read, no host key is checked.

       floor KEY USER PORT COMMAND HOST...

   KEY is a private key without a passphrase, KEY.pub stands beside it; HOST is an IPv4 address. Prints what the hosts print, and fails if one fails.
   cc -O2 -o floor floor.c -lssh2 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <libssh2.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum state { CONNECTING, HANDSHAKE, AUTHENTICATION, OPENING, STARTING, READING, CLOSING, DONE };

struct host {
  enum state state;
  int socket;
  LIBSSH2_SESSION *session;
  LIBSSH2_CHANNEL *channel;
};

static const char *key, *public_key, *user, *command;
static int failures;

static void set_option(int socket, int option) {
  int on = 1;
  setsockopt(socket, IPPROTO_TCP, option, &on, sizeof on);
}

static void fail(struct host *host, const char *what) {
  char *message = "";
  if (host->session) libssh2_session_last_error(host->session, &message, NULL, 0);
  fprintf(stderr, "floor: %s: %s\n", what, message);
  failures++;
  host->state = DONE;
  close(host->socket);
}

static void begin(struct host *host, const char *address, int port) {
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
  inet_pton(AF_INET, address, &to.sin_addr);
  host->socket = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  set_option(host->socket, TCP_NODELAY);
  if (connect(host->socket, (struct sockaddr *)&to, sizeof to) && errno != EINPROGRESS) fail(host, "connect");
}

static void begin_session(struct host *host) {
  host->session = libssh2_session_init();
  libssh2_session_set_blocking(host->session, 0);
  libssh2_session_method_pref(host->session, LIBSSH2_METHOD_KEX, "curve25519-sha256");
  libssh2_session_method_pref(host->session, LIBSSH2_METHOD_HOSTKEY, "ssh-ed25519");
  libssh2_session_method_pref(host->session, LIBSSH2_METHOD_CRYPT_CS, "aes128-ctr");
  libssh2_session_method_pref(host->session, LIBSSH2_METHOD_CRYPT_SC, "aes128-ctr");
  libssh2_session_method_pref(host->session, LIBSSH2_METHOD_MAC_CS, "hmac-sha2-256");
  libssh2_session_method_pref(host->session, LIBSSH2_METHOD_MAC_SC, "hmac-sha2-256");
}

/* Goes on as far as it can; returns when libssh2 wants the network. */
static void advance(struct host *host) {
  char buffer[65536];
  ssize_t count;
  int status = 0;
  for (;;) {
    switch (host->state) {
    case CONNECTING: {
      int fault = 0;
      socklen_t length = sizeof fault;
      getsockopt(host->socket, SOL_SOCKET, SO_ERROR, &fault, &length);
      if (fault) return fail(host, strerror(fault));
      begin_session(host);
      host->state = HANDSHAKE;
      break;
    }
    case HANDSHAKE:
      status = libssh2_session_handshake(host->session, host->socket);
      if (status == LIBSSH2_ERROR_EAGAIN) return;
      if (status) return fail(host, "handshake");
      host->state = AUTHENTICATION;
      break;
    case AUTHENTICATION:
      status = libssh2_userauth_publickey_fromfile(host->session, user, public_key, key, NULL);
      if (status == LIBSSH2_ERROR_EAGAIN) return;
      if (status) return fail(host, "authentication");
      host->state = OPENING;
      break;
    case OPENING:
      host->channel = libssh2_channel_open_session(host->session);
      if (!host->channel && libssh2_session_last_errno(host->session) == LIBSSH2_ERROR_EAGAIN) return;
      if (!host->channel) return fail(host, "channel");
      host->state = STARTING;
      break;
    case STARTING:
      status = libssh2_channel_exec(host->channel, command);
      if (status == LIBSSH2_ERROR_EAGAIN) return;
      if (status) return fail(host, "exec");
      host->state = READING;
      break;
    case READING:
      while ((count = libssh2_channel_read(host->channel, buffer, sizeof buffer)) > 0) fwrite(buffer, 1, count, stdout);
      if (count == LIBSSH2_ERROR_EAGAIN) return;
      if (count < 0) return fail(host, "read");
      host->state = CLOSING;
      break;
    case CLOSING:
      status = libssh2_channel_close(host->channel);
      if (status == LIBSSH2_ERROR_EAGAIN) return;
      if (libssh2_channel_get_exit_status(host->channel)) failures++;
      libssh2_session_disconnect(host->session, "");
      close(host->socket);
      host->state = DONE;
      return;
    case DONE: return;
    }
  }
}

int main(int count, char **words) {
  if (count < 6) return 64;
  key = words[1];
  user = words[2];
  command = words[4];
  char *beside = malloc(strlen(key) + 5);
  public_key = strcat(strcpy(beside, key), ".pub");
  int hosts_count = count - 5, open = hosts_count;
  struct host *hosts = calloc(hosts_count, sizeof *hosts);
  struct pollfd *polled = calloc(hosts_count, sizeof *polled);
  libssh2_init(0);
  for (int i = 0; i < hosts_count; i++) begin(&hosts[i], words[5 + i], atoi(words[3]));
  while (open > 0) {
    open = 0;
    for (int i = 0; i < hosts_count; i++) {
      struct host *host = &hosts[i];
      polled[i].fd = host->state == DONE ? -1 : host->socket;
      polled[i].events = host->state == CONNECTING ? POLLOUT : POLLIN;
      if (host->session && libssh2_session_block_directions(host->session) & LIBSSH2_SESSION_BLOCK_OUTBOUND) polled[i].events |= POLLOUT;
      if (host->state != DONE) open++;
    }
    if (open == 0 || poll(polled, hosts_count, 30000) <= 0) break;
    for (int i = 0; i < hosts_count; i++) {
      if (polled[i].fd < 0 || !polled[i].revents) continue;
      set_option(hosts[i].socket, TCP_QUICKACK);
      advance(&hosts[i]);
    }
  }
  return failures || open ? 1 : 0;
}
