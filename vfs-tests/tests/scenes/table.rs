//! The scenes. [`super::scene::Scene::steps`] says how they are written, `client.py` what the processes can do.

use super::scene::Scene;

const fn scene(name: &'static str, steps: &'static str) -> Scene {
    Scene { name, steps }
}

/// Users, of whom 2001 and 2002 are in the group 3000.
pub(crate) const PEOPLE: &[Scene] = &[
    scene(
        "two users of a group write one board in turn",
        "$ chgrp 3000 . board.db; chmod 2775 .; chmod 664 board.db | a: become(2001, 0o002) | b: become(2002, 0o002) \
         | a: once() | b: once() | a: write() | b: write() | a: close() | b: write() | a: once()",
    ),
    scene(
        "each user's umask lets nobody else in",
        "$ chgrp 3000 . board.db; chmod 2775 .; chmod 664 board.db | a: become(2001, 0o077) | b: become(2002, 0o077) \
         | a: once() | b: once() | a: write() | b: write() | a: close() | b: once()",
    ),
    scene(
        "root migrates the board of a user, who goes on",
        "$ chown 2001:2001 . board.db | root: once() | a: become(2001) | a: once() | root: write() | a: once()",
    ),
    scene(
        "root has the board open with an umask of 077, and a user writes",
        "$ chown 2001:2001 . board.db | root: os.umask(0o077) | root: write() | a: become(2001) | a: once() \
         | root: write() | root: close() | a: once()",
    ),
    scene(
        "the idle board gets another owner",
        "root: once() | $ chown 2002:2002 . board.db | b: become(2002) | b: once() | b: write() | b: once()",
    ),
    scene(
        "a board that is open gets another owner",
        "$ chown 2001:2001 . board.db | a: become(2001) | a: write() | $ chown 2002:2002 board.db* \
         | b: become(2002) | b: delete! once() | a: write() | b: delete! once()",
    ),
    scene(
        "the board gets another group and mode between two writes",
        "a: write() | $ chgrp 3000 board.db*; chmod 660 board.db* | a: write() | b: become(2002) | b: count()",
    ),
    scene(
        "a user who may read the board, and not its directory's files, reads beside a writer",
        "root: write() | $ chmod 644 board.db | a: become(2001) | a: count() | root: write() | a: count() | a: close()",
    ),
    scene(
        "a user who may only read is there alone",
        "$ chmod 644 board.db | a: become(2001) | a: wal! count() | a: !write() | a: close() | root: once()",
    ),
    scene(
        "a user who may write the database, and not the directory",
        "$ chmod 666 board.db | a: become(2001) | a: wal! count() | a: !write() | a: wal! count()",
    ),
    scene(
        "a user who may write the database, and not the directory, beside root",
        "$ chmod 666 board.db | root: write() | a: become(2001) | a: count() | a: delete! write() | root: write() | a: count()",
    ),
    scene(
        "the board becomes read-only while it is open",
        "$ chown 2001:2001 . board.db | a: become(2001) | a: write() | $ chmod 444 board.db | a: write() | b: become(2001) \
         | b: count() | b: !once() | $ chmod 644 board.db | b: once() | a: write()",
    ),
    scene(
        "the directory becomes read-only while the board is open",
        "$ chown 2001:2001 . board.db | a: become(2001) | a: write() | $ chmod 555 . | a: delete! write() | b: become(2001) | b: count() \
         | $ chmod 755 . | b: once()",
    ),
    scene(
        "a directory that may be passed, and not read",
        "$ chown 2001:2001 board.db; chmod 777 . ; chmod 733 . | a: become(2001) | a: once() | b: become(2001) | b: write() \
         | a: once() | b: close()",
    ),
    scene(
        "root gives up its rights with the board open",
        "$ chown 2001:2001 . | a: write() | a: become(2001) | a: write() | a: close() | root: once()",
    ),
    scene(
        "a sticky directory, as /tmp is",
        "$ chmod 1777 .; chown 2001:2001 board.db; chmod 666 board.db | a: become(2001) | b: become(2002) | a: write() \
         | b: write() | a: close() | b: write() | b: close() | a: once() | b: once()",
    ),
    scene(
        "somebody else's file lies in the sidecar's place",
        "$ chmod 777 .; chmod 666 board.db; echo mine > board.db-lock; chmod 600 board.db-lock | a: become(2001) \
         | a: write() | b: become(2002) | b: write() | a: close() | b: once() | $ grep -q mine board.db-lock; rm board.db-lock",
    ),
    scene(
        "the process is in a root of its own, after it has opened the board",
        "a: write() | a: os.chroot('.') | a: delete! write() | a: count() | b: once() | a: delete! write() | a: close() | b: once()",
    ),
    scene(
        "the process opens the board in a root of its own",
        "a: os.chroot('.'); os.chdir('/') | a: connect('c', '/board.db') | a: write() | b: write() | a: write() | b: close()",
    ),
];

/// What a program does with its descriptors.
pub(crate) const DESCRIPTORS: &[Scene] = &[
    scene(
        "standard output is closed, then the board is opened, then somebody prints",
        "a: os.closerange(0, 3) | a: write() | a: ![os.write(fd, b'x' * 200) for fd in (1, 2)] | a: write() | a: count()",
    ),
    scene(
        "the error stream is closed while the board is open",
        "a: write() | a: os.close(2) | a: write() | a: !os.write(2, b'x' * 200) | a: once() | a: count()",
    ),
    scene(
        "a daemon exchanges its standard streams while the board is open",
        "a: os.closerange(0, 3) | a: write() | a: [os.dup2(os.open('/dev/null', 2), fd) for fd in (0, 1, 2)] and None \
         | b: once() | a: write() | b: once() | a: count()",
    ),
    scene(
        "a program closes all it does not know, and opens another board under the same numbers",
        "a: make('other.db') | a: write() | a: leaked = connections.pop('c'); os.closerange(3, 800) \
         | a: connect('o', 'other.db') | a: write('o') | b: connect('c', 'other.db') | a: sql('BEGIN IMMEDIATE', 'o') \
         | b: !write() | a: sql('COMMIT', 'o') | b: write() | b: count() \
         | b: once('board.db')",
    ),
    scene(
        "a program looks at its own database between two writes of a transaction",
        "a: sql('BEGIN IMMEDIATE') | a: write() | a: open(BOARD, 'rb').read(16) and None | a: write() | a: sql('COMMIT') \
         | b: once()",
    ),
    scene(
        "few descriptors are left when the board is opened",
        "a: only(5) | a: write() | a: count() | a: close() | b: once()",
    ),
    scene(
        "there are just descriptors enough for a first connection of the stock VFS",
        "a: only(3) | a: write() | a: count() | b: once() | a: write() | a: close() | b: once()",
    ),
    scene(
        "there are descriptors enough for a first connection of the stock VFS, and one more",
        "a: only(4) | a: write() | a: count() | b: once() | a: write() | a: close() | b: once()",
    ),
    scene(
        "there are two descriptors when the board is opened",
        "a: only(2) | a: wal! write() | a: wal! count() | b: once() | a: wal! write()",
    ),
    scene(
        "there are just descriptors enough for a second connection of the stock VFS",
        "a: write() | a: only(2) | a: write('d') | a: count('d') | b: once() | a: write() | a: close('d') | a: write()",
    ),
    scene(
        "there is one descriptor too few for a second connection",
        "a: write() | a: only(1) | a: !write('d') | a: close('d') | a: write() | a: count() | b: once() | a: resource.setrlimit(resource.RLIMIT_NOFILE, resource.getrlimit(resource.RLIMIT_NOFILE)[1:] * 2) | a: write('d') | a: write()",
    ),
    scene(
        "all descriptors are used up while the board is open",
        "a: write() | a: only(0) | a: delete! write() | a: count() | b: once() | a: delete! write() | a: resource.setrlimit(resource.RLIMIT_NOFILE, resource.getrlimit(resource.RLIMIT_NOFILE)[1:] * 2) | a: write() | a: count()",
    ),
    scene(
        "twenty connections of a process to one board, of which all but one close",
        "a: [write(str(n)) for n in range(20)] and None | a: [close(str(n)) for n in range(1, 20)] and None | a: write('0') \
         | b: once() | a: count('0')",
    ),
    scene("an empty environment", "a% env -i | a: write() | b: once() | a: count()"),
];

/// Children, of every sort.
pub(crate) const FORKS: &[Scene] = &[
    scene(
        "a child opens the board itself, beside its parent",
        "a: write() | a: child('once()') | a: write() | a: child('once()') | b: once() | a: count()",
    ),
    scene(
        "a child opens the board itself while its parent has a transaction",
        "a: sql('BEGIN IMMEDIATE') | a: write() | a: child('once()') | a: sql('COMMIT') | a: child('once()') | a: count()",
    ),
    scene(
        "a child writes, and its parent waits for nothing",
        "a: write() | a: child('sql(\"BEGIN IMMEDIATE\", \"own\"); write(\"own\"); sql(\"COMMIT\", \"own\")') | a: write() | b: once()",
    ),
    scene(
        "a child ends without a word, and its parent goes on",
        "a: write() | a: child('None') | a: write() | b: once() | a: count()",
    ),
    scene(
        "a child lives on while its parent closes, and others write",
        "a: write() | a: pid = child('time.sleep(60)', wait=False) | a: write() | a: close() | b: once() | a: once() \
         | a: os.kill(pid, 9) | a: os.waitpid(pid, 0) and None | b: once()",
    ),
    scene(
        "a child lives on when its parent is killed in a transaction",
        "a: write() | a: pid = child('time.sleep(3)', wait=False) | a: sql('BEGIN IMMEDIATE') | a: write() | a! KILL \
         | b: once() | b: write() | b: count()",
    ),
    scene(
        "a child's child opens the board",
        "a: write() | a: child('child(\"once()\")') | a: write() | a: count()",
    ),
    scene(
        "a program is run while the board is open",
        "a: write() | a: subprocess.run(['true']).returncode | a: sql('BEGIN IMMEDIATE') | a: write() \
         | a: subprocess.run(['true'], close_fds=False).returncode | a: sql('COMMIT') | b: once()",
    ),
    scene(
        "a program that was run keeps running when its parent is killed in a transaction",
        "a: write() | a: sql('BEGIN IMMEDIATE') | a: write() | a: p = subprocess.Popen(['sleep', '5'], close_fds=False) | a! KILL \
         | b: once() | b: count()",
    ),
    scene(
        "nothing was opened through any VFS before the fork",
        "a: child('once()') | a: child('once()') | a: once()",
    ),
    scene(
        "a plain connection beside is used in the child",
        "a: plain = sqlite3.connect('plain.db', isolation_level=None) | a: plain.execute('CREATE TABLE p (x)') and None | a: write() \
         | a: child('len(plain.execute(\"INSERT INTO p VALUES (1)\").fetchall())') | a: plain.execute('SELECT count(*) FROM p').fetchall() \
         | a: plain.close()",
    ),
];

/// Clocks that stand still, run ahead, or are those of another machine.
pub(crate) const CLOCKS: &[Scene] = &[
    scene(
        "a clock that stands still: a busy timeout ends",
        "a% faketime -f 2026-01-01~00:00:00 | b: sql('BEGIN IMMEDIATE') | a: waits(300) | a: !write() | b: sql('COMMIT') | a: write()",
    ),
    scene(
        "a clock that runs a hundred times as fast: the one who waits is served",
        "a% faketime -f +0x100 | b: sql('BEGIN IMMEDIATE') | a: waits(60000) | a& write() | b: time.sleep(.3) | b: sql('COMMIT') | a= \
         | a: count()",
    ),
    scene(
        "a clock ten seconds behind takes turns with one that is right",
        "a% faketime -f -10s | a: waits(20000) | b: waits(20000) | a& [write() for n in range(50)] and None \
         | b: [write() for n in range(50)] and None | a= | a: count()",
    ),
    scene(
        "a clock ten seconds ahead takes turns with one that is right",
        "a% faketime -f +10s | a: waits(20000) | b: waits(20000) | a& [write() for n in range(50)] and None \
         | b: [write() for n in range(50)] and None | a= | a: count()",
    ),
    scene(
        "a clock of last year waits for one that is right",
        "a% faketime -f -1y | b: sql('BEGIN IMMEDIATE') | a: waits(20000) | a& write() | b: time.sleep(.2) | b: sql('COMMIT') | a= | b: once()",
    ),
];

/// Signals, and processes that are stopped or killed.
pub(crate) const SIGNALS: &[Scene] = &[
    scene(
        "a writer is stopped in its transaction, and goes on later",
        "a: sql('BEGIN IMMEDIATE') | a: write() | a! STOP | b: count() | b: !once() | a! CONT | a: sql('COMMIT') | b: once()",
    ),
    scene(
        "a writer is stopped between two transactions, and others write",
        "a: write() | a! STOP | b: once() | b: [write() for n in range(30)] and None | a! CONT | a: write() | a: count()",
    ),
    scene(
        "one who waits is stopped, and others write",
        "b: sql('BEGIN IMMEDIATE') | a: waits(30000) | a& write() | b: time.sleep(.2) | a! STOP | b: sql('COMMIT') | b: waits(20000) \
         | b: [write() for n in range(30)] and None | c: once() | a! CONT | a= | a: count()",
    ),
    scene(
        "one who waits is killed, and others write",
        "b: sql('BEGIN IMMEDIATE') | a: waits(30000) | a& write() | b: time.sleep(.2) | a! KILL | b: sql('COMMIT') \
         | b: [write() for n in range(30)] and None | c: once()",
    ),
    scene(
        "a writer is killed in its transaction",
        "a: sql('BEGIN IMMEDIATE') | a: [write() for n in range(100)] and None | a! KILL | b: count() | b: once() | c: write() | b: write()",
    ),
    scene(
        "the only client is killed, and the next opens",
        "a: write() | a! KILL | b: count() | b: once()",
    ),
    scene(
        "a reader is killed while a writer goes on",
        "a: sql('BEGIN') | a: count() | b: delete! write() | a! KILL | b: write() | b: sql('PRAGMA wal_checkpoint(TRUNCATE)') and None | b: once()",
    ),
    scene(
        "a timer's signals come while a client waits",
        "b: sql('BEGIN IMMEDIATE') | a: signal.signal(signal.SIGALRM, lambda *_: None) and None \
         | a: signal.setitimer(signal.ITIMER_REAL, .01, .01) and None | a: waits(300) | a: !write() | a: waits(20000) | a& write() \
         | b: time.sleep(.2) | b: sql('COMMIT') | a= | a: signal.setitimer(signal.ITIMER_REAL, 0) and None | a: count()",
    ),
    scene(
        "another thread interrupts one that waits",
        "b: sql('BEGIN IMMEDIATE') | a: waits(3000) | a: threading.Timer(.2, lambda: connections['c'].interrupt()).start() | a: !write() \
         | b: sql('COMMIT') | a: write()",
    ),
    scene(
        "a program leaves by exit while another of its threads waits",
        "b: sql('BEGIN IMMEDIATE') | a: waits(60000) | a: threading.Thread(target=write, daemon=True).start() | a: time.sleep(.1) \
         | c: count() | a: !sys.exit() | c: count() | b: sql('COMMIT') | b: waits(20000) | b: write() | c: once()",
    ),
];

/// Disks that are full, small, read-only or mounted in odd ways.
pub(crate) const DISKS: &[Scene] = &[
    scene(
        "the disk is full",
        "$ mkdir disk; mount -t tmpfs -o size=256k none disk | a: make('disk/board.db') \
         | $ dd if=/dev/zero of=disk/rest bs=4096 2>/dev/null || true | a: connect('c', 'disk/board.db') | a: wal! count() | a: !write() \
         | $ rm disk/rest | a: write() | b: once('disk/board.db') | a: write()",
    ),
    scene(
        "the disk is full, and the board is open",
        "$ mkdir disk; mount -t tmpfs -o size=1m none disk | a: make('disk/board.db') | a: connect('c', 'disk/board.db') \
         | b: connect('c', 'disk/board.db') | a: sql('PRAGMA wal_autocheckpoint=0') | a: write() | b: write() \
         | $ dd if=/dev/zero of=disk/rest bs=4096 2>/dev/null || true | a: !sql('INSERT INTO t VALUES (zeroblob(100000))') | a: count() | b: count() \
         | b: sql('PRAGMA wal_checkpoint(FULL)') | a: sql('PRAGMA wal_checkpoint(TRUNCATE)') | b: count() \
         | $ rm disk/rest | a: write() | b: write() | c: once('disk/board.db') | a: write() | a: close() | b: close()",
    ),
    scene(
        "the disk is full when a checkpoint is to make the database longer",
        "$ mkdir disk; mount -t tmpfs -o size=1m none disk | a: make('disk/board.db') | a: connect('c', 'disk/board.db') \
         | b: connect('c', 'disk/board.db') | a: sql('PRAGMA wal_autocheckpoint=0') | b: count() | a: sql('INSERT INTO t VALUES (zeroblob(100000))') \
         | $ dd if=/dev/zero of=disk/rest bs=4096 2>/dev/null || true | a: wal! sql('PRAGMA wal_checkpoint(FULL)') | a: count() | b: count() \
         | b: wal! sql('PRAGMA wal_checkpoint(TRUNCATE)') | b: close() | c: connect('c', 'disk/board.db') | c: count() | c: close() \
         | $ rm disk/rest | a: write() | c: once('disk/board.db') | a: sql('PRAGMA wal_checkpoint(TRUNCATE)') | a: write()",
    ),
    scene(
        "the disk has no inode left",
        "$ mkdir disk; mount -t tmpfs -o size=4m,nr_inodes=6 none disk | a: make('disk/board.db') \
         | $ (for n in 1 2 3 4 5 6 7 8; do : > disk/$n; done) 2>/dev/null || true | a: connect('c', 'disk/board.db') | a: wal! count() | a: !write() \
         | $ rm disk/? | a: write() | b: once('disk/board.db') | a: write()",
    ),
    scene(
        "one inode is left, which SQLite needs for its journal",
        "$ mkdir disk; mount -t tmpfs -o size=4m,nr_inodes=5 none disk | a: make('disk/board.db', 'delete') \
         | $ (for n in 1 2; do : > disk/$n; done) 2>/dev/null || true | a: connect('c', 'disk/board.db') | a: write() | a: count() | a: write()",
    ),
    scene(
        "files may not grow beyond a limit",
        "a: write() | a: signal.signal(signal.SIGXFSZ, signal.SIG_IGN) and None \
         | a: resource.setrlimit(resource.RLIMIT_FSIZE, (131072, 131072)) \
         | a: !sql('BEGIN; INSERT INTO t VALUES (zeroblob(400000)); COMMIT') | a: connections['c'].in_transaction and sql('ROLLBACK') or None \
         | a: count() | a: write() | b: once() | a: count()",
    ),
    scene(
        "the database may not grow beyond a limit, and its WAL is below it",
        "a: sql('PRAGMA wal_autocheckpoint=0') | a: sql('INSERT INTO t VALUES (zeroblob(400000))') | a: sql('PRAGMA wal_checkpoint(TRUNCATE)') \
         | a: signal.signal(signal.SIGXFSZ, signal.SIG_IGN) and None | a: resource.setrlimit(resource.RLIMIT_FSIZE, (sql('PRAGMA page_count')[0][0] * 4096 + 9000,) * 2) \
         | a: delete! sql('INSERT INTO t VALUES (zeroblob(100000))') | a: count() | a: wal! sql('PRAGMA wal_checkpoint(FULL)') | a: write() | a: count() \
         | b: once() | a: wal! sql('PRAGMA wal_checkpoint(TRUNCATE)') | b: count() | a: write() | a: close() | b: write() | b: once()",
    ),
    scene(
        "the board lies on a read-only mount",
        "$ mkdir ro; cp board.db ro; mount --bind ro ro; mount -o remount,ro,bind ro | a: connect('c', 'ro/board.db') | a: wal! count() | a: !write() \
         | a: close() | $ mount -o remount,rw,bind ro",
    ),
    scene(
        "a read-only mount is laid over the directory while the board is open",
        "$ mkdir ro; cp board.db ro | a: connect('c', 'ro/board.db') | a: write() | a: count() \
         | $ mount --bind ro ro; mount -o remount,ro,bind ro | a: count() | a: delete! write() | b: connect('c', 'ro/board.db') | b: count() | b: !write() \
         | a: count() | b: close() | $ umount -l ro | a: write() | b: once('ro/board.db') | a: count()",
    ),
    scene(
        "the database is bound onto itself, as systemd does",
        "$ mount --bind board.db board.db | a: write() | b: once() | a: write() | a: close()",
    ),
    scene(
        "the directory is bound elsewhere, and the board is used by both paths",
        "$ mkdir twin; mount --bind . twin | a: write() | b: connect('c', 'twin/board.db') | b: write() | a: write() | b: count() | a: close() \
         | b: close() | $ umount twin; rmdir twin",
    ),
    scene(
        "a board in memory's file system with huge rows",
        "$ mkdir disk; mount -t tmpfs -o size=16m none disk | a: make('disk/board.db') | a: connect('c', 'disk/board.db') \
         | a: sql('INSERT INTO t VALUES (zeroblob(3000000))') | a: sql('DELETE FROM t') | a: sql('VACUUM') | a: count() | a: close() \
         | a: os.path.getsize('disk/board.db')",
    ),
    scene(
        "the database is in a file of a loop of symbolic links' end",
        "$ mkdir real; cp board.db real; ln -s real here; ln -s here/board.db link.db | a: connect('c', 'link.db') | a: write() \
         | b: connect('c', 'real/board.db') | b: write() | a: count() | a: close() | b: close()",
    ),
];

/// Disks that find an error, and are read-only from then on: files that are open for writing keep no disk from that.
pub(crate) const BROKEN_DISKS: &[Scene] = &[
    scene(
        "the disk becomes read-only while the board is open",
        "$ truncate -s 8M image; mkfs.ext4 -q image; mkdir disk; mount -o loop image disk | a: make('disk/board.db') | a: connect('c', 'disk/board.db') \
         | b: connect('c', 'disk/board.db') | a: write() | b: count() | $ sync -f disk; mount -o remount,abort disk | a: count() | b: count() | a: !write() | a: count() \
         | c: connect('c', 'disk/board.db') | c: count() | c: !write() | c: close() | b: close() | a: close() \
         | $ umount disk; mount -o loop image disk | a: once('disk/board.db') | b: once('disk/board.db')",
    ),
    scene(
        "the disk becomes read-only in a transaction",
        "$ truncate -s 8M image; mkfs.ext4 -q image; mkdir disk; mount -o loop image disk | a: make('disk/board.db') | a: connect('c', 'disk/board.db') \
         | a: write() | a: sql('BEGIN IMMEDIATE') | a: write() | $ sync -f disk; mount -o remount,abort disk | a: !sql('COMMIT') \
         | a: connections['c'].in_transaction and sql('ROLLBACK') or None | a: count() | a: close() \
         | $ umount disk; mount -o loop image disk | a: once('disk/board.db') | b: once('disk/board.db')",
    ),
];

/// Backups of everything onto everything.
pub(crate) const BACKUPS: &[Scene] = &[
    scene(
        "an empty database over the board",
        "a: connect('e', 'empty.db') | a: write() | a: backup('e', 'c') | a: sql('PRAGMA integrity_check') | a: !count() | a: close('e')",
    ),
    scene(
        "the board over an empty database",
        "a: connect('e', 'empty.db') | a: write() | a: backup('c', 'e') | a: count('e') | a: close('e')",
    ),
    scene(
        "a database with larger pages over the board",
        "a: connect('e', 'other.db') | a: sql('PRAGMA page_size=65536; CREATE TABLE t (x); INSERT INTO t VALUES (1)', 'e') | a: write() \
         | a: wal! backup('e', 'c') | a: count() | a: write()",
    ),
    scene(
        "an empty database over one with larger pages",
        "a: connect('e', 'other.db') | a: sql('PRAGMA page_size=65536; CREATE TABLE t (x)', 'e') | a: connect('n', 'none.db') \
         | a: backup('n', 'e') | a: sql('PRAGMA integrity_check', 'e')",
    ),
    scene(
        "a database with smaller pages over the board",
        "a: connect('e', 'other.db') | a: sql('PRAGMA page_size=512; CREATE TABLE t (x); INSERT INTO t VALUES (1)', 'e') | a: write() \
         | a: wal! backup('e', 'c') | a: count() | a: write()",
    ),
    scene(
        "one that is longer over the board, and back",
        "a: connect('e', 'other.db') | a: sql('CREATE TABLE t (x); INSERT INTO t VALUES (zeroblob(900000))', 'e') | a: write() \
         | a: backup('e', 'c') | a: count() | a: sql('DELETE FROM t; VACUUM', 'e') | a: backup('e', 'c') | a: count() | a: write()",
    ),
    scene(
        "from memory, and into memory",
        "a: connections.update(m=sqlite3.connect(':memory:')) | a: backup('c', 'm') if 'c' in connections else connect() | a: backup('c', 'm') \
         | a: count('m') | a: backup('m', 'c') | a: count()",
    ),
    scene(
        "while another writes",
        "b: sql('BEGIN IMMEDIATE') | b: write() | a: connect() | a: connect('e', 'copy.db') | a: backup('c', 'e') | a: count('e') \
         | b: sql('COMMIT') | a: backup('c', 'e') | a: count('e')",
    ),
    scene(
        "onto a board that another writes",
        "b: sql('BEGIN IMMEDIATE') | b: write() | a: connect() | a: connect('e', 'copy.db') \
         | a: sql('CREATE TABLE t (x); INSERT INTO t VALUES (1)', 'e') | b: sql('COMMIT') | a: backup('e', 'c') | b: count() | a: count()",
    ),
    scene(
        "a copy by cp of an idle board",
        "a: once() | $ cp board.db copy.db | a: connect('c', 'copy.db') | a: count() | a: sql('PRAGMA integrity_check') | a: write()",
    ),
    scene(
        "a file put in the idle board's place",
        "a: once() | $ cp board.db saved.db | a: once() | $ cp saved.db board.db | a: once() | b: count()",
    ),
    scene(
        "VACUUM INTO, and the copy is used",
        "a: write() | a: sql(\"VACUUM INTO 'copy.db'\") | a: connect('e', 'copy.db') | a: count('e') | a: write('e')",
    ),
];

/// Names of databases.
pub(crate) const NAMES: &[Scene] = &[
    scene(
        "`tasks` and `tasks-lock` are both databases",
        "a: make('tasks') | a: make('tasks-lock') | a: connect('t', 'tasks') | a: write('t') | a: connect('l', 'tasks-lock') | a: write('l') \
         | b: once('tasks') | b: once('tasks-lock') | a: write('t') | a: write('l') | b: once('tasks') | a: close('t') | a: close('l')",
    ),
    scene(
        "`tasks-lock` is created while `tasks` is in use",
        "a: make('tasks') | a: connect('t', 'tasks') | a: write('t') | b: make('tasks-lock') | b: once('tasks-lock') | a: write('t') \
         | b: once('tasks') | a: close('t')",
    ),
    scene(
        "signs that mean something in a URI",
        "a: make('a?b%41#c d.db') | a: once('a?b%41#c d.db') | b: once('a?b%41#c d.db')",
    ),
    scene(
        "letters of other alphabets",
        "a: make('доска-板.db') | a: once('доска-板.db') | b: once('доска-板.db')",
    ),
    scene(
        "a name as long as file systems let SQLite have",
        "a: make('n' * 240) | a: once('n' * 240) | b: once('n' * 240)",
    ),
    scene(
        "a name with which the sidecar's is too long, and those of SQLite's files are not",
        "a: make('short.db', 'wal') | a: os.rename('short.db', 'n' * 250) | a: once('n' * 250) | b: once('n' * 250) | a: os.rename('n' * 250, 'n' * 251) \
         | a: once('n' * 251) | b: once('n' * 251) | a: connect('c', 'n' * 251) | a: write() | b: once('n' * 251) | a: write() | a: count()",
    ),
    scene(
        "a symbolic link to the board",
        "$ ln -s board.db link.db | a: connect('c', 'link.db') | a: write() | b: write() | a: write() | a: close() | b: close()",
    ),
    scene(
        "a symbolic link to a board that is still to come",
        "$ ln -s later.db link.db | a: make('link.db') | a: once('later.db') | b: once('link.db')",
    ),
    scene(
        "the working directory is another one after the board was opened by a relative name",
        "a: connections.update(c=sqlite3.connect(f'file:board.db?vfs={VFS}', uri=True, isolation_level=None)) | a: write() | a: os.chdir('/') \
         | a: write() | b: once() | a: write()",
    ),
    scene(
        "a temporary database without a name",
        "a: connections.update(c=sqlite3.connect('', isolation_level=None)) | a: sql('CREATE TABLE t (x)') | a: write()",
    ),
    scene(
        "a database in memory, by a URI",
        "a: connections.update(c=sqlite3.connect(f'file::memory:?vfs={VFS}', uri=True)) | a: sql('CREATE TABLE t (x)') | a: write() | a: count()",
    ),
    scene(
        "a directory, a FIFO, a dangling link and a hard link lie in the sidecar's place, one after the other",
        "$ mkdir board.db-lock | a: once() | a: write() | b: once() | a: close() | $ rmdir board.db-lock; mkfifo board.db-lock | a: once() \
         | $ rm board.db-lock; ln -s nowhere/x board.db-lock | a: once() | $ rm board.db-lock; echo text > other; ln other board.db-lock \
         | a: once() | $ grep -q text other; rm -f board.db-lock other",
    ),
    scene("there is no such directory", "a: !connect('c', 'no/such/board.db') | a: once()"),
    scene(
        "the database is a directory",
        "$ mkdir folder.db | a: !connect('c', 'folder.db') | a: once()",
    ),
    scene(
        "the database is no database",
        "$ echo 'this is no database, but a text that is long enough' > text.db | a: !once('text.db') | a: once()",
    ),
    scene(
        "the database is empty",
        "$ : > empty.db | a: connect('c', 'empty.db') | a: sql('CREATE TABLE t (x)') | a: write() | b: once('empty.db')",
    ),
    scene(
        "an attached database gets its first table while another statement reads, and another process writes",
        "a: write() | a: sql(\"ATTACH 'second.db' AS s\") | a: (reads := connections['c'].execute('SELECT x FROM t')) and reads.fetchone() \
         | a: connections['c'].execute('CREATE TABLE s.t (x)') and None | b: connect('c', 'second.db') | b: sql('BEGIN IMMEDIATE') \
         | b: write() | a: reads.fetchall() | b: sql('COMMIT') | a: count()",
    ),
    scene(
        "ATTACH by a plain name",
        "a: write() | a: sql(\"ATTACH 'second.db' AS s; CREATE TABLE s.u (x); INSERT INTO s.u VALUES (1)\") | a: sql('DETACH s') | b: once()",
    ),
];

/// Journal modes, locking modes, checkpoints and what else a pragma changes.
pub(crate) const MODES: &[Scene] = &[
    scene(
        "a change to WAL that is refused, then reads beside a writer",
        "a: sql('PRAGMA journal_mode=delete') | b: sql('BEGIN IMMEDIATE') | a: !sql('PRAGMA journal_mode=wal') | a: count() | a: count() \
         | b: sql('COMMIT') | a: count() | b: write()",
    ),
    scene(
        "a change to WAL that is only explained, then reads beside a writer",
        "a: sql('PRAGMA journal_mode=delete') | a: sql('EXPLAIN PRAGMA journal_mode=wal') and None | b: sql('BEGIN IMMEDIATE') | a: count() \
         | b: sql('COMMIT') | a: count() | b: write()",
    ),
    scene(
        "a change of mode inside a transaction",
        "a: sql('BEGIN; INSERT INTO t VALUES (2)') | a: sql('PRAGMA journal_mode=delete') | a: sql('PRAGMA journal_mode=wal') | a: sql('COMMIT') \
         | b: sql('BEGIN IMMEDIATE') | a: count() | b: sql('COMMIT') | b: once()",
    ),
    scene(
        "each journal mode after the other, with another connection that writes between",
        "a: [(sql('PRAGMA journal_mode=' + mode), write(), close(), once()) for mode in ('wal', 'delete', 'truncate', 'persist', 'memory', 'wal', 'delete')] and None \
         | b: [(sql('PRAGMA journal_mode'), write()) for _ in range(3)] and None | a: count()",
    ),
    scene(
        "exclusive locking mode, and another who comes",
        "a: sql('PRAGMA locking_mode=exclusive') | a: write() | b: !count() | b: !once() | a: sql('PRAGMA locking_mode=normal') | a: count() | b: wal! once() \
         | a: write()",
    ),
    scene(
        "a reader that was opened read-only is the last to close",
        "a: write() | b: connect('c', None, 0, '&mode=ro') | b: count() | a: close() | b: count() | b: close() | c: once()",
    ),
    scene(
        "PRAGMA journal_mode on a read-only connection, beside a writer",
        "a: write() | b: connect('c', None, 0, '&mode=ro') | b: sql('PRAGMA journal_mode') | b: wal! sql('PRAGMA journal_mode=delete') \
         | b: delete! sql('PRAGMA journal_mode=wal') | a: write() | b: count() | b: close() | a: write() | a: sql('PRAGMA journal_mode=delete') | a: write()",
    ),
    scene(
        "read-only and writing connections of one process",
        "a: write() | a: connect('r', None, 0, '&mode=ro') | a: count('r') | a: close('r') | a: write() | b: once() | a: sql('PRAGMA journal_mode=delete') \
         | a: write() | a: close() | b: once()",
    ),
    scene(
        "an immutable board",
        "a: once() | b: connect('c', None, 0, '&immutable=1') | b: count() | b: !write() | b: close() | a: once()",
    ),
    scene(
        "without locks",
        "a: connect('c', None, 0, '&nolock=1') | a: wal! write() | a: wal! count() | a: close() | b: once()",
    ),
    scene(
        "checkpoints of all kinds beside a reader",
        "a: write() | b: sql('BEGIN') | b: count() | a: delete! write() | a: [sql('PRAGMA wal_checkpoint(' + kind + ')') for kind in ('passive', 'full', 'restart', 'truncate')] \
         | b: sql('COMMIT') | a: [sql('PRAGMA wal_checkpoint(' + kind + ')') for kind in ('passive', 'full', 'restart', 'truncate')] and None | a: write()",
    ),
    scene(
        "VACUUM beside a reader, and one that waits",
        "b: sql('BEGIN') | b: count() | a: delete! sql('VACUUM') | b: sql('COMMIT') | a: sql('VACUUM') | a: write() | b: count()",
    ),
    scene(
        "readers beside VACUUM, again and again",
        "a: waits(20000) | b: waits(20000) | a& [sql('VACUUM') for n in range(100)] and None \
         | b: [sql(f'SELECT count(*), {n} FROM t') for n in range(2000)] and None | a= | a: write()",
    ),
    scene(
        "auto_vacuum, and a board that shrinks",
        "a: sql('PRAGMA auto_vacuum=full; VACUUM') | a: sql('INSERT INTO t VALUES (zeroblob(500000))') | a: sql('DELETE FROM t WHERE length(x) > 9') \
         | a: sql('PRAGMA incremental_vacuum') | a: count() | a: close() | a: os.path.getsize('board.db') | b: once()",
    ),
    scene(
        "each page size",
        "a: [(sql('PRAGMA journal_mode=delete; PRAGMA page_size=' + str(size) + '; VACUUM; PRAGMA journal_mode=' + JOURNAL), write(), close(), \
         os.path.getsize(BOARD)) for size in (512, 1024, 8192, 65536)] | b: once()",
    ),
    scene(
        "memory-mapped reads beside a board that grows and shrinks",
        "a: sql('PRAGMA mmap_size=10000000') and None | a: count() | b: sql('INSERT INTO t VALUES (zeroblob(900000))') | a: count() \
         | b: sql('DELETE FROM t; VACUUM') | a: count() | a: write() | a: sql('PRAGMA integrity_check')",
    ),
    scene(
        "two boards in one transaction",
        "a: make('second.db') | a: sql(\"ATTACH 'second.db' AS s\") | a: sql('BEGIN; INSERT INTO main.t VALUES (2); INSERT INTO s.t VALUES (2); COMMIT') \
         | b: once() | b: once('second.db') | a: sql('SELECT count(*) FROM s.t')",
    ),
    scene(
        "a shared cache",
        "a: connect('d', None, 0, '&cache=shared') | a: connect('e', None, 0, '&cache=shared') | a: write('d') | a: count('e') | b: once() | a: write('e')",
    ),
    scene(
        "an upgrade of a read transaction beside another's",
        "a: sql('BEGIN') | b: sql('BEGIN') | a: count() | b: count() | a: write() | b: !write() | a: delete! sql('COMMIT') | b: sql('ROLLBACK') | b: delete! write()",
    ),
    scene(
        "a savepoint as a transaction",
        "a: sql('SAVEPOINT s') | a: write() | b: !write() | a: sql('RELEASE s') | b: write() | a: count()",
    ),
    scene(
        "query_only, and a write",
        "a: sql('PRAGMA query_only=1') | a: count() | a: !write() | a: sql('PRAGMA query_only=0') | a: write()",
    ),
    scene(
        "each level of synchronous",
        "a: [(sql('PRAGMA synchronous=' + level), write()) for level in ('off', 'normal', 'full', 'extra')] and None | b: once()",
    ),
    scene(
        "a transaction larger than the cache",
        "a: sql('PRAGMA cache_size=5') | a: sql('BEGIN IMMEDIATE') | a: sql('INSERT INTO t VALUES (zeroblob(3000000))') | b: delete! count() | a: sql('ROLLBACK') \
         | a: count() | b: once()",
    ),
];

/// Programs that lock the board's files in ways of their own, and files that go missing.
pub(crate) const LOCKS: &[Scene] = &[
    scene(
        "a program locks its own database by lockf, in a rollback mode",
        "a: sql('PRAGMA journal_mode=delete') | a: write() | a: lock(fcntl.LOCK_EX) | a: waits(500) | a: write() | a: count() \
         | a: locked.close() | a: write()",
    ),
    scene(
        "a program locks its own database by lockf before it opens it",
        "a: lock(fcntl.LOCK_EX) | a: waits(500) | a: write() | a: count() | a: write() | a: locked.close() | a: write() | b: once()",
    ),
    scene(
        "another program locks the database by lockf",
        "b: lock(fcntl.LOCK_EX) | a: waits(100) | a: !write() | a: !count() | b: locked.close() | a: write()",
    ),
    scene(
        "a program locks its own database by flock",
        "a: write() | a: f = open(BOARD); fcntl.flock(f, fcntl.LOCK_EX) | a: waits(500) | a: write() | a: f.close() | a: write()",
    ),
    scene(
        "another program locks the sidecar's place",
        "$ : > board.db-lock | b: lock(fcntl.LOCK_EX, 'board.db-lock') | a: waits(500) | a: write() | a: count() | b: locked.close() | a: write() | a: close() | $ rm -f board.db-lock",
    ),
    scene(
        "the sidecar is deleted while the board is open",
        "a: write() | $ rm -f board.db-lock | b: write() | a: write() | b: write() | a: sql('BEGIN IMMEDIATE') | b: !write() | a: sql('COMMIT') | b: write()",
    ),
    scene(
        "the sidecar is emptied while the board is open",
        "a: write() | $ if [ -e board.db-lock ]; then : > board.db-lock; fi | b: write() | a: write() | b: write() \
         | a: close() | b: close() | $ rm -f board.db-lock",
    ),
    scene(
        "the board is moved away and comes back",
        "a: write() | a: close() | $ mv board.db away.db | $ mv away.db board.db | a: once() | b: once()",
    ),
    scene(
        "a reader whose board was moved away reads on",
        "a: count() | $ mv board.db away.db | a: count() | $ mv away.db board.db | a: count() | a: write()",
    ),
    scene(
        "a timeout ends, and another comes right after",
        "b: sql('BEGIN IMMEDIATE') | a: waits(103) | a: !write() | b: sql('COMMIT') | b: write() | c: write() | a: write()",
    ),
    scene(
        "many writers of one process, in threads",
        "a: waits(20000) | a: threads = [threading.Thread(target=lambda n=n: [write(str(n)) for _ in range(9)]) for n in range(4)] \
         | a: [(connect(str(n), None, 20000), thread.start()) for n, thread in enumerate(threads)] and None \
         | a: [thread.join() for thread in threads] and None | a: count() | b: once()",
    ),
];
