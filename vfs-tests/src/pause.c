/*
** A VFS for the tests, "pause": the default VFS of the moment it is loaded, but that a thread can
** be stopped before a call of its choice, and told later to go on. See vfs_tests::pause.
**
** A loadable extension, so that it runs under any SQLite. Two SQL functions, for the thread that
** calls them:
**
**   pause_at(method, file, n, socket)   Stop before the n-th call from now of the method
**       ("xUnfetch") on a file of that kind ("main", "wal", "other"; "vfs" for the methods of the
**       VFS). "*" stands for any method, any file. To stop is to connect to the Unix socket, to
**       write a line, and to wait until the other side closes. The line: the lock slots of the
**       wal-index that the file holds exclusively (the sum of 1 << slot), and the call.
**   pause_end()   Not any more. If it has not stopped, writes the line "0 end" and does not wait.
*/
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "sqlite3ext.h"
SQLITE_EXTENSION_INIT1

/* The longest stop, in ms: longer than any test. */
#define LIMIT 120000

/* Where this thread is to stop; left is 0 if nowhere. */
static __thread struct {
  char method[32];
  char file[8];
  int left;
  char socket[sizeof(((struct sockaddr_un *)0)->sun_path)];
} stop;

static void say(const char *line, int wait){
  struct sockaddr_un address = { .sun_family = AF_UNIX };
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if( fd<0 ) return;
  strcpy(address.sun_path, stop.socket);
  if( connect(fd, (struct sockaddr *)&address, sizeof address)==0
   && send(fd, line, strlen(line), MSG_NOSIGNAL)>0 && wait
  ){
    struct pollfd closed = { .fd = fd, .events = POLLIN };
    while( poll(&closed, 1, LIMIT)<0 && errno==EINTR ){}
  }
  close(fd);
}

static int is(const char *wanted, const char *given){
  return strcmp(wanted, "*")==0 || strcmp(wanted, given)==0;
}

/* A file. The base's lies behind it. */
typedef struct {
  sqlite3_file ours;
  const char *kind;
  int slots;
  int may_block;
  sqlite3_file *base;
} PauseFile;

#define BASE(file) (((PauseFile *)(file))->base)

/* A call on a file, or of the VFS if that is null. */
static void before(const char *method, sqlite3_file *at, const char *arguments){
  PauseFile *file = (PauseFile *)at;
  const char *kind = file ? file->kind : "vfs";
  char line[128];
  int saved = errno;
  if( stop.left==0 || !is(stop.method, method) || !is(stop.file, kind) ) return;
  if( --stop.left>0 ) return;
  snprintf(line, sizeof line, "%d %s %s%s\n", file ? file->slots : 0, method, kind, arguments);
  say(line, 1);
  errno = saved;
}

/* A method of a file that only goes on to the base's. */
#define METHOD(returns, method, parameters, ...) \
  static returns method parameters { \
    before(#method, file, ""); \
    return BASE(file)->pMethods->method(__VA_ARGS__); \
  }

METHOD(int, xClose, (sqlite3_file *file), BASE(file))
METHOD(int, xRead, (sqlite3_file *file, void *into, int n, sqlite3_int64 at),
  BASE(file), into, n, at)
METHOD(int, xWrite, (sqlite3_file *file, const void *from, int n, sqlite3_int64 at),
  BASE(file), from, n, at)
METHOD(int, xTruncate, (sqlite3_file *file, sqlite3_int64 size), BASE(file), size)
METHOD(int, xSync, (sqlite3_file *file, int flags), BASE(file), flags)
METHOD(int, xFileSize, (sqlite3_file *file, sqlite3_int64 *size), BASE(file), size)
METHOD(int, xLock, (sqlite3_file *file, int level), BASE(file), level)
METHOD(int, xUnlock, (sqlite3_file *file, int level), BASE(file), level)
METHOD(int, xCheckReservedLock, (sqlite3_file *file, int *reserved), BASE(file), reserved)
METHOD(int, xSectorSize, (sqlite3_file *file), BASE(file))
METHOD(int, xDeviceCharacteristics, (sqlite3_file *file), BASE(file))
METHOD(int, xShmMap,
  (sqlite3_file *file, int region, int size, int extend, void volatile **at),
  BASE(file), region, size, extend, at)
METHOD(void, xShmBarrier, (sqlite3_file *file), BASE(file))
METHOD(int, xShmUnmap, (sqlite3_file *file, int delete), BASE(file), delete)
METHOD(int, xFetch, (sqlite3_file *file, sqlite3_int64 at, int n, void **into),
  BASE(file), at, n, into)
METHOD(int, xUnfetch, (sqlite3_file *file, sqlite3_int64 at, void *from),
  BASE(file), at, from)

static int xShmLock(sqlite3_file *file, int offset, int n, int flags){
  char arguments[48];
  int rc;
  snprintf(arguments, sizeof arguments, " %s %s %d+%d%s",
    flags & SQLITE_SHM_LOCK ? "lock" : "unlock",
    flags & SQLITE_SHM_EXCLUSIVE ? "exclusive" : "shared", offset, n,
    flags & SQLITE_SHM_LOCK && ((PauseFile *)file)->may_block ? " may block" : "");
  before("xShmLock", file, arguments);
  rc = BASE(file)->pMethods->xShmLock(BASE(file), offset, n, flags);
  if( rc==SQLITE_OK && flags & SQLITE_SHM_EXCLUSIVE ){
    int slots = ((1 << n) - 1) << offset;
    if( flags & SQLITE_SHM_LOCK ) ((PauseFile *)file)->slots |= slots;
    else ((PauseFile *)file)->slots &= ~slots;
  }
  return rc;
}

static int xFileControl(sqlite3_file *file, int op, void *argument){
  char arguments[16];
  int rc;
  snprintf(arguments, sizeof arguments, " %d", op);
  before("xFileControl", file, arguments);
  if( op==SQLITE_FCNTL_LOCK_TIMEOUT ) ((PauseFile *)file)->may_block = *(int *)argument!=0;
  rc = BASE(file)->pMethods->xFileControl(BASE(file), op, argument);
  if( op==SQLITE_FCNTL_VFSNAME && rc==SQLITE_OK ){
    *(char **)argument = sqlite3_mprintf("pause/%z", *(char **)argument);
  }
  return rc;
}

static const sqlite3_io_methods methods = {
  3, xClose, xRead, xWrite, xTruncate, xSync, xFileSize, xLock, xUnlock, xCheckReservedLock,
  xFileControl, xSectorSize, xDeviceCharacteristics, xShmMap, xShmLock, xShmBarrier, xShmUnmap,
  xFetch, xUnfetch
};

static sqlite3_vfs *base;

static int xOpen(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags, int *out){
  PauseFile *opened = (PauseFile *)file;
  int rc;
  (void)vfs;
  before("xOpen", 0, "");
  opened->slots = 0;
  opened->may_block = 0;
  opened->kind =
    flags & SQLITE_OPEN_MAIN_DB ? "main" : flags & SQLITE_OPEN_WAL ? "wal" : "other";
  opened->base = (sqlite3_file *)&opened[1];
  opened->base->pMethods = 0;
  rc = base->xOpen(base, name, opened->base, flags, out);
  /* SQLite closes what has methods, also if xOpen has failed. */
  opened->ours.pMethods = opened->base->pMethods ? &methods : 0;
  if( opened->base->pMethods && opened->base->pMethods->iVersion<3 ){
    opened->base->pMethods->xClose(opened->base);
    opened->ours.pMethods = 0;
    rc = SQLITE_CANTOPEN;
  }
  return rc;
}

/* A method of the VFS that only goes on to the base's. */
#define VFS_METHOD(returns, method, parameters, ...) \
  static returns method parameters { \
    (void)vfs; \
    before(#method, 0, ""); \
    return base->method(base, __VA_ARGS__); \
  }

typedef void (*Symbol)(void);

VFS_METHOD(int, xDelete, (sqlite3_vfs *vfs, const char *name, int sync), name, sync)
VFS_METHOD(int, xAccess, (sqlite3_vfs *vfs, const char *name, int flags, int *out),
  name, flags, out)
VFS_METHOD(int, xFullPathname, (sqlite3_vfs *vfs, const char *name, int n, char *out),
  name, n, out)
VFS_METHOD(void *, xDlOpen, (sqlite3_vfs *vfs, const char *name), name)
VFS_METHOD(void, xDlError, (sqlite3_vfs *vfs, int n, char *out), n, out)
VFS_METHOD(Symbol, xDlSym, (sqlite3_vfs *vfs, void *library, const char *name), library, name)
VFS_METHOD(void, xDlClose, (sqlite3_vfs *vfs, void *library), library)
VFS_METHOD(int, xRandomness, (sqlite3_vfs *vfs, int n, char *out), n, out)
VFS_METHOD(int, xSleep, (sqlite3_vfs *vfs, int microseconds), microseconds)
VFS_METHOD(int, xCurrentTime, (sqlite3_vfs *vfs, double *out), out)
VFS_METHOD(int, xGetLastError, (sqlite3_vfs *vfs, int n, char *out), n, out)
VFS_METHOD(int, xCurrentTimeInt64, (sqlite3_vfs *vfs, sqlite3_int64 *out), out)
VFS_METHOD(int, xSetSystemCall,
  (sqlite3_vfs *vfs, const char *name, sqlite3_syscall_ptr call), name, call)
VFS_METHOD(sqlite3_syscall_ptr, xGetSystemCall, (sqlite3_vfs *vfs, const char *name), name)
VFS_METHOD(const char *, xNextSystemCall, (sqlite3_vfs *vfs, const char *name), name)

static sqlite3_vfs pause_vfs = {
  3, 0, 0, 0, "pause", 0, xOpen, xDelete, xAccess, xFullPathname, xDlOpen, xDlError, xDlSym,
  xDlClose, xRandomness, xSleep, xCurrentTime, xGetLastError, xCurrentTimeInt64, xSetSystemCall,
  xGetSystemCall, xNextSystemCall
};

static void pause_at(sqlite3_context *context, int count, sqlite3_value **given){
  (void)count;
  snprintf(stop.method, sizeof stop.method, "%s", (const char *)sqlite3_value_text(given[0]));
  snprintf(stop.file, sizeof stop.file, "%s", (const char *)sqlite3_value_text(given[1]));
  stop.left = sqlite3_value_int(given[2]);
  if( sqlite3_value_bytes(given[3])>=(int)sizeof stop.socket ){
    stop.left = 0;
    sqlite3_result_error(context, "pause_at: the socket's path is too long", -1);
    return;
  }
  strcpy(stop.socket, (const char *)sqlite3_value_text(given[3]));
}

static void pause_end(sqlite3_context *context, int count, sqlite3_value **given){
  (void)context, (void)count, (void)given;
  if( stop.left>0 ) say("0 end\n", 0);
  stop.left = 0;
}

static int on_connect(sqlite3 *db, char **message, const sqlite3_api_routines *api){
  (void)message, (void)api;
  sqlite3_create_function(db, "pause_at", 4, SQLITE_UTF8, 0, pause_at, 0, 0);
  return sqlite3_create_function(db, "pause_end", 0, SQLITE_UTF8, 0, pause_end, 0, 0);
}

int sqlite3_pause_init(sqlite3 *db, char **message, const sqlite3_api_routines *api){
  int rc;
  (void)db, (void)message;
  SQLITE_EXTENSION_INIT2(api);
  base = sqlite3_vfs_find(0);
  if( base==0 || base->iVersion<3 ) return SQLITE_ERROR;
  pause_vfs.szOsFile = (int)sizeof(PauseFile) + base->szOsFile;
  pause_vfs.mxPathname = base->mxPathname;
  rc = sqlite3_auto_extension((void (*)(void))on_connect);
  if( rc==SQLITE_OK ) rc = sqlite3_vfs_register(&pause_vfs, 0);
  return rc==SQLITE_OK ? SQLITE_OK_LOAD_PERMANENTLY : rc;
}
