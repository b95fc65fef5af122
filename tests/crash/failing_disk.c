// A disk that fails when it is told to: loaded before the C library, it answers some calls with an error instead of making them.
//
// The file named by DISK_FAULT says which, while it is there: "<call> <part of the file's path> <errno> <how often, 0 for always>".
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static int failed;

static int fault(const char *call, int fd) {
    const char *told = getenv("DISK_FAULT");
    char which[32], part[128], link[64], path[512];
    int error, times;
    FILE *file = told ? fopen(told, "r") : NULL;
    if (!file) return 0;
    int read = fscanf(file, "%31s %127s %d %d", which, part, &error, &times);
    fclose(file);
    if (read != 4 || strcmp(which, call) != 0 || (times && failed >= times)) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    if (!strstr(path, part)) return 0;
    failed++;
    return error;
}

#define FAILING(call, fd, type, ...)                                \
    int error = fault(call, fd);                                    \
    if (error) {                                                    \
        errno = error;                                              \
        return -1;                                                  \
    }                                                               \
    static type real;                                               \
    if (!real) real = (type)dlsym(RTLD_NEXT, call);                 \
    return real(__VA_ARGS__);

typedef ssize_t (*write_call)(int, const void *, size_t);
typedef ssize_t (*pwrite_call)(int, const void *, size_t, off64_t);
typedef int (*sync_call)(int);

ssize_t write(int fd, const void *bytes, size_t length) { FAILING("write", fd, write_call, fd, bytes, length) }
ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t at) { FAILING("pwrite64", fd, pwrite_call, fd, bytes, length, at) }
int fdatasync(int fd) { FAILING("fdatasync", fd, sync_call, fd) }
int fsync(int fd) { FAILING("fsync", fd, sync_call, fd) }
