//! All processes that use a database, found in one walk through the machine's processes.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use super::clients::{self, Client};
use super::locks::{self, Files, SqliteLock};
use super::processes::ProcessInfo;
use super::{Observation, Waiter};
use crate::format::{JOURNAL_SUFFIX, WAL_INDEX_SUFFIX, WAL_SUFFIX, beside};
use crate::lock::keepers;
use crate::lock::queue::slot_range;
use crate::sys::{self, FileLock, Inode};

/// The processes that use a database, as far as the process that asks may look into others.
/// [`Observation::survey`]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Survey {
    /// The processes that have it open, in the order of their process ids.
    pub clients: Vec<Client>,
    /// The process of [`Observation::holder`]; `None` if there is no holder, or its process is not
    /// found here.
    pub holder: Option<ProcessInfo>,
    /// The processes that keep the write lock of a holder that is gone. A child that runs no fork
    /// handler (`_Fork`, clone(2), vfork(2)) keeps its parent's locks until it executes a program
    /// or ends. `None` if there is no holder, or it is not gone.
    pub keepers: Option<Vec<ProcessInfo>>,
    /// The processes of [`Observation::queue`], in its order; `None` for a process that is not
    /// found here.
    pub queue: Vec<Option<ProcessInfo>>,
    /// The processes of [`Observation::sqlite_waiters`], likewise.
    pub sqlite_waiters: Vec<Option<ProcessInfo>>,
    /// SQLite's own locks that processes have, and those processes, in the order of the locks.
    pub locks: Vec<SqliteLock>,
    /// At least this many processes could not be looked into: only their user and root may do so.
    pub hidden: usize,
    /// Whether more processes were left out, because time ran out, or `/proc` does not exist or
    /// hides them.
    pub is_partial: bool,
}

impl Survey {
    /// Why more processes may use it, and which user could see them; `None` if these are all.
    #[must_use]
    pub fn missing(&self) -> Option<String> {
        keepers::missing(self.hidden, self.is_partial)
    }

    /// The survey of a database. Looks into other processes for at most `limit`.
    pub(super) fn of(seen: &Observation, limit: Duration) -> Self {
        let files = Files::of(&seen.database);
        let listed_before = files.listed();
        let walk = Walk::through(&seen.database, &seen.sidecar, limit);
        let listed_after = files.listed();
        let mut known = Processes::default();
        let mut survey = Self {
            hidden: walk.seen.hidden,
            is_partial: walk.seen.is_partial,
            clients: walk.clients(&mut known),
            ..Self::default()
        };
        survey.find_holder(seen, &walk, &mut known);
        let mut of_waiter = |waiter: &Waiter| {
            let slot = slot_range(waiter.slot).start;
            let have_it = walk.with_sidecar_lock(|lock| (lock.start..=lock.last).contains(&slot));
            match have_it.first() {
                Some(pid) => Some(known.process(*pid, true)),
                None => known.supposed(waiter.pid, Some(&waiter.program)),
            }
        };
        survey.queue = seen.queue.iter().map(&mut of_waiter).collect();
        survey.sqlite_waiters = seen.sqlite_waiters.iter().map(&mut of_waiter).collect();
        let locks = walk.locks();
        for (pid, inode, lock) in &locks {
            let process = known.process(*pid, true);
            survey.locks.extend(files.sqlite_locks(*inode, *lock, Some(process)));
        }
        // Listed before and after the walk: a lock that came or went during the walk is not
        // reported as one that no process shows.
        let before = locks::unseen(listed_before, &locks);
        let mut unseen = locks::unseen(listed_after, &locks);
        unseen.retain(|one| before.contains(one));
        for one in unseen {
            let process = one.pid.map(|pid| known.process(pid, true));
            survey.locks.extend(files.sqlite_locks(one.inode, one.lock, process));
        }
        let pid = |lock: &SqliteLock| lock.process.as_ref().map(|one| one.pid);
        survey.locks.sort_by_key(|lock| (lock.lock, pid(lock)));
        survey
    }

    fn find_holder(&mut self, seen: &Observation, walk: &Walk, known: &mut Processes) {
        let (Some(holder), Some(lock)) = (&seen.holder, seen.by_the_lock) else { return };
        let have_it = walk.with_sidecar_lock(|one| lock.has(one));
        let have_it: Vec<_> = have_it.into_iter().map(|pid| known.process(pid, true)).collect();
        let is_holder = |one: &&ProcessInfo| one.own_pid.unwrap_or(one.pid) == holder.pid;
        // A holder in another pid namespace, or with another clock, seems to be gone although it is
        // not.
        self.holder = have_it.iter().find(is_holder).cloned();
        match &self.holder {
            None if holder.is_gone => self.keepers = Some(have_it),
            None => self.holder = known.supposed(holder.pid, None),
            Some(_) => {}
        }
    }
}

/// What a walk through the processes found.
struct Walk {
    seen: sys::Openers,
    its_own: Vec<Inode>,
    sidecar: Option<Inode>,
    directory: Option<Inode>,
}

impl Walk {
    fn through(database: &Path, sidecar: &Path, limit: Duration) -> Self {
        let inode = |path: &Path| sys::entry_at(path).ok().map(|found| found.inode);
        let beside = |suffix| inode(&beside(database, suffix));
        let its_own: Vec<_> =
            [inode(database), beside(WAL_SUFFIX), beside(WAL_INDEX_SUFFIX), beside(JOURNAL_SUFFIX)]
                .into_iter()
                .flatten()
                .collect();
        let sidecar = inode(sidecar);
        let directory = database.parent().and_then(inode);
        let all: Vec<_> = its_own.iter().copied().chain(sidecar).chain(directory).collect();
        let mut seen = sys::with_open(&all, limit);
        seen.found.sort_by_key(|(pid, _)| *pid);
        Self { seen, its_own, sidecar, directory }
    }

    fn clients(&self, known: &mut Processes) -> Vec<Client> {
        let of = |(pid, open): &(u32, Vec<sys::OpenFile>)| {
            let vfs = clients::judge(open, &self.its_own, self.sidecar, self.directory)?;
            Some(Client { process: known.process(*pid, true), vfs })
        };
        self.seen.found.iter().filter_map(of).collect()
    }

    /// The locks that the processes show, each once per process.
    fn locks(&self) -> Vec<(u32, Inode, FileLock)> {
        let of = |(pid, open): &(u32, Vec<sys::OpenFile>)| {
            let all =
                open.iter().flat_map(|file| file.locks.iter().map(|lock| (file.inode, *lock)));
            let mut once: Vec<_> = Vec::new();
            for (inode, lock) in all {
                // Two descriptors of one open file description show the same locks.
                if !once.contains(&(*pid, inode, lock)) {
                    once.push((*pid, inode, lock));
                }
            }
            once
        };
        self.seen.found.iter().flat_map(of).collect()
    }

    /// The processes with such a lock on the sidecar.
    fn with_sidecar_lock(&self, is_it: impl Fn(FileLock) -> bool) -> Vec<u32> {
        let has_it = |open: &[sys::OpenFile]| {
            let its = open.iter().filter(|file| Some(file.inode) == self.sidecar);
            its.flat_map(|file| &file.locks).any(|lock| is_it(*lock))
        };
        self.seen.found.iter().filter(|(_, open)| has_it(open)).map(|(pid, _)| *pid).collect()
    }
}

/// The processes that were looked at, each once: a process may be client, holder, waiter and
/// reader.
#[derive(Default)]
struct Processes(HashMap<u32, ProcessInfo>);

impl Processes {
    fn process(&mut self, pid: u32, is_confirmed: bool) -> ProcessInfo {
        let known = self.0.entry(pid).or_insert_with(|| ProcessInfo::of(pid, is_confirmed));
        known.is_confirmed |= is_confirmed;
        known.clone()
    }

    /// The process with an id from the sidecar, if it may be the one that wrote the id. It is in
    /// this pid namespace, and its program's name is `program`, as far as that is known.
    fn supposed(&mut self, pid: u32, program: Option<&str>) -> Option<ProcessInfo> {
        let process = self.process(pid, false);
        let name = process.program.as_deref()?;
        let is_called_so = |program: &str| program.starts_with(name) || name.starts_with(program);
        (process.own_pid.is_none() && program.is_none_or(is_called_so)).then_some(process)
    }
}
