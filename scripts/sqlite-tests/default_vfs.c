/*
** Makes the VFS of a loadable extension the default one of a test program, which knows nothing of it.
**
** scripts/sqlite-tests.sh appends this to sqlite3.c, where the table of its interface is in reach, and
** builds with -DSQLITE_EXTRA_INIT=default_vfs_init, so that each sqlite3_initialize() calls it.
** $DEFAULT_VFS_EXTENSION is the path of the extension; without it nothing happens.
*/
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void default_vfs_fail(const char *zWhat, const char *zWhy){
  fprintf(stderr, "default_vfs: %s: %s\n", zWhat, zWhy ? zWhy : "");
  _exit(97);
}

int default_vfs_init(const char *zNotUsed){
  static int bLoaded = 0;
  static int bLoading = 0;
  const char *zExtension = getenv("DEFAULT_VFS_EXTENSION");
  sqlite3_vfs *pVfs;
  (void)zNotUsed;
  if( zExtension==0 || zExtension[0]==0 || bLoading ) return SQLITE_OK;
  if( !bLoaded ){
    int (*xInit)(sqlite3*, char**, const sqlite3_api_routines*) = 0;
    char *zErr = 0;
    sqlite3 *db = 0;
    int rc;
    void *pLibrary = dlopen(zExtension, RTLD_NOW|RTLD_GLOBAL);
    if( pLibrary==0 ) default_vfs_fail("dlopen", dlerror());
    *(void**)&xInit = dlsym(pLibrary, "sqlite3_kanbanvfs_init");
    if( xInit==0 ) default_vfs_fail("no entry point", zExtension);
    bLoading = 1;
    rc = sqlite3_open_v2(":memory:", &db, SQLITE_OPEN_READWRITE|SQLITE_OPEN_CREATE, "unix");
    if( rc==SQLITE_OK ) rc = xInit(db, &zErr, &sqlite3Apis);
    if( rc!=SQLITE_OK && rc!=SQLITE_OK_LOAD_PERMANENTLY ) default_vfs_fail("entry point", zErr);
    sqlite3_close(db);
    bLoading = 0;
    bLoaded = 1;
    /* The test programs seed the generator. The connection above has drawn from it. */
    sqlite3_randomness(0, 0);
  }
  /* sqlite3_shutdown() forgets which VFS is the default one. */
  pVfs = sqlite3_vfs_find("kanban");
  if( pVfs==0 ) default_vfs_fail("not registered", "kanban");
  sqlite3_vfs_register(pVfs, 1);
  return SQLITE_OK;
}
