/* A service whose worker threads are ended from outside, by whatever means C has: see tests/promises/ended_threads.rs.
 *
 *     ended SQLITE EXTENSION|- DIRECTORY VFS MODE MEANS MOMENT
 *
 * A worker thread does what MOMENT names on a board of journal mode MODE, and is ended by MEANS. Then the process says
 * what has become of the thread, and what another connection can do. A test that hangs is ended by SIGALRM. */
#include <dlfcn.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static int (*open_v2)(const char *, sqlite3 **, int, const char *);
static int (*close_v2)(sqlite3 *);
static int (*exec)(sqlite3 *, const char *, int (*)(void *, int, char **, char **), void *, char **);
static int (*busy_timeout)(sqlite3 *, int);
static int (*db_config)(sqlite3 *, int, ...);
static int (*load)(sqlite3 *, const char *, const char *, char **);

static char board[4096];
static const char *vfs, *means, *moment;
static sqlite3 *holder, *workers;
static sigjmp_buf back;
static pthread_t worker;
static volatile int tid, came_back, state_then = -1;

static void needs(int is_met, const char *what) {
    if (!is_met) { printf("no %s\n", what); fflush(stdout); _exit(3); }
}

static sqlite3 *opened(const char *path, const char *by, int ms) {
    sqlite3 *db = NULL;
    needs(open_v2(path, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, by) == SQLITE_OK, path);
    busy_timeout(db, ms);
    return db;
}

/* What a signal does to the worker in the middle of whatever it does. */
static void on_signal(int number) {
    (void)number;
    if (!strcmp(means, "exit")) exit(0);
    if (!strcmp(means, "longjmp")) siglongjmp(back, 1);
}

/* At exit a program closes what it has open. */
static void at_exit(void) {
    if (workers) close_v2(workers);
    if (holder) close_v2(holder);
    printf("exits");
    fflush(stdout);
}

static void *work(void *none) {
    if (!strcmp(moment, "waits")) {
        workers = opened(board, vfs, 60000);
        exec(workers, "SELECT * FROM t", NULL, NULL, NULL);
        tid = (int)syscall(SYS_gettid);
        if (!strcmp(means, "longjmp") && sigsetjmp(back, 1)) {
            int state;
            pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
            came_back = 1, state_then = state;
            return none;
        }
        exec(workers, "BEGIN IMMEDIATE", NULL, NULL, NULL);
        return none;
    }
    /* The request has come already, and waits for the next cancellation point. */
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
    if (strcmp(moment, "opens")) {
        workers = opened(board, vfs, 0);
        exec(workers, "BEGIN IMMEDIATE; INSERT INTO t VALUES (zeroblob(20000))", NULL, NULL, NULL);
    }
    pthread_cancel(pthread_self());
    pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, NULL);
    if (!strcmp(moment, "opens")) {
        workers = opened(board, vfs, 0);
        exec(workers, "INSERT INTO t VALUES (1)", NULL, NULL, NULL);
    } else if (!strcmp(moment, "commits")) {
        exec(workers, "COMMIT", NULL, NULL, NULL);
    } else {
        close_v2(workers);
    }
    return none;
}

/* Whether the worker sleeps, as proc(5) tells. */
static int sleeps(void) {
    char path[64], line[512], *state;
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", tid);
    FILE *stat = fopen(path, "r");
    if (!stat) return 0;
    state = fgets(line, sizeof line, stat) ? strrchr(line, ')') : NULL;
    fclose(stat);
    return state && state[2] == 'S';
}

int main(int argc, char **argv) {
    needs(argc == 8, "arguments");
    alarm(60);
    void *sqlite = dlopen(argv[1], RTLD_NOW | RTLD_GLOBAL);
    needs(sqlite != NULL, "SQLite");
    *(void **)&open_v2 = dlsym(sqlite, "sqlite3_open_v2");
    *(void **)&close_v2 = dlsym(sqlite, "sqlite3_close_v2");
    *(void **)&exec = dlsym(sqlite, "sqlite3_exec");
    *(void **)&busy_timeout = dlsym(sqlite, "sqlite3_busy_timeout");
    *(void **)&db_config = dlsym(sqlite, "sqlite3_db_config");
    *(void **)&load = dlsym(sqlite, "sqlite3_load_extension");
    if (strcmp(argv[2], "-")) {
        sqlite3 *loader = opened(":memory:", NULL, 0);
        db_config(loader, SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 1, NULL);
        needs(load(loader, argv[2], NULL, NULL) == SQLITE_OK, "extension");
        close_v2(loader);
    }
    vfs = argv[4], means = argv[6], moment = argv[7];
    snprintf(board, sizeof board, "%s/board.db", argv[3]);
    char sql[128];
    snprintf(sql, sizeof sql, "PRAGMA journal_mode=%s; CREATE TABLE t (x)", argv[5]);
    sqlite3 *maker = opened(board, vfs, 0);
    needs(exec(maker, sql, NULL, NULL, NULL) == SQLITE_OK, "board");
    close_v2(maker);
    signal(SIGUSR1, on_signal);
    if (!strcmp(means, "exit")) atexit(at_exit);

    int waits = !strcmp(moment, "waits");
    if (waits) {
        holder = opened(board, vfs, 0);
        needs(exec(holder, "BEGIN IMMEDIATE", NULL, NULL, NULL) == SQLITE_OK, "lock");
    }
    needs(!pthread_create(&worker, NULL, work, NULL), "thread");
    if (waits) {
        for (int n = 0; n < 50; n += sleeps()) usleep(1000);
        if (!strcmp(means, "pthread_cancel")) pthread_cancel(worker);
        else pthread_kill(worker, SIGUSR1);
    }
    void *result = NULL;
    pthread_join(worker, &result);
    printf("the thread %s", result == PTHREAD_CANCELED ? "was ended" : came_back ? "came back" : "ended by itself");
    if (came_back) printf(", %s be cancelled", state_then == PTHREAD_CANCEL_ENABLE ? "can" : "cannot");
    if (waits) {
        /* It had no lock, and its wait must not stand in the way of others. */
        exec(holder, "COMMIT", NULL, NULL, NULL);
        sqlite3 *other = opened(board, vfs, 30000);
        int rc = exec(other, "BEGIN IMMEDIATE; INSERT INTO t VALUES (2); COMMIT", NULL, NULL, NULL);
        printf(", others write: %d", rc);
    }
    /* Another database can be used in any case. */
    snprintf(board, sizeof board, "%s/other.db", argv[3]);
    sqlite3 *other = opened(board, vfs, 0);
    printf(", elsewhere: %d", exec(other, "CREATE TABLE t (x); INSERT INTO t VALUES (1)", NULL, NULL, NULL));
    fflush(stdout);
    _exit(0);
}
