/* Preloaded into a process, kills it with SIGKILL at a chosen call that changes files below a chosen folder.

   Calls are counted by kind from `kill_arm` on. A write is cut in half before the process dies; it dies before or after
   any other call. Calls that libc makes for itself (fwrite's) are not seen, nor is what lies elsewhere. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum kind { OPEN, WRITE, FSYNC, RENAME, UNLINK, MKDIR, KINDS };

/* Shared with the parent, which reads it when the process is dead. */
struct report {
  _Atomic long counts[KINDS];
  char path[PATH_MAX];
};

static struct report *report;
static char root[PATH_MAX];
static int wanted_kind, dies_after;
static long wanted;
static pid_t victim;
static char watched[1 << 16]; /* descriptors of files below the folder */

void kill_arm(struct report *shared, const char *folder, int kind, long number, int after) {
  snprintf(root, sizeof root, "%s/", folder);
  wanted_kind = kind, wanted = number, dies_after = after, victim = getpid();
  report = shared;
}

static void path_of(int folder, const char *name, char *path) {
  char link[64];
  ssize_t length = 0;
  if (name[0] != '/') {
    if (folder == AT_FDCWD)
      snprintf(link, sizeof link, "/proc/self/cwd");
    else
      snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
    length = readlink(link, path, PATH_MAX / 2);
    if (length < 0) length = 0;
    path[length++] = '/';
  }
  snprintf(path + length, PATH_MAX - length, "%s", name);
}

/* Counts a call; 1 where it is the one to die in. */
static int meets(enum kind kind, const char *path) {
  if (report == NULL || getpid() != victim || strncmp(path, root, strlen(root)) != 0) return 0;
  if (atomic_fetch_add(&report->counts[kind], 1) + 1 != wanted || kind != (enum kind)wanted_kind) return 0;
  snprintf(report->path, sizeof report->path, "%s", path + strlen(root));
  return 1;
}

static int meets_at(enum kind kind, int folder, const char *name) {
  char path[PATH_MAX];
  if (report == NULL) return 0;
  path_of(folder, name, path);
  return meets(kind, path);
}

static int meets_file(enum kind kind, int file) {
  char link[64], path[PATH_MAX];
  if (report == NULL || file < 0 || file >= (int)sizeof watched || !watched[file]) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", file);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (length < 0) return 0;
  path[length] = 0;
  return meets(kind, path);
}

static void die(void) {
  kill(victim, SIGKILL);
  for (;;) pause();
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define AROUND(met, call)          \
  int dies = (met);                \
  if (dies && !dies_after) die();  \
  __typeof__(call) result = call;  \
  if (dies) die();                 \
  return result

static int opened(int file, int folder, const char *name, int dies) {
  char path[PATH_MAX];
  if (dies) die();
  if (report != NULL && file >= 0 && file < (int)sizeof watched) {
    path_of(folder, name, path);
    watched[file] = strncmp(path, root, strlen(root)) == 0;
  }
  return file;
}

#define OPENER(name, folder, parameters, arguments)                                      \
  int name parameters {                                                                  \
    va_list rest;                                                                        \
    va_start(rest, flags);                                                               \
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;              \
    va_end(rest);                                                                        \
    int dies = flags & (O_CREAT | O_WRONLY | O_RDWR) ? meets_at(OPEN, folder, path) : 0; \
    if (dies && !dies_after) die();                                                      \
    return opened(NEXT(name) arguments, folder, path, dies);                             \
  }

OPENER(open, AT_FDCWD, (const char *path, int flags, ...), (path, flags, mode))
OPENER(open64, AT_FDCWD, (const char *path, int flags, ...), (path, flags, mode))
OPENER(openat, folder, (int folder, const char *path, int flags, ...), (folder, path, flags, mode))
OPENER(openat64, folder, (int folder, const char *path, int flags, ...), (folder, path, flags, mode))

int close(int file) {
  if (file >= 0 && file < (int)sizeof watched) watched[file] = 0;
  return NEXT(close)(file);
}

ssize_t write(int file, const void *bytes, size_t count) {
  if (meets_file(WRITE, file)) NEXT(write)(file, bytes, count / 2), die();
  return NEXT(write)(file, bytes, count);
}

ssize_t writev(int file, const struct iovec *parts, int count) {
  if (meets_file(WRITE, file)) NEXT(writev)(file, parts, count / 2), die();
  return NEXT(writev)(file, parts, count);
}

ssize_t pwrite64(int file, const void *bytes, size_t count, off64_t start) {
  if (meets_file(WRITE, file)) NEXT(pwrite64)(file, bytes, count / 2, start), die();
  return NEXT(pwrite64)(file, bytes, count, start);
}

ssize_t pwrite(int file, const void *bytes, size_t count, off_t start) {
  return pwrite64(file, bytes, count, start);
}

int fsync(int file) { AROUND(meets_file(FSYNC, file), NEXT(fsync)(file)); }
int fdatasync(int file) { AROUND(meets_file(FSYNC, file), NEXT(fdatasync)(file)); }
int rename(const char *from, const char *to) { AROUND(meets_at(RENAME, AT_FDCWD, to), NEXT(rename)(from, to)); }
int renameat(int a, const char *from, int b, const char *to) {
  AROUND(meets_at(RENAME, b, to), NEXT(renameat)(a, from, b, to));
}
int unlink(const char *path) { AROUND(meets_at(UNLINK, AT_FDCWD, path), NEXT(unlink)(path)); }
int unlinkat(int folder, const char *path, int flags) {
  AROUND(meets_at(UNLINK, folder, path), NEXT(unlinkat)(folder, path, flags));
}
int rmdir(const char *path) { AROUND(meets_at(UNLINK, AT_FDCWD, path), NEXT(rmdir)(path)); }
int mkdir(const char *path, mode_t mode) { AROUND(meets_at(MKDIR, AT_FDCWD, path), NEXT(mkdir)(path, mode)); }
int mkdirat(int folder, const char *path, mode_t mode) {
  AROUND(meets_at(MKDIR, folder, path), NEXT(mkdirat)(folder, path, mode));
}
