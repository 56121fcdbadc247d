/*
** kanban-vfs: a SQLite VFS named "kanban". Every client that names it in its connection string,
** "file:board.db?vfs=kanban", gets one fair, bounded, crash-safe write lock per database across
** all processes.
**
** The library libkanban_vfs neither contains nor needs an SQLite: it calls the one that it is
** registered with, any version from 3.31.0 on. There are two ways to register it, once in each
** process, before the first board is opened.
**
** 1. Load it. Nothing is linked; this header is not needed.
**
**      sqlite3_db_config(db, SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 1, NULL);
**      rc = sqlite3_load_extension(db, "libkanban_vfs", NULL, &message);
**
**    Any connection will do, for instance one to ":memory:". The VFS stays when it is closed.
**    https://www.sqlite.org/c3ref/load_extension.html
**
** 2. Link it (-lkanban_vfs) and call kanban_vfs_register(). For applications that may not load
**    extensions, or whose SQLite was built without them.
**
** Either way, the environment variables of docs/configuration.md set its defaults. Never unload the
** library: do not dlclose(3) it.
*/
#ifndef KANBAN_VFS_H
#define KANBAN_VFS_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
** Registers the VFS "kanban" with the SQLite whose functions dlsym(3) finds through `library`:
** what dlopen(3) gave for that SQLite or for a library that is linked with it, or RTLD_DEFAULT for
** the one this program is linked with. If `make_default` is not 0, it becomes the default VFS:
** connections that name no VFS get it.
**
** Returns SQLITE_OK, and an empty `message`. Registering it again is harmless.
**
** Otherwise it writes the reason into `message`, an array of `size` bytes (cut if it must be,
** always terminated; may be NULL), and returns one of the codes below. After a panic, a fault of
** the library's own, `message` is empty and standard error has the reason.
**   - SQLITE_NOTFOUND: dlsym(3) does not find a function of SQLite. An SQLite that is linked
**     statically with its symbols hidden can only load the extension;
**   - SQLITE_ERROR: the SQLite is older than 3.31.0; an environment variable is malformed; the base
**     VFS does not exist, or another VFS is named "kanban"; a panic.
**
** May be called by any thread. The SQLite must never be unloaded afterwards.
*/
int kanban_vfs_register(void *library, int make_default, char *message, size_t size);

/*
** Copies the last line that the VFS has logged on this thread into `line`, an array of `size` bytes
** (cut if it must be, always terminated; may be NULL). After a failed open it says why, where
** SQLite says only "unable to open database file". It begins with the time, in UTC:
** 2026-11-30T02:46:47.123456Z. The same line is in SQLite's error log, and where KANBAN_LOG says.
**
** Returns the length of the whole line in bytes; 0 if there is none on this thread.
*/
size_t kanban_vfs_last_line(char *line, size_t size);

/*
** The entry points of the extension, https://www.sqlite.org/loadext.html, for
** sqlite3_load_extension() to call:
**
**   sqlite3_kanbanvfs_init           the one SQLite derives from the name of the file
**   sqlite3_kanbanvfs_default_init   as that, and makes "kanban" the default VFS
**
** They return SQLITE_OK_LOAD_PERMANENTLY, which sqlite3_auto_extension() would take for an error:
** a program that links the library calls kanban_vfs_register() instead.
*/
struct sqlite3;
struct sqlite3_api_routines;
int sqlite3_kanbanvfs_init(
    struct sqlite3 *db, char **message, const struct sqlite3_api_routines *api);
int sqlite3_kanbanvfs_default_init(
    struct sqlite3 *db, char **message, const struct sqlite3_api_routines *api);

#ifdef __cplusplus
}
#endif
#endif
