/* A program that nobody changed, and that is linked with SQLite: is its database opened through the VFS? */
#include <sqlite3.h>
#include <stdio.h>

static int row(void *rows, int n, char **values, char **names) {
  (void)n, (void)values, (void)names;
  ++*(int *)rows;
  return 0;
}

int main(void) {
  sqlite3 *board;
  int rows = 0;
  if (sqlite3_open("unchanged.db", &board) != SQLITE_OK) return 2;
  if (sqlite3_exec(board, "DROP TABLE IF EXISTS t; CREATE TABLE t (x); PRAGMA kanban_status", row, &rows, NULL) != SQLITE_OK) return 3;
  printf("%s\n", rows == 1 ? "through the VFS" : "past the VFS");
  return 0;
}
