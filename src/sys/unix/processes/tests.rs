use std::process::Stdio;
use std::time::Instant;

use super::*;
use crate::sys::{Range, entry_of, try_lock};

#[test]
fn a_lock_is_read_from_its_line() {
    let line = "lock:\t1: OFDLCK  ADVISORY  WRITE -1 08:01:131081 8192 4611686018427396096";
    let last = 4_611_686_018_427_396_096;
    let lock = FileLock { is_exclusive: true, start: 8192, last, is_ofd: true };
    assert_eq!(lock_of(line), Some(lock));
    let line = "lock:\t2: POSIX  ADVISORY  READ 77 00:2d:5 0 EOF";
    let lock = FileLock { is_exclusive: false, start: 0, last: i64::MAX, is_ofd: false };
    assert_eq!(lock_of(line), Some(lock));
    for line in ["lock:\t1: FLOCK  ADVISORY  WRITE 77 00:2d:5 0 EOF", "pos:\t0", "lock:", ""] {
        assert_eq!(lock_of(line), None, "{line}");
    }
}

/// A process is killed, and its parent waits for it while another thread asks about it. Its locks are free by then, so the
/// answer is that it has ended, at whichever moment of the parent's wait the thread asks.
#[test]
fn a_process_has_ended_also_while_its_parent_waits_for_it() {
    for _ in 0..400 {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .stdout(Stdio::piped())
            .spawn()
            .expect("there is sleep(1)");
        let pid = child.id();
        child.kill().expect("it runs");
        // Its end of the pipe is closed with its other files, and so are its locks.
        let mut output = child.stdout.take().expect("a pipe");
        io::Read::read_to_end(&mut output, &mut Vec::new()).expect("it ends");
        std::thread::scope(|scope| {
            let asking = scope.spawn(move || (0..50).find(|_| !has_ended(pid, Duration::ZERO)));
            child.wait().expect("it is a child");
            assert_eq!(asking.join().expect("no panic"), None);
        });
    }
}

/// A program sets its title to a text that turns a terminal red, or reverses the rest of the line.
#[test]
fn a_command_line_does_not_command_the_terminal() {
    assert_eq!(
        shown_command(b"sh\0-c\0two words\0"[..].strip_suffix(b"\0").unwrap_or(&[])),
        "sh -c 'two words'"
    );
    assert_eq!(shown_command(b"a\x1b[31mb\0\nc"), "a?[31mb ?c");
    for turns in ['\u{202e}', '\u{61c}', '\u{9b}'] {
        assert_eq!(shown_command(format!("a{turns}b").as_bytes()), "a?b");
    }
    assert_eq!(shown_command(b"a\0\0\xffb"), "a '' \u{fffd}b");
    let long = shown_command(&[b'x'; 5000]);
    assert_eq!((long.len(), long.ends_with("x...")), (203, true));
}

/// This process has a lock. The kernel's list has that lock, with this process's id if it is a POSIX lock, and no lock on
/// another file.
#[test]
fn a_listed_lock_is_found() {
    let [file, other] = [(), ()].map(|()| tempfile::tempfile().expect("a file"));
    let [inode, other] = [&file, &other].map(|file| entry_of(file).expect("it is open").inode);
    assert_eq!(listed_locks(&[inode]), []);
    assert!(try_lock(&file, Range { start: 5, len: 2 }, false).expect("they are there"));
    let lock = FileLock { is_exclusive: true, start: 5, last: 6, is_ofd: true };
    assert_eq!(listed_locks(&[other, inode]), [ListedLock { inode, lock, pid: None }]);
    assert_eq!(listed_locks(&[other]), []);
}

/// This process runs, for its user, by the command that has started it.
#[test]
fn a_process_is_described() {
    let own = details_of(std::process::id());
    // The harness waits in its first thread, and this is another.
    assert!(matches!(own.state, Some('R' | 'S')), "{:?}", own.state);
    assert!(own.command.expect("it has one").contains("kanban_vfs"));
    assert!(own.user.is_some_and(|user| !user.is_empty()) && own.own_pid.is_some());
    let nobody = details_of(4_194_303);
    assert_eq!(
        (nobody.command, nobody.user, nobody.state, nobody.own_pid),
        (None, None, None, None)
    );
    assert_eq!(user_name(0), "root");
    assert_eq!(user_name(u32::MAX - 7), (u32::MAX - 7).to_string());
}

#[test]
fn a_process_is_known_by_its_stat() {
    let stat = |state: &str, threads: u64| {
        let text = format!(
            "7 (a) b (c)) {state} 1 7 7 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 {threads} 0 99 1 2"
        );
        Stat::parse(&text).expect("it is whole")
    };
    assert!(!stat("S", 1).is_dead() && !stat("S", 1).is_of_the_kernel());
    assert!(stat("Z", 0).is_dead() && stat("Z", 1).is_dead());
    assert!(!stat("Z", 2).is_dead(), "its first thread has ended, another lives");
    assert_eq!(stat("S", 1).began, 99);
    assert!(Stat::parse("7 (a").is_none() && Stat::parse("").is_none());
}

/// This process lives, and did something after it began. A process is gone if none has its id, if it is a zombie, or if this
/// process has the id but something was done ten years ago.
#[test]
fn a_process_that_is_gone_is_known_to_be() {
    let pid = std::process::id();
    assert!(!is_gone(pid, Duration::ZERO));
    assert!(is_gone(pid, Duration::from_secs(300_000_000)));
    assert!(is_gone(4_194_303, Duration::ZERO), "beyond the largest that is given");
    assert!(!is_gone(0, Duration::ZERO));
    let mut child = std::process::Command::new("true").spawn().expect("it starts");
    let began = Instant::now();
    assert!(!has_ended(pid, Duration::ZERO));
    while !is_gone(child.id(), Duration::ZERO) {
        assert!(began.elapsed() < Duration::from_secs(60), "a zombie is dead");
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(has_ended(child.id(), Duration::ZERO));
    child.wait().expect("it ends");
}

/// The first thread of a process ends, and another lives. The process has not ended until that one is killed, and has its files
/// open, although /proc/PID/fd is empty, or root's.
#[test]
fn a_process_lives_as_long_as_its_last_thread() {
    let file = tempfile::tempfile().expect("a file");
    let inode = entry_of(&file).expect("it is open").inode;
    // SAFETY: the child uses of this process's memory what fork(2) leaves usable: it makes a thread, and ends this one alone.
    let child = unsafe {
        let child = libc::fork();
        if child == 0 {
            std::thread::spawn(|| std::thread::sleep(Duration::from_secs(600)));
            libc::syscall(libc::SYS_exit, 0);
        }
        child
    };
    let pid = u32::try_from(child).expect("it forks");
    let began = Instant::now();
    let until = |is_it: &dyn Fn() -> bool| {
        while !is_it() && began.elapsed() < Duration::from_secs(60) {
            std::thread::sleep(Duration::from_millis(1));
        }
        is_it()
    };
    let stat = || Stat::parse(&read_text(format!("/proc/{pid}/stat")).ok()?);
    let is_headless = until(&|| stat().is_some_and(|stat| stat.state == 'Z'));
    let ended_before = has_ended(pid, Duration::ZERO);
    let has_it = has_open(pid, inode, Duration::MAX);
    // SAFETY: a child that nobody else kills or waits for.
    unsafe { libc::kill(child, libc::SIGKILL) };
    let has_ended = until(&|| has_ended(pid, Duration::ZERO));
    // SAFETY: as above; it asks for no status.
    unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
    assert_eq!((is_headless, ended_before, has_ended), (true, false, true));
    assert_ne!(has_it, Some(false));
}

/// Drops for good this thread's right to look into the processes of all users. capabilities(7)
fn give_up_ptrace() {
    const VERSION_3: u32 = 0x2008_0522;
    const CAP_SYS_PTRACE: u32 = 19;
    let mut header = [VERSION_3, 0];
    // Effective, permitted and inheritable, of the first 32 capabilities and of the next.
    let mut sets = [0_u32; 6];
    let (about, all) = (header.as_mut_ptr(), sets.as_mut_ptr());
    // SAFETY: the structs that version 3 asks for; 0 stands for this thread.
    unsafe {
        assert_eq!(libc::syscall(libc::SYS_capget, about, all), 0);
        *all &= !(1 << CAP_SYS_PTRACE);
        assert_eq!(libc::syscall(libc::SYS_capset, about, all), 0);
    }
}

/// A process of another user has a file open. Root without CAP_SYS_PTRACE, as in most containers, may list its descriptors, but
/// not look at them. So it is not known whether that process has the file open.
#[test]
fn a_process_that_may_not_be_looked_into_is_not_innocent() {
    use std::os::unix::process::CommandExt;
    let file = tempfile::tempfile().expect("a file");
    let inode = entry_of(&file).expect("it is open").inode;
    // SAFETY: the call takes nothing.
    if unsafe { libc::geteuid() } != 0 {
        // Only root may begin a process of another user.
        return;
    }
    let mut sleep = std::process::Command::new("sleep");
    let mut child = sleep.arg("600").stdin(file).uid(65534).gid(65534).spawn().expect("sleep(1)");
    let pid = child.id();
    let asks = std::thread::spawn(move || {
        give_up_ptrace();
        has_open(pid, inode, Duration::MAX)
    });
    let found = asks.join().expect("no panic");
    child.kill().and_then(|()| child.wait()).expect("it is ours");
    assert_eq!(found, None);
}

/// A process that has given itself a name, printed by printf(1). It ends when its standard input does.
fn named(name: &str) -> std::process::Child {
    let mut child = std::process::Command::new("sh")
        .args(["-c", &format!("printf '{name}' > /proc/$$/comm && echo && read end")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut out = child.stdout.take().expect("it is a pipe");
    out.read_exact(&mut [0]).expect("it has its name");
    child
}

/// A process has a name with an escape sequence that turns a terminal red.
#[test]
fn a_name_does_not_command_the_terminal() {
    let mut child = named("a\\033[31mb");
    assert_eq!(program_of(child.id()).as_deref(), Some("a?[31mb"));
    drop(child.stdin.take());
    child.wait().expect("it ends");
}

/// The kernel cuts the name of a program in the middle of a character. The process is described like any other, and is known to
/// be gone when it is a zombie.
#[test]
fn a_name_need_not_be_utf_8() {
    let mut child = named("a\\303");
    let pid = child.id();
    assert_eq!(program_of(pid).as_deref(), Some("a\u{fffd}"));
    let details = details_of(pid);
    assert!(details.state.is_some() && details.user.is_some(), "{details:?}");
    assert_eq!(details.own_pid, Some(pid).filter(|_| own_pid(std::process::id()).is_some()));
    drop(child.stdin.take());
    let began = Instant::now();
    while !is_gone(pid, Duration::ZERO) {
        assert!(began.elapsed() < Duration::from_secs(60), "a zombie is dead");
        std::thread::sleep(Duration::from_millis(1));
    }
    child.wait().expect("it ends");
}

/// This process has a file open twice: once only to look at it, and once with a lock. It is found with both.
#[test]
fn a_process_that_has_a_file_open_is_found() {
    use std::os::unix::fs::OpenOptionsExt;
    let file = tempfile::NamedTempFile::new().expect("a file");
    let inode = entry_of(file.as_file()).expect("it is open").inode;
    let to_look = fs::File::options().read(true).custom_flags(libc::O_PATH).open(file.path());
    assert!(try_lock(file.as_file(), Range { start: 5, len: 2 }, false).expect("it is there"));
    let seen = with_open(&[inode], Duration::MAX);
    let pid = std::process::id();
    let (_, open) = seen.found.iter().find(|(found, _)| *found == pid).expect("it is open");
    let lock = FileLock { is_exclusive: true, start: 5, last: 6, is_ofd: true };
    let expected = [
        OpenFile { inode, is_to_look: false, locks: vec![lock] },
        OpenFile { inode, is_to_look: true, locks: Vec::new() },
    ];
    assert!(expected.iter().all(|one| open.contains(one)) && open.len() == 2, "{open:?}");
    drop((file, to_look));
    assert!(with_open(&[inode], Duration::MAX).found.is_empty());
}

/// This process has a lock by one of its descriptors: a search for that lock finds the process, a search for another lock does
/// not.
#[test]
fn a_process_that_has_a_lock_is_found() {
    let file = tempfile::tempfile().expect("a file");
    let inode = entry_of(&file).expect("it is open").inode;
    let find = |start| {
        with_lock(&[inode], |_, lock| lock.is_exclusive && lock.start == start, Duration::MAX)
    };
    assert_eq!(find(5).found, []);
    assert!(try_lock(&file, Range { start: 5, len: 2 }, false).expect("they are there"));
    let pid = std::process::id();
    let found = find(5);
    assert_eq!(found.found, [Locker { pid, own_pid: own_pid(pid).expect("it has one") }]);
    assert!(!found.is_partial);
    assert_eq!(find(6).found, []);
    assert!(may_be_locked(&[inode], false) && may_be_locked(&[inode], true));
    drop(file);
    let cut_short = with_lock(&[inode], |_, _| true, Duration::ZERO);
    assert!(cut_short.is_partial && cut_short.found.is_empty());
}

/// Another program keeps one file locked by flock(2), and a part of another file, while others lock and unlock theirs all the
/// time. The kernel's list sometimes lacks a held lock then.
#[test]
fn a_lock_is_found_while_others_come_and_go() {
    use std::sync::atomic::{AtomicBool, Ordering};

    let directory = tempfile::tempdir().expect("a directory");
    // A child that another test starts may keep a lock for a moment, so each process has a file of its own.
    let file = || tempfile::tempfile_in(directory.path()).expect("there is room");
    let [whole, part] = [(); 2].map(|()| file());
    crate::sys::for_tests::flock_all(&whole);
    assert!(try_lock(&part, Range { start: 5, len: 2 }, false).expect("they are there"));
    let [whole_inode, part_inode] =
        [&whole, &part].map(|file| entry_of(file).expect("it is open").inode);
    let is_over = AtomicBool::new(false);
    let missed = std::thread::scope(|scope| {
        scope.spawn(|| {
            let others: Vec<_> = (0..200).map(|_| file()).collect();
            let range = Range { start: 0, len: 1 };
            while !is_over.load(Ordering::Relaxed) {
                for other in &others {
                    assert!(try_lock(other, range, false).expect("they are there"));
                }
                for other in &others {
                    crate::sys::unlock(other, range).expect("it is locked");
                }
            }
        });
        let misses =
            |is_found: fn(Inode) -> bool, inode| (0..10_000).filter(|_| !is_found(inode)).count();
        let missed = [misses(has_flock, whole_inode), misses(is_locked, part_inode)];
        is_over.store(true, Ordering::Relaxed);
        missed
    });
    assert_eq!(missed, [0, 0]);
}
