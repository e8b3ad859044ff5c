/* A stand-in engine that replays prepared answers, so that the proxy is what limits the speed.
 *
 *     engine SOCKET FOLDER
 *
 * Each connection has a thread that blocks; every answer is prepared before it is asked for. FOLDER
 * holds two files for each shape of a log stream: SHAPE.wire, one cycle of the chunked body, which
 * ends at a chunk's end, and SHAPE.cuts, how many bytes each send takes, as little-endian uint32.
 * Paths, with or without an API version before them:
 *
 *     /_ping, /version, /containers/NAME/json
 *         requests of the proxy itself; /_ping is also the request that is measured
 *     /containers/SHAPE.N/logs
 *         N cycles of a shape; with N = 0 it goes on until the client leaves
 *     /containers/quiet.HZ/logs
 *         HZ frames a second; each holds the clock at its sending, in ns
 *     /containers/follow/logs
 *         one frame, then silence until the client leaves
 *     /images/BYTES/get, /containers/BYTES/export
 *         a body of so many bytes (a multiple of 32 KiB), with a length or in chunks
 *     /bench/state
 *         how many follow streams are open now, and when the last one was closed
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define HEAD_MAX 65536
/* What the engine sends at once of an opaque body, as Go's io.Copy does; also its chunks' size */
#define CHUNK (32 * 1024)
#define CHUNK_LINE 6 /* "8000" CR LF */
#define CHUNK_WIRE (CHUNK_LINE + CHUNK + 2)
#define PATTERN (1 << 20) /* the opaque bodies repeat this many bytes of FOLDER/pattern */
#define STACK (128 * 1024)

static const char COMMON[] = "Api-Version: 1.51\r\nDocker-Experimental: false\r\n"
                             "Ostype: linux\r\nServer: Docker/28.5.2 (linux)\r\n"
                             "Date: Tue, 24 Nov 2026 20:00:00 GMT\r\n";
static const char *folder;
static char *chunks; /* the pattern as chunks, one behind the other */
static atomic_long follow_open, follow_seen;
static atomic_llong follow_closed;

static long long now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

/* All of it, or -1 when the client has gone. */
static int send_all(int fd, const char *data, size_t size) {
    while (size) {
        ssize_t n = send(fd, data, size, MSG_NOSIGNAL);
        if (n <= 0) return -1;
        data += n, size -= (size_t)n;
    }
    return 0;
}

static int send_text(
    int fd, const char *status, const char *type, const char *extra, const char *body) {
    char text[4096];
    int n = snprintf(text, sizeof text,
        "HTTP/1.1 %s\r\n%s%sContent-Type: %s\r\nContent-Length: %zu\r\n\r\n%s", status, COMMON,
        extra, type, strlen(body), body);
    return send_all(fd, text, (size_t)n);
}

static int send_stream_head(int fd) {
    char text[1024];
    int n = snprintf(text, sizeof text,
        "HTTP/1.1 200 OK\r\n%s"
        "Content-Type: application/vnd.docker.multiplexed-stream\r\n"
        "Transfer-Encoding: chunked\r\n\r\n",
        COMMON);
    return send_all(fd, text, (size_t)n);
}

static void *map_file(const char *name, const char *suffix, size_t *size) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s%s", folder, name, suffix);
    int fd = open(path, O_RDONLY);
    struct stat info;
    if (fd < 0 || fstat(fd, &info)) return NULL;
    void *data =
        mmap(NULL, *size = (size_t)info.st_size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd, 0);
    close(fd);
    return data == MAP_FAILED ? NULL : data;
}

static int replay(int fd, const char *shape, long cycles) {
    size_t wire_size, cuts_size;
    char *wire = map_file(shape, ".wire", &wire_size);
    uint32_t *cuts = map_file(shape, ".cuts", &cuts_size);
    if (!wire || !cuts)
        return send_text(
            fd, "404 Not Found", "application/json", "", "{\"message\":\"no such shape\"}\n");
    int failed = send_stream_head(fd);
    for (long cycle = 0; !failed && (cycle < cycles || !cycles); cycle++) {
        const char *at = wire;
        for (size_t i = 0; !failed && i < cuts_size / 4; at += cuts[i++])
            failed = send_all(fd, at, cuts[i]);
    }
    munmap(wire, wire_size);
    munmap(cuts, cuts_size);
    return failed ? -1 : send_all(fd, "0\r\n\r\n", 5);
}

static int send_frame(int fd, const char *text) {
    char chunk[512];
    uint32_t size = (uint32_t)strlen(text);
    int n = snprintf(chunk, sizeof chunk, "%x\r\n", size + 8);
    char header[8] = {
        1, 0, 0, 0, (char)(size >> 24), (char)(size >> 16), (char)(size >> 8), (char)size};
    memcpy(chunk + n, header, 8);
    memcpy(chunk + n + 8, text, size);
    memcpy(chunk + n + 8 + size, "\r\n", 2);
    return send_all(fd, chunk, (size_t)n + 8 + size + 2);
}

static int quiet(int fd, int hz) {
    char text[128];
    unsigned seed = (unsigned)fd * 2654435761u;
    long long next = now() + rand_r(&seed) % (1000000000 / hz);
    if (send_stream_head(fd)) return -1;
    while (1) {
        struct timespec until = {next / 1000000000, next % 1000000000};
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
        snprintf(text, sizeof text,
            "%019lld a quiet container says one line now and then, about as long as this one is\n",
            now());
        if (send_frame(fd, text)) return -1;
        next += 1000000000 / hz;
    }
}

static int follow(int fd) {
    char byte;
    follow_open++;
    follow_seen++;
    if (!send_stream_head(fd) && !send_frame(fd, "following\n"))
        while (recv(fd, &byte, 1, 0) > 0);
    follow_closed = now();
    follow_open--;
    return -1;
}

static int opaque(int fd, long long bytes, int chunked) {
    char head[1024];
    int n = snprintf(
        head, sizeof head, "HTTP/1.1 200 OK\r\n%sContent-Type: application/x-tar\r\n", COMMON);
    if (chunked) n += snprintf(head + n, sizeof head - n, "Transfer-Encoding: chunked\r\n\r\n");
    else n += snprintf(head + n, sizeof head - n, "Content-Length: %lld\r\n\r\n", bytes);
    if (send_all(fd, head, (size_t)n)) return -1;
    for (long long sent = 0; sent < bytes; sent += CHUNK)
        if (send_all(fd, chunks + sent % PATTERN / CHUNK * CHUNK_WIRE + (chunked ? 0 : CHUNK_LINE),
                chunked ? CHUNK_WIRE : CHUNK))
            return -1;
    return chunked ? send_all(fd, "0\r\n\r\n", 5) : 0;
}

/* One request; -1 ends the connection. */
static int answer(int fd, const char *path) {
    char name[256], body[16384];
    long number;
    int hz, end = 0; /* set only where all of a path's format has matched */
    if (path[0] == '/' && path[1] == 'v' && path[2] >= '0' && path[2] <= '9')
        path = strchr(path + 1, '/');
    if (!path) return -1;
    if (!strncmp(path, "/_ping", 6))
        return send_text(fd, "200 OK", "text/plain; charset=utf-8",
            "Builder-Version: 2\r\nCache-Control: no-cache, no-store, must-revalidate\r\n"
            "Pragma: no-cache\r\nSwarm: inactive\r\n",
            "OK");
    if (!strncmp(path, "/version", 8))
        return send_text(fd, "200 OK", "application/json", "",
            "{\"Version\":\"28.5.2\",\"ApiVersion\":\"1.51\",\"MinAPIVersion\":\"1.24\"}\n");
    if (!strncmp(path, "/bench/state", 12)) {
        snprintf(body, sizeof body, "{\"open\": %ld, \"seen\": %ld, \"closed_ns\": %lld}",
            (long)follow_open, (long)follow_seen, (long long)follow_closed);
        return send_text(fd, "200 OK", "application/json", "", body);
    }
    if (sscanf(path, "/containers/quiet.%d/logs%n", &hz, &end) == 1 && end && hz > 0)
        return quiet(fd, hz);
    if (!strncmp(path, "/containers/follow/logs", 23)) return follow(fd);
    if (sscanf(path, "/containers/%255[^./].%ld/logs%n", name, &number, &end) == 2 && end)
        return replay(fd, name, number);
    if (sscanf(path, "/images/%ld/get%n", &number, &end) == 1 && end) return opaque(fd, number, 0);
    if (sscanf(path, "/containers/%ld/export%n", &number, &end) == 1 && end)
        return opaque(fd, number, 1);
    if (sscanf(path, "/containers/%200[^/]/json%n", name, &end) == 1 && end) {
        const char *env = getenv("BENCH_ENV"); /* a JSON list of variables */
        snprintf(body, sizeof body,
            "{\"Id\":\"%064d\",\"Name\":\"/%s\",\"Config\":{\"Env\":%s}}\n", 7, name,
            env ? env : "[]");
        return send_text(fd, "200 OK", "application/json", "", body);
    }
    return send_text(
        fd, "404 Not Found", "application/json", "", "{\"message\":\"page not found\"}\n");
}

static void *serve(void *argument) {
    int fd = (int)(intptr_t)argument, failed = 0;
    size_t have = 0;
    char *head = malloc(HEAD_MAX + 1);
    while (!failed) {
        ssize_t n = recv(fd, head + have, HEAD_MAX - have, 0);
        if (n <= 0) break;
        head[have += (size_t)n] = 0;
        char *end;
        while (!failed && (end = strstr(head, "\r\n\r\n"))) {
            int closing;
            char *path = strchr(head, ' '), *rest = end + 4;
            end[2] = 0;
            closing = strcasestr(head, "\r\nconnection: close") != NULL;
            failed = !path || answer(fd, path + 1) || closing;
            memmove(head, rest, (have -= (size_t)(rest - head)) + 1);
        }
    }
    free(head);
    close(fd);
    return NULL;
}

int main(int argc, char **argv) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct rlimit files = {65536, 65536};
    pthread_attr_t attributes;
    size_t size;
    if (argc != 3) return fprintf(stderr, "usage: engine SOCKET FOLDER\n"), 2;
    folder = argv[2];
    signal(SIGPIPE, SIG_IGN);
    setrlimit(RLIMIT_NOFILE, &files);
    char *once = map_file("pattern", "", &size);
    if (!once || size != PATTERN)
        return fprintf(stderr, "engine: %s/pattern is missing\n", folder), 2;
    chunks = malloc(PATTERN / CHUNK * CHUNK_WIRE);
    for (int i = 0; i < PATTERN / CHUNK; i++) {
        char *chunk = chunks + i * CHUNK_WIRE;
        memcpy(chunk, "8000\r\n", CHUNK_LINE);
        memcpy(chunk + CHUNK_LINE, once + i * CHUNK, CHUNK);
        memcpy(chunk + CHUNK_LINE + CHUNK, "\r\n", 2);
    }
    snprintf(address.sun_path, sizeof address.sun_path, "%s", argv[1]);
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    unlink(argv[1]);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 4096))
        return perror("engine: listen"), 1;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    while (1) {
        pthread_t thread;
        int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        if (fd >= 0 && pthread_create(&thread, &attributes, serve, (void *)(intptr_t)fd)) close(fd);
    }
}
