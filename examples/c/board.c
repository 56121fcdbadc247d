/*
** Writes tasks to a board, each in a transaction of its own, beside other writers.
**
** Loads the extension:
**   cc board.c -lsqlite3 -o board
** Or links it:
**   cc -DKANBAN_VFS_LINKED -I../../include board.c -lsqlite3 -L../../target/release -lkanban_vfs \
**      -Wl,-rpath,$PWD/../../target/release -o board
**
** Run: ./board board.db WHO TASKS ../../target/release/libkanban_vfs
*/
#define _GNU_SOURCE /* RTLD_DEFAULT */
#include <dlfcn.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>

#ifdef KANBAN_VFS_LINKED
#include <kanban_vfs.h>

static void register_kanban(const char *extension) {
  char why[200];
  (void)extension;
  if (kanban_vfs_register(RTLD_DEFAULT, 0, why, sizeof why) != SQLITE_OK) {
    fprintf(stderr, "%s\n", why);
    exit(1);
  }
}
#else
static void register_kanban(const char *extension) {
  sqlite3 *loader;
  char *why = NULL;
  int rc = sqlite3_open(":memory:", &loader);
  if (rc == SQLITE_OK) rc = sqlite3_db_config(loader, SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 1, NULL);
  if (rc == SQLITE_OK) rc = sqlite3_load_extension(loader, extension, NULL, &why);
  if (rc != SQLITE_OK) {
    fprintf(stderr, "%s\n", why ? why : sqlite3_errmsg(loader));
    exit(1);
  }
  sqlite3_close(loader);
}
#endif

static void execute(sqlite3 *board, const char *sql) {
  if (sqlite3_exec(board, sql, NULL, NULL, NULL) != SQLITE_OK) {
    fprintf(stderr, "%s: %s\n", sql, sqlite3_errmsg(board));
    exit(1);
  }
}

int main(int argc, char **argv) {
  sqlite3 *board;
  sqlite3_stmt *insert;
  int n;

  if (argc != 5) {
    fprintf(stderr, "usage: %s FILE WHO TASKS EXTENSION\n", argv[0]);
    return 2;
  }
  register_kanban(argv[4]);

  /* The fourth argument names the VFS, so the file's name need not be a URI. */
  int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE;
  if (sqlite3_open_v2(argv[1], &board, flags, "kanban") != SQLITE_OK) {
    fprintf(stderr, "%s: %s\n", argv[1], sqlite3_errmsg(board));
    return 1;
  }
  execute(board, "PRAGMA journal_mode=wal");
  execute(board, "CREATE TABLE IF NOT EXISTS tasks (id INTEGER PRIMARY KEY, who TEXT, n INTEGER)");
  if (sqlite3_prepare_v2(board, "INSERT INTO tasks (who, n) VALUES (?, ?)", -1, &insert, NULL)
      != SQLITE_OK) {
    fprintf(stderr, "%s\n", sqlite3_errmsg(board));
    return 1;
  }
  sqlite3_bind_text(insert, 1, argv[2], -1, SQLITE_STATIC);
  for (n = 0; n < atoi(argv[3]); n++) {
    sqlite3_bind_int(insert, 2, n);
    if (sqlite3_step(insert) != SQLITE_DONE) {
      fprintf(stderr, "task %d: %s\n", n, sqlite3_errmsg(board));
      return 1;
    }
    sqlite3_reset(insert);
  }
  sqlite3_finalize(insert);
  return sqlite3_close(board) == SQLITE_OK ? 0 : 1;
}
