/*
** Promises of the VFS as a client in C sees them, for a C library that no other test has: lock cancellation, fork, the
** queue, and WAL reset. A scene that the stock VFS gets wrong runs there, too, and shows the damage.
**
** Run in an empty directory: ./promises EXTENSION PROGRAM, where PROGRAM starts this program anew.
*/
#include <fcntl.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *extension;

static void fail(const char *what, const char *why) {
  fprintf(stderr, "%s: %s\n", what, why);
  exit(1);
}

static void expect(int holds, const char *what) {
  if (!holds) fail(what, "no");
}

static void load(void) {
  sqlite3 *loader;
  char *why = NULL;
  expect(sqlite3_open_v2(":memory:", &loader, SQLITE_OPEN_READWRITE, NULL) == SQLITE_OK, "open a loader");
  sqlite3_db_config(loader, SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 1, NULL);
  if (sqlite3_load_extension(loader, extension, NULL, &why) != SQLITE_OK) fail(extension, why);
  sqlite3_close(loader);
}

static sqlite3 *open_board(const char *path, const char *vfs) {
  sqlite3 *board;
  if (sqlite3_open_v2(path, &board, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, vfs) != SQLITE_OK)
    fail(path, sqlite3_errmsg(board));
  return board;
}

#define WAL "PRAGMA journal_mode=wal"
#define ROLLBACK_JOURNAL "PRAGMA journal_mode=delete"

static void execute(sqlite3 *board, const char *sql) {
  if (sqlite3_exec(board, sql, NULL, NULL, NULL) != SQLITE_OK) fail(sql, sqlite3_errmsg(board));
}

static int number(void *into, int n, char **values, char **names) {
  (void)n, (void)names;
  *(int *)into = atoi(values[0]);
  return 0;
}

static int asked(sqlite3 *board, const char *sql) {
  int answer = -1;
  if (sqlite3_exec(board, sql, number, &answer, NULL) != SQLITE_OK) fail(sql, sqlite3_errmsg(board));
  return answer;
}

static int ended(pid_t child) {
  int status;
  expect(waitpid(child, &status, 0) == child, "wait for a child");
  expect(WIFEXITED(status), "a child exits");
  return WEXITSTATUS(status);
}

/* Starts this program anew, with the arguments up to a null. */
static pid_t start(const char *self, ...) {
  pid_t child = fork();
  if (child == 0) {
    char *argv[8] = {(char *)self};
    va_list given;
    int n = 1;
    va_start(given, self);
    while (n < 7 && (argv[n] = va_arg(given, char *)) != NULL) n++;
    execv(self, argv);
    _exit(99);
  }
  return child;
}

/* The result code of another program that tries to write to the board at once, on the stock VFS. */
static int try_to_write(const char *self, const char *path) {
  return ended(start(self, "try", path, NULL));
}

/* The board in the middle of a write transaction. */
static sqlite3 *in_transaction(const char *path, const char *vfs, const char *mode) {
  sqlite3 *board = open_board(path, vfs);
  execute(board, mode);
  execute(board, "CREATE TABLE t (x); BEGIN IMMEDIATE; INSERT INTO t VALUES (1)");
  return board;
}

/* A program looks at its own board's header while it writes: closing that descriptor drops the stock VFS's locks. */
static void lock_cancellation(const char *self, const char *path, const char *vfs, int answer) {
  sqlite3 *board = in_transaction(path, vfs, ROLLBACK_JOURNAL);
  char header[16];
  int file = open(path, O_RDONLY);
  expect(file >= 0 && read(file, header, sizeof header) == sizeof header, "read the header");
  close(file);
  expect(try_to_write(self, path) == answer, vfs);
  if (answer == SQLITE_BUSY) execute(board, "COMMIT");
  sqlite3_close(board);
}

/* A child commits the transaction of its parent, by the connection that it has inherited; the parent rolls back. */
static void inherited(const char *path, const char *vfs, int rows) {
  sqlite3 *board = in_transaction(path, vfs, WAL);
  pid_t child = fork();
  if (child == 0) _exit(sqlite3_exec(board, "COMMIT", NULL, NULL, NULL) == SQLITE_OK);
  expect(ended(child) == (rows == 1), "a child commits on the stock VFS only");
  sqlite3_exec(board, "ROLLBACK", NULL, NULL, NULL);
  sqlite3_close(board);
  board = open_board(path, vfs);
  expect(asked(board, "SELECT count(*) FROM t") == rows, "what the parent rolled back is not there");
  sqlite3_close(board);
}

/* A child opens the board that its parent has locked, and is refused: it shares none of its parent's locks. */
static void opened_in_a_child(const char *path) {
  sqlite3 *board = in_transaction(path, "kanban", WAL);
  pid_t child = fork();
  if (child == 0) {
    sqlite3 *own = open_board(path, "kanban");
    sqlite3_busy_timeout(own, 0);
    _exit(sqlite3_exec(own, "BEGIN IMMEDIATE", NULL, NULL, NULL));
  }
  expect(ended(child) == SQLITE_BUSY, "a child's own connection is excluded");
  execute(board, "COMMIT");
  expect(asked(board, "SELECT count(*) FROM t") == 1, "the parent commits");
  sqlite3_close(board);
}

/* Waits until the status of the board tells of that many waiters. */
static void until_waiting(sqlite3 *board, int n) {
  int waits;
  for (waits = 0; waits < 6000; waits++) {
    char said[8192] = "";
    sqlite3_stmt *status;
    sqlite3_prepare_v2(board, "PRAGMA kanban_status", -1, &status, NULL);
    if (sqlite3_step(status) == SQLITE_ROW) snprintf(said, sizeof said, "%s", (const char *)sqlite3_column_text(status, 0));
    sqlite3_finalize(status);
    char *found = strstr(said, "\"waiters\":");
    if (found && atoi(found + strlen("\"waiters\":")) == n) return;
    usleep(10000);
  }
  fail("queue", "a writer does not join it");
}

/*
** Writers come one by one while the board is locked. Its holder commits, and at once wants to write again. On this VFS the
** writers are served first, in the order in which they came. On the stock VFS they sleep, and the holder overtakes them.
*/
static void queue(const char *self, const char *path, const char *vfs) {
  enum { WRITERS = 8 };
  int is_ours = strcmp(vfs, "kanban") == 0, refused[2], output = dup(1), i, before;
  pid_t writers[WRITERS];
  sqlite3 *board = open_board(path, vfs);
  sqlite3_busy_timeout(board, 60000);
  execute(board, "PRAGMA journal_mode=wal; CREATE TABLE t (id INTEGER PRIMARY KEY, x); BEGIN IMMEDIATE");
  expect(output >= 0 && pipe(refused) == 0 && dup2(refused[1], 1) == 1, "make a pipe for what writers say");
  for (i = 0; i < WRITERS; i++) {
    char name[8], said;
    snprintf(name, sizeof name, "%d", i);
    writers[i] = start(self, "wait", extension, path, vfs, name, NULL);
    if (is_ours) until_waiting(board, i + 1);
    else expect(read(refused[0], &said, 1) == 1, "a writer is refused");
  }
  dup2(output, 1);
  /* On the stock VFS each of them now sleeps for 50 ms or more between two tries. On this one newcomers no longer overtake. */
  usleep(500000);
  execute(board, "COMMIT; BEGIN IMMEDIATE");
  before = asked(board, "SELECT count(*) FROM t");
  execute(board, "COMMIT");
  expect(is_ours ? before == WRITERS : before < WRITERS, "the holder overtakes waiters on the stock VFS only");
  for (i = 0; i < WRITERS; i++) expect(ended(writers[i]) == 0, "a writer writes");
  expect(asked(board, "SELECT count(*) FROM t") == WRITERS, "all writers have written");
  if (is_ours) expect(asked(board, "SELECT count(*) FROM t WHERE x = id - 1") == WRITERS, "the queue is in order");
  sqlite3_close(board);
}

/* What a checkpointer in this process does where it has read how long the WAL is, but not yet how much of it is copied. */
static void (*in_window)(void);
static sqlite3_vfs *unix_vfs, stopping_vfs;
static sqlite3_io_methods stopping_methods;
static int (*unix_vfs_unfetch)(sqlite3_file *, sqlite3_int64, void *);

static int stopping_unfetch(sqlite3_file *file, sqlite3_int64 at, void *page) {
  void (*act)(void) = in_window;
  in_window = NULL;
  if (act) act();
  return unix_vfs_unfetch(file, at, page);
}

/* The stock VFS, but for the one call that SQLite makes in that window. The base of ours, too. */
static int stopping_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags, int *out) {
  int rc = unix_vfs->xOpen(vfs, name, file, flags, out);
  if (rc == SQLITE_OK && flags & SQLITE_OPEN_MAIN_DB) {
    stopping_methods = *file->pMethods;
    unix_vfs_unfetch = stopping_methods.xUnfetch;
    stopping_methods.xUnfetch = stopping_unfetch;
    file->pMethods = &stopping_methods;
  }
  return rc;
}

static void register_stopping(void) {
  unix_vfs = sqlite3_vfs_find("unix");
  stopping_vfs = *unix_vfs;
  stopping_vfs.zName = "stopping";
  stopping_vfs.xOpen = stopping_open;
  expect(sqlite3_vfs_register(&stopping_vfs, 0) == SQLITE_OK, "register a VFS");
}

/* The writer of the scene, which is another process. */
static struct { const char *self, *path, *vfs; } writer;

#define WITHOUT_CHECKPOINTS "PRAGMA wal_autocheckpoint=0; PRAGMA synchronous=off;"

/* The writer commits these rows, each by itself, and puts their entries anywhere into the index. Returns the result code. */
static int write_rows(int first, int last, const char *then) {
  char sql[8192] = WITHOUT_CHECKPOINTS;
  for (; first <= last; first++)
    snprintf(sql + strlen(sql), sizeof sql - strlen(sql), "INSERT INTO t VALUES (%d, printf('%%0200d', %d));", first,
      first * 7919 % 1000);
  snprintf(sql + strlen(sql), sizeof sql - strlen(sql), "%s", then);
  return ended(start(writer.self, "execute", extension, writer.path, writer.vfs, sql, NULL));
}

static void overtake(void) { expect(write_rows(21, 26, "") == SQLITE_OK, "a writer overtakes a checkpoint"); }

/* Whether a client of the stock VFS finds all rows, and an index that fits them. */
static int is_whole(const char *path, int rows) {
  sqlite3 *board = open_board(path, "unix");
  int found = -1, sound = 0;
  sqlite3_exec(board, "SELECT count(*) FROM t NOT INDEXED", number, &found, NULL);
  sqlite3_exec(board, "SELECT count(*) = 1 AND max(integrity_check) = 'ok' FROM pragma_integrity_check", number, &sound, NULL);
  sqlite3_close(board);
  return found == rows && sound;
}

/*
** The WAL-reset bug of SQLite before 3.51.3, as vfs-tests/tests/promises/wal_reset.rs has it. Twenty transactions are copied.
** A checkpointer stops in the window; a writer in another process begins the WAL anew, and the checkpointer goes on.
*/
static void wal_reset(const char *self, const char *path, const char *checkpointer, const char *vfs) {
  int is_ours = strcmp(checkpointer, "kanban") == 0 || strcmp(vfs, "kanban") == 0, rows = 56;
  int is_damaged = !is_ours && sqlite3_libversion_number() < 3051003;
  sqlite3 *board = open_board(path, checkpointer);
  execute(board, WAL "; " WITHOUT_CHECKPOINTS "CREATE TABLE t (id INTEGER PRIMARY KEY, x); CREATE INDEX i ON t (x)");
  writer.self = self, writer.path = path, writer.vfs = vfs;
  expect(write_rows(1, 20, "PRAGMA wal_checkpoint") == SQLITE_OK, "a writer writes");
  in_window = overtake;
  execute(board, "PRAGMA wal_checkpoint");
  expect(in_window == NULL, "a checkpointer is overtaken");
  expect(write_rows(27, rows, "PRAGMA wal_checkpoint") == SQLITE_OK, "a writer goes on");
  /* A damaged board may refuse the next row. */
  if (write_rows(rows + 1, rows + 1, "PRAGMA wal_checkpoint") == SQLITE_OK) rows++;
  else expect(is_damaged, "a writer ends");
  sqlite3_close(board);
  expect(is_whole(path, rows) == !is_damaged, path);
}

int main(int argc, char **argv) {
  const char *self;
  if (argc == 3 && strcmp(argv[1], "try") == 0) {
    sqlite3 *board = open_board(argv[2], NULL);
    return sqlite3_exec(board, "BEGIN IMMEDIATE", NULL, NULL, NULL);
  }
  if (argc == 6) {
    char sql[100];
    extension = argv[2];
    load();
    sqlite3 *board = open_board(argv[3], argv[4]);
    if (strcmp(argv[1], "execute") == 0) return sqlite3_exec(board, argv[5], NULL, NULL, NULL);
    if (strcmp(argv[4], "unix") == 0) {
      /* Nobody else can see who waits on the stock VFS. */
      expect(sqlite3_exec(board, "BEGIN IMMEDIATE", NULL, NULL, NULL) == SQLITE_BUSY, "a writer is refused");
      expect(write(1, "r", 1) == 1, "say so");
    }
    sqlite3_busy_timeout(board, 60000);
    snprintf(sql, sizeof sql, "BEGIN IMMEDIATE; INSERT INTO t (x) VALUES (%s); COMMIT", argv[5]);
    execute(board, sql);
    return sqlite3_close(board);
  }
  if (argc == 4 && strcmp(argv[1], "wal_reset") == 0) {
    self = argv[3];
    extension = argv[2];
    register_stopping();
    setenv("KANBAN_BASE_VFS", "stopping", 1);
    load();
    /* The writers have the stock VFS as their base. */
    unsetenv("KANBAN_BASE_VFS");
    wal_reset(self, "reset-stock.db", "stopping", "unix");
    wal_reset(self, "reset.db", "kanban", "kanban");
    wal_reset(self, "reset-stock-writer.db", "kanban", "unix");
    wal_reset(self, "reset-stock-checkpointer.db", "stopping", "kanban");
    return 0;
  }
  if (argc != 3) return 2;
  self = argv[2];
  extension = argv[1];
  load();
  lock_cancellation(self, "cancelled-stock.db", "unix", SQLITE_OK);
  lock_cancellation(self, "cancelled.db", "kanban", SQLITE_BUSY);
  inherited("inherited-stock.db", "unix", 1);
  inherited("inherited.db", "kanban", 0);
  opened_in_a_child("child.db");
  queue(self, "queue-stock.db", "unix");
  queue(self, "queue.db", "kanban");
  /* In a process of its own, since there this VFS is to have another base. */
  expect(ended(start(self, "wal_reset", extension, self, NULL)) == 0, "WAL reset");
  printf("SQLite %s: lock cancellation, fork, queue, WAL reset\n", sqlite3_libversion());
  return 0;
}
