/* The load client: it sends requests, compares every byte of the answers, and prints how long they
 * took as one line of JSON. It is fast enough not to be what limits the speed.
 *
 *     load stream ADDRESS TARGET TIMES EXPECTED [wire]
 *         a body that is TIMES times the file EXPECTED, byte for byte
 *     load requests ADDRESS TARGET CLIENTS SECONDS BODY
 *         keep-alive requests by so many clients, all answered with BODY
 *     load quiet ADDRESS QUIET STREAMS SECONDS BUSY COUNT
 *         the latency of QUIET's frames while COUNT streams of BUSY run
 *     load first ADDRESS TARGET TRIES BUSY COUNT
 *         the time to a new stream's first body byte while COUNT streams of BUSY run; at most 10 s
 *     load follow ADDRESS TARGET COUNT
 *         opens streams, says so, and closes them all at once when its standard input ends
 *     load slow ADDRESS TARGET BYTES SECONDS
 *         reads BYTES of a body evenly over so long, then leaves
 *
 * ADDRESS is the path of a Unix socket or 127.0.0.1:PORT. With `wire` the chunk framing is compared
 * too, for peers that pass it on unchanged. For other peers the chunks' contents are compared.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdarg.h>
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

#define BUFFER (256 * 1024)
#define STREAMS 2048
#define SAMPLES (1 << 20)
#define FIRST_LIMIT 10.0 /* s that trying new streams may take */
#define WARM_UP 500000   /* us that busy streams run before anything is measured */

static const char *address, *target, *busy_target;
static atomic_int stopping;

static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

__attribute__((noreturn, format(printf, 1, 2))) static void die(const char *format, ...) {
    va_list values;
    va_start(values, format);
    fputs("load: ", stderr);
    vfprintf(stderr, format, values);
    fputc('\n', stderr);
    exit(1);
}

static int dial(void) {
    union {
        struct sockaddr any;
        struct sockaddr_un local;
        struct sockaddr_in net;
    } to = {0};
    socklen_t size = sizeof to.local;
    int one = 1;
    if (address[0] == '/') {
        to.local.sun_family = AF_UNIX;
        snprintf(to.local.sun_path, sizeof to.local.sun_path, "%s", address);
    } else {
        to.net.sin_family = AF_INET,
        to.net.sin_port = htons((uint16_t)atoi(strchr(address, ':') + 1)), size = sizeof to.net;
        inet_pton(AF_INET, "127.0.0.1", &to.net.sin_addr);
    }
    int fd = socket(to.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (address[0] != '/') setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    for (int tries = 0; connect(fd, &to.any, size);
        tries++) { /* a Unix listener's full backlog says EAGAIN at once */
        if (tries > 1000) die("cannot connect to %s", address);
        usleep(1000);
    }
    return fd;
}

static void ask(int fd, const char *what) {
    char text[1024];
    int n = snprintf(text, sizeof text,
        "GET %s HTTP/1.1\r\nHost: docker\r\n"
        "User-Agent: Docker-Client/28.5.2 (linux)\r\n\r\n",
        what);
    if (send(fd, text, (size_t)n, MSG_NOSIGNAL) != n) die("cannot send to %s", address);
}

/* Read a head and set *chunked. Returns how many bytes of the body came with it; they are moved to
 * the buffer's start. */
static size_t read_head(int fd, char *buffer, int *chunked) {
    size_t have = 0;
    while (1) {
        ssize_t n = recv(fd, buffer + have, BUFFER - 1 - have, 0);
        if (n <= 0) die("%s closed before its head was complete", address);
        buffer[have += (size_t)n] = 0;
        char *end = memmem(buffer, have, "\r\n\r\n", 4);
        if (!end) continue;
        if (strncmp(buffer, "HTTP/1.1 200", 12)) die("%s answers %.40s", address, buffer);
        end[2] = 0;
        *chunked = strcasestr(buffer, "\r\ntransfer-encoding: chunked") != NULL;
        have -= (size_t)(end + 4 - buffer);
        memmove(buffer, end + 4, have);
        return have;
    }
}

/* What a body must be: a file, so many times. */
struct expected {
    const char *data;
    size_t size, at;
    long long left;
};

static struct expected expect(const char *path, long times) {
    struct stat info;
    int fd = open(path, O_RDONLY);
    if (fd < 0 || fstat(fd, &info)) die("cannot read %s", path);
    void *data = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd, 0);
    close(fd);
    return (struct expected){data, (size_t)info.st_size, 0, info.st_size * (long long)times};
}

static void compare(struct expected *wanted, const char *data, size_t size) {
    if ((long long)size > wanted->left) die("the body is longer than it should be");
    wanted->left -= (long long)size;
    while (size) {
        size_t part = wanted->size - wanted->at < size ? wanted->size - wanted->at : size;
        if (memcmp(wanted->data + wanted->at, data, part))
            die("the body differs in the %zu bytes from %zu of a cycle", part, wanted->at);
        data += part, size -= part;
        wanted->at = (wanted->at + part) % wanted->size;
    }
}

/* Chunked coding taken off: state between reads. */
struct chunks {
    size_t left;
    int line, done;
};

static void unchunk(struct chunks *state, struct expected *wanted, const char *data, size_t size) {
    for (size_t at = 0; at < size && !state->done;) {
        if (state->left > 2) { /* data and its CR LF are still to come */
            size_t part = state->left - 2 < size - at ? state->left - 2 : size - at;
            compare(wanted, data + at, part);
            at += part, state->left -= part;
        } else if (state->left) {
            at++, state->left--;
        } else {
            char c = data[at++];
            int digit = c <= '9' ? c - '0' : (c | 32) - 'a' + 10;
            if (c == '\n') {
                if (!state->line) state->done = 1; /* the last chunk, and no trailer behind it */
                else state->left = (size_t)state->line + 2;
                state->line = 0;
            } else if (c != '\r') state->line = state->line * 16 + digit;
        }
    }
}

static void stream(long times, const char *expected, int wire) {
    static char buffer[BUFFER];
    struct expected wanted = expect(expected, times);
    struct chunks state = {0};
    static const char last[] = "0\r\n\r\n";
    size_t tail = 0;
    int chunked;
    double begun = seconds(), first = 0;
    int fd = dial();
    ask(fd, target);
    long long bytes = 0;
    ssize_t n = (ssize_t)read_head(fd, buffer, &chunked);
    while (1) {
        size_t size = (size_t)n, body = size;
        if (n && !first) first = seconds();
        bytes += n;
        if (chunked && !wire) unchunk(&state, &wanted, buffer, size);
        else {
            if ((long long)body > wanted.left) body = (size_t)wanted.left;
            compare(&wanted, buffer, body);
            if (size > body && (tail + size - body > 5 || !chunked ||
                                   memcmp(last + tail, buffer + body, size - body)))
                die("the body does not end as it should");
            tail += size - body;
        }
        if (!wanted.left && (!chunked || tail == 5 || state.done)) break;
        if ((n = recv(fd, buffer, BUFFER, 0)) <= 0)
            die("the body ends %lld bytes too early", wanted.left);
    }
    double end = seconds();
    printf("{\"seconds\": %.6f, \"first\": %.6f, \"bytes\": %lld}\n", end - begun, first - begun,
        bytes);
}

/* -- keep-alive requests */

static const char *answer_body;
static atomic_long answered;

static void *requester(void *unused) {
    char buffer[8192], text[1024];
    (void)unused;
    int fd = dial();
    long done = 0;
    size_t body = strlen(answer_body);
    size_t asked = (size_t)snprintf(text, sizeof text,
        "GET %s HTTP/1.1\r\nHost: docker\r\n"
        "User-Agent: Docker-Client/28.5.2 (linux)\r\n\r\n",
        target);
    while (!stopping) {
        size_t have = 0;
        char *end = NULL;
        if (send(fd, text, asked, MSG_NOSIGNAL) != (ssize_t)asked)
            die("a keep-alive connection of %s was closed", address);
        while (!end || have - (size_t)(end + 4 - buffer) < body) {
            ssize_t n = recv(fd, buffer + have, sizeof buffer - have, 0);
            if (n <= 0) die("a keep-alive connection of %s ended in an answer", address);
            have += (size_t)n;
            if (!end) end = memmem(buffer, have, "\r\n\r\n", 4);
        }
        if (strncmp(buffer, "HTTP/1.1 200", 12) || memcmp(end + 4, answer_body, body) ||
            have != (size_t)(end + 4 - buffer) + body)
            die("%s answers wrongly", address);
        done++;
    }
    close(fd);
    answered += done;
    return NULL;
}

static void requests(int clients, double duration, const char *body) {
    pthread_t threads[STREAMS];
    answer_body = body;
    double begun = seconds();
    for (int i = 0; i < clients; i++) pthread_create(&threads[i], NULL, requester, NULL);
    usleep((useconds_t)(duration * 1e6));
    stopping = 1;
    for (int i = 0; i < clients; i++) pthread_join(threads[i], NULL);
    printf("{\"seconds\": %.6f, \"requests\": %ld}\n", seconds() - begun, (long)answered);
}

/* -- streams beside each other */

static atomic_llong busy_bytes;

static void *busy_reader(void *unused) {
    char *buffer = malloc(BUFFER);
    int chunked, fd = dial();
    (void)unused;
    ask(fd, busy_target);
    read_head(fd, buffer, &chunked);
    while (!stopping) {
        ssize_t n = recv(fd, buffer, BUFFER, 0);
        if (n <= 0) die("a busy stream of %s ended", address);
        busy_bytes += n;
    }
    close(fd);
    free(buffer);
    return NULL;
}

static void start_busy(int count) {
    pthread_t thread;
    for (int i = 0; i < count; i++) {
        pthread_create(&thread, NULL, busy_reader, NULL);
        pthread_detach(thread);
    }
    if (count) usleep(WARM_UP);
}

static double samples[SAMPLES];
static atomic_int taken;

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double percentile(double share) {
    int count = taken;
    return count ? samples[(int)(share * (count - 1))] : -1;
}

static void *quiet_reader(void *unused) {
    char buffer[BUFFER];
    int chunked, fd = dial();
    (void)unused;
    ask(fd, target);
    size_t have = read_head(fd, buffer, &chunked);
    while (!stopping) {
        double arrived = seconds();
        long long sent;
        buffer[have] = 0;
        for (char *at = buffer;
            have && (at = memmem(at, have - (size_t)(at - buffer), "\x01\0\0\0", 4)); at += 8) {
            int slot = (sscanf(at + 8, "%19lld", &sent) == 1) ? taken++ : SAMPLES;
            if (slot < SAMPLES) samples[slot] = arrived - (double)sent / 1e9;
        }
        ssize_t n = recv(fd, buffer, BUFFER - 1, 0);
        if (n <= 0) break;
        have = (size_t)n;
    }
    close(fd);
    return NULL;
}

static void quiet(int streams, double duration, int busy) {
    pthread_t thread;
    start_busy(busy);
    for (int i = 0; i < streams; i++) pthread_create(&thread, NULL, quiet_reader, NULL);
    usleep(WARM_UP);
    taken = 0;
    long long bytes = busy_bytes;
    usleep((useconds_t)(duration * 1e6));
    bytes = busy_bytes - bytes;
    int count = taken;
    stopping = 1;
    qsort(samples, (size_t)(taken = count), sizeof *samples, by_value);
    printf("{\"p50\": %.9f, \"p99\": %.9f, \"samples\": %d, \"bytes\": %lld}\n", percentile(0.5),
        percentile(0.99), count, bytes);
    fflush(stdout);
    _exit(0); /* the readers sit in recv */
}

static void first(int tries, int busy) {
    static char buffer[BUFFER];
    start_busy(busy);
    double end = seconds() + FIRST_LIMIT;
    for (int i = 0; i < tries && seconds() < end; i++) {
        int chunked;
        double begun = seconds();
        int fd = dial();
        ask(fd, target);
        if (!read_head(fd, buffer, &chunked) && recv(fd, buffer, BUFFER, 0) <= 0)
            die("a new stream of %s ended", address);
        samples[taken++] = seconds() - begun;
        close(fd);
        usleep(10000);
    }
    qsort(samples, (size_t)taken, sizeof *samples, by_value);
    printf("{\"p50\": %.9f, \"p99\": %.9f, \"samples\": %d}\n", percentile(0.5), percentile(0.99),
        (int)taken);
    fflush(stdout);
    _exit(0);
}

static void follow(int count) {
    static char buffer[BUFFER];
    static int fds[STREAMS];
    int chunked;
    for (int i = 0; i < count; i++) {
        ask(fds[i] = dial(), target);
        if (!read_head(fds[i], buffer, &chunked) && recv(fds[i], buffer, BUFFER, 0) <= 0)
            die("stream %d of %s ended", i, address);
    }
    printf("{\"open\": %d}\n", count);
    fflush(stdout);
    while (getchar() != EOF);
    double begun = seconds();
    for (int i = 0; i < count; i++) close(fds[i]);
    printf("{\"closed_ns\": %.0f, \"closing\": %.6f}\n", begun * 1e9, seconds() - begun);
}

static void slow(long long bytes, double duration) {
    static char buffer[BUFFER];
    int chunked, fd = dial();
    ask(fd, target);
    long long done = (long long)read_head(fd, buffer, &chunked);
    double begun = seconds();
    while (done < bytes && seconds() - begun < duration) {
        ssize_t n = recv(fd, buffer, BUFFER, 0);
        if (n <= 0) die("the body of %s ends early", address);
        done += n;
        double ahead = (double)done / (double)bytes * duration - (seconds() - begun);
        if (ahead > 0.001) usleep((useconds_t)(ahead * 1e6));
    }
    printf("{\"seconds\": %.6f, \"bytes\": %lld}\n", seconds() - begun, done);
}

int main(int argc, char **argv) {
    struct rlimit files = {65536, 65536};
    signal(SIGPIPE, SIG_IGN);
    setrlimit(RLIMIT_NOFILE, &files);
    if (argc < 5) die("see the comment at the top of load.c");
    address = argv[2], target = argv[3];
    busy_target = argc > 6 ? argv[argc - 2] : "";
    if (!strcmp(argv[1], "stream") && argc >= 6) stream(atol(argv[4]), argv[5], argc > 6);
    else if (!strcmp(argv[1], "requests") && argc == 7)
        requests(atoi(argv[4]), atof(argv[5]), argv[6]);
    else if (!strcmp(argv[1], "quiet") && argc == 8)
        quiet(atoi(argv[4]), atof(argv[5]), atoi(argv[7]));
    else if (!strcmp(argv[1], "first") && argc == 7) first(atoi(argv[4]), atoi(argv[6]));
    else if (!strcmp(argv[1], "follow")) follow(atoi(argv[4]));
    else if (!strcmp(argv[1], "slow") && argc == 6) slow(atoll(argv[4]), atof(argv[5]));
    else die("see the comment at the top of load.c");
    return 0;
}
