/*
** Promises of the VFS as a client in C sees them, for a C library that no other test has: lock cancellation, fork, and the
** queue's order. A scene that the stock VFS gets wrong runs there, too, and shows the damage.
**
** Run in an empty directory: ./promises EXTENSION PROGRAM, where PROGRAM starts this program anew.
*/
#include <fcntl.h>
#include <sqlite3.h>
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

/* The result code of another program that tries to write to the board at once, on the stock VFS. */
static int try_to_write(const char *self, const char *path) {
  pid_t child = fork();
  if (child == 0) {
    execl(self, self, "try", path, (char *)NULL);
    _exit(99);
  }
  return ended(child);
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

/* Writers come one by one while another has the lock, and are served in that order. */
static void queue(const char *self, const char *path) {
  enum { WRITERS = 8 };
  pid_t writers[WRITERS];
  sqlite3 *board = open_board(path, "kanban");
  int i, waits;
  execute(board, "PRAGMA journal_mode=wal; CREATE TABLE t (id INTEGER PRIMARY KEY, x); BEGIN IMMEDIATE");
  for (i = 0; i < WRITERS; i++) {
    char name[8];
    snprintf(name, sizeof name, "%d", i);
    if ((writers[i] = fork()) == 0) {
      execl(self, self, "write", extension, path, name, (char *)NULL);
      _exit(99);
    }
    for (waits = 0;; waits++) {
      char said[8192] = "";
      sqlite3_stmt *status;
      expect(waits < 6000, "a writer joins the queue");
      sqlite3_prepare_v2(board, "PRAGMA kanban_status", -1, &status, NULL);
      if (sqlite3_step(status) == SQLITE_ROW) snprintf(said, sizeof said, "%s", (const char *)sqlite3_column_text(status, 0));
      sqlite3_finalize(status);
      char *found = strstr(said, "\"waiters\":");
      if (found && atoi(found + strlen("\"waiters\":")) == i + 1) break;
      usleep(10000);
    }
  }
  execute(board, "COMMIT");
  for (i = 0; i < WRITERS; i++) expect(ended(writers[i]) == 0, "a writer writes");
  expect(asked(board, "SELECT count(*) FROM t") == WRITERS, "all writers have written");
  expect(asked(board, "SELECT count(*) FROM t WHERE x = id - 1") == WRITERS, "the queue is in order");
  sqlite3_close(board);
}

int main(int argc, char **argv) {
  if (argc == 3 && strcmp(argv[1], "try") == 0) {
    sqlite3 *board = open_board(argv[2], NULL);
    return sqlite3_exec(board, "BEGIN IMMEDIATE", NULL, NULL, NULL);
  }
  if (argc == 5 && strcmp(argv[1], "write") == 0) {
    char sql[100];
    extension = argv[2];
    load();
    sqlite3 *board = open_board(argv[3], "kanban");
    sqlite3_busy_timeout(board, 60000);
    snprintf(sql, sizeof sql, "BEGIN IMMEDIATE; INSERT INTO t (x) VALUES (%s); COMMIT", argv[4]);
    execute(board, sql);
    return sqlite3_close(board);
  }
  if (argc != 3) return 2;
  const char *self = argv[2];
  extension = argv[1];
  load();
  lock_cancellation(self, "cancelled-stock.db", "unix", SQLITE_OK);
  lock_cancellation(self, "cancelled.db", "kanban", SQLITE_BUSY);
  inherited("inherited-stock.db", "unix", 1);
  inherited("inherited.db", "kanban", 0);
  opened_in_a_child("child.db");
  queue(self, "queue.db");
  printf("lock cancellation, fork, queue\n");
  return 0;
}
