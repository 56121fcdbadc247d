//! A base file for tests. It records the calls it gets, and grants every lock unless a test sets another answer.

use std::cell::{Cell, RefCell};
use std::ffi::c_int;
use std::path::Path;
use std::sync::Arc;

use super::base_file::{BaseFile, Doing, LastCommit, Running, Sought, Stands};
use super::{AtOpen, Guards};
use crate::ffi::host::Host;
use crate::ffi::{LockLevel, ResultCode, ShmFlags, ShmSlot, ShmSlots};
use crate::format::wal_index::HeaderMark;
use crate::format::{Header, Salts, WAL_INDEX_SUFFIX, WAL_SUFFIX, beside};
use crate::group_commit::WalIndex;
use crate::group_commit::test_wal::{TestCommitter, TestWal};
use crate::guard::identity::Identity;
use crate::lock::Database;
use crate::lock::kinds::Kind;
use crate::lock::wait::Probe;
use crate::log::Log;

/// A call that the base file has received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Lock(ShmSlots),
    Unlock(ShmSlots),
    MayBlock(c_int),
    WriteZeros(i64, i64),
    SetCopied(u32),
    SetSize(i64),
    ClearWalIndex,
}
pub(crate) use Call::*;

/// Each call takes the first answer off its list. The last answer stays.
pub(crate) struct TestBase {
    pub(crate) sizes: RefCell<Vec<Option<i64>>>,
    pub(crate) header: Option<Header>,
    pub(crate) salts: RefCell<Vec<Option<Salts>>>,
    pub(crate) frames: RefCell<Vec<Option<(u32, u32)>>>,
    /// The answer to a lock of slots that begin with this one.
    pub(crate) refuses: Option<(ShmSlot, ResultCode)>,
    /// The answer to any other lock of slots.
    pub(crate) slot_answer: Cell<ResultCode>,
    /// Gives the answer to xLock.
    pub(crate) on_lock: RefCell<Option<Box<dyn Fn() -> ResultCode>>>,
    /// How many exclusive locks on WRITE are still refused.
    pub(crate) refuses_write: Cell<u32>,
    /// The mark of READ(1), if a reader holds that slot.
    pub(crate) reader: Cell<Option<u32>>,
    /// Whether another connection holds RESERVED.
    pub(crate) is_reserved: Cell<bool>,
    /// Whether a shared lock on a slot is refused.
    pub(crate) refuses_shared: Cell<bool>,
    /// Whether a lock to write is for BEGIN IMMEDIATE. Else it is an upgrade.
    pub(crate) is_immediate: Cell<bool>,
    pub(crate) doing: Cell<Option<Doing>>,
    pub(crate) running: Cell<Option<Running>>,
    /// Whether the connection writes to any database.
    pub(crate) is_writing: Cell<bool>,
    /// Whether the connection writes to another database.
    pub(crate) writes_elsewhere: Cell<bool>,
    /// Whether BEGIN has begun a transaction.
    pub(crate) is_in_transaction: Cell<bool>,
    /// The connection's busy handler.
    pub(crate) busy_handler: RefCell<Option<Box<dyn Fn() -> bool>>>,
    /// The value of all words of the wal-index's header.
    pub(crate) index_headers: RefCell<Vec<u32>>,
    pub(crate) stands: Stands,
    pub(crate) user: usize,
    /// How long lock calls may block, in ms.
    pub(crate) blocks_ms: Cell<c_int>,
    /// The offsets of pages, behind the header, that are not all zeros.
    pub(crate) data: RefCell<Vec<i64>>,
    /// What xWrite answers if no page can be added to the file.
    pub(crate) write_fails: Cell<Option<ResultCode>>,
    pub(crate) calls: RefCell<Vec<Call>>,
    /// The calls of xShmLock, with their flags.
    pub(crate) slots: RefCell<Vec<(ShmSlots, ShmFlags)>>,
    /// The levels to which xUnlock was called.
    pub(crate) unlocked: RefCell<Vec<LockLevel>>,
}

impl Default for TestBase {
    fn default() -> Self {
        Self {
            sizes: RefCell::new(vec![Some(0)]),
            header: None,
            salts: RefCell::new(vec![None]),
            frames: RefCell::new(vec![Some((1, 0))]),
            refuses: None,
            slot_answer: Cell::default(),
            on_lock: RefCell::default(),
            refuses_write: Cell::default(),
            reader: Cell::default(),
            is_reserved: Cell::default(),
            refuses_shared: Cell::default(),
            is_immediate: Cell::default(),
            doing: Cell::default(),
            running: Cell::default(),
            is_writing: Cell::new(true),
            writes_elsewhere: Cell::default(),
            is_in_transaction: Cell::default(),
            busy_handler: RefCell::default(),
            index_headers: RefCell::new(vec![0]),
            stands: Stands::Alone,
            user: 1,
            blocks_ms: Cell::default(),
            data: RefCell::default(),
            write_fails: Cell::default(),
            calls: RefCell::default(),
            slots: RefCell::default(),
            unlocked: RefCell::default(),
        }
    }
}

/// Takes the next of these answers. The last one stays.
fn next<T: Copy>(answers: &RefCell<Vec<T>>) -> T {
    let mut answers = answers.borrow_mut();
    if answers.len() > 1 { answers.remove(0) } else { answers[0] }
}

impl TestBase {
    /// A database of `pages` pages of 4096 bytes, whose header says that there are `header_pages`.
    pub(crate) fn of_size(pages: i64, header_pages: u32) -> Self {
        let sizes = RefCell::new(vec![Some(4096 * pages)]);
        Self { sizes, header: Some(header(header_pages)), ..Self::default() }
    }

    /// A database with a WAL. `frames` are the answers to how many frames there are and how many are copied,
    /// `salts` those to which salts the wal-index has.
    pub(crate) fn of_wal(frames: &[(u32, u32)], salts: &[Salts]) -> Self {
        Self {
            frames: RefCell::new(frames.iter().copied().map(Some).collect()),
            salts: RefCell::new(salts.iter().copied().map(Some).collect()),
            ..Self::default()
        }
    }

    /// Keeps it for the life of the test's process, since a connection copies its handle of the base file
    /// freely.
    pub(crate) fn leak(self) -> &'static Self {
        Box::leak(Box::new(self))
    }

    /// A base file that answers xLock by `on_lock`.
    pub(crate) fn answering(on_lock: impl Fn() -> ResultCode + 'static) -> &'static Self {
        let base = Self::default().leak();
        *base.on_lock.borrow_mut() = Some(Box::new(on_lock));
        base
    }

    /// Sets the length of the file.
    pub(crate) fn has_bytes(&self, bytes: i64) {
        *self.sizes.borrow_mut() = vec![Some(bytes)];
    }

    /// Records a call.
    pub(crate) fn note(&self, call: Call) {
        self.calls.borrow_mut().push(call);
    }
}

/// The header of a database in a rollback mode that has `pages` pages of 4096 bytes.
pub(crate) fn header(pages: u32) -> Header {
    let mut header = [0; Header::SIZE];
    header[..16].copy_from_slice(Header::MAGIC);
    header[16..18].copy_from_slice(&4096_u16.to_be_bytes());
    header[18..20].copy_from_slice(&[1, 1]);
    header[28..32].copy_from_slice(&pages.to_be_bytes());
    Header(header)
}

impl WalIndex for &'static TestBase {
    type Wal = &'static TestWal;

    fn committed(&self) -> Option<(Salts, u32)> {
        self.salts().zip(self.frames().map(|(frames, _)| frames))
    }
    fn committer(&self) -> Option<TestCommitter> {
        None
    }
}

impl BaseFile for &'static TestBase {
    fn lock(&self, _: LockLevel) -> ResultCode {
        self.on_lock.borrow().as_ref().map_or(ResultCode::OK, |answer| answer())
    }
    fn unlock(&self, level: LockLevel) -> ResultCode {
        self.unlocked.borrow_mut().push(level);
        ResultCode::OK
    }
    fn is_reserved(&self) -> bool {
        self.is_reserved.get()
    }
    fn shm_lock(&self, slots: ShmSlots, flags: ShmFlags) -> ResultCode {
        self.slots.borrow_mut().push((slots, flags));
        if !flags.is_lock() {
            self.note(Unlock(slots));
            return ResultCode::OK;
        }
        self.note(Lock(slots));
        if let Some((_, rc)) = self.refuses.filter(|(slot, _)| *slot == slots.first) {
            return rc;
        }
        if self.slot_answer.get() != ResultCode::OK {
            return self.slot_answer.get();
        }
        if self.refuses_shared.get() && flags.is_shared() {
            return ResultCode::BUSY;
        }
        if slots.first == ShmSlot::WRITE && self.refuses_write.get() > 0 {
            self.refuses_write.set(self.refuses_write.get() - 1);
            return ResultCode::BUSY;
        }
        let is_readers = !flags.is_shared() && slots.first == ShmSlot::read(1);
        match is_readers && self.reader.get().is_some() {
            true if self.blocks_ms.get() > 0 => panic!("the lock call waits for the reader"),
            true => ResultCode::BUSY,
            false => ResultCode::OK,
        }
    }
    fn may_block(&self, ms: c_int) {
        self.blocks_ms.set(ms);
        self.note(MayBlock(ms));
    }
    fn size(&self) -> Result<i64, ResultCode> {
        next(&self.sizes).ok_or(ResultCode::IOERR)
    }
    fn is_upgrade(&self) -> bool {
        !self.is_immediate.get()
    }
    fn only_reads(&self) -> bool {
        false
    }
    fn statement(&self) -> Option<String> {
        None
    }
    fn last_commit(&self) -> LastCommit {
        LastCommit::default()
    }
    fn meant_to_copy(&self) -> Option<u32> {
        None
    }
    fn is_in_autocommit(&self) -> bool {
        !self.is_in_transaction.get()
    }
    fn user(&self) -> usize {
        self.user
    }
    fn is_main(&self) -> bool {
        true
    }
    fn is_writing(&self) -> bool {
        self.is_writing.get()
    }
    fn writes_elsewhere(&self) -> bool {
        self.writes_elsewhere.get()
    }
    fn running(&self, wants_kind: bool) -> Option<Running> {
        let without = |running: Running| Running { kind: None, ..running };
        self.running.get().map(|running| if wants_kind { running } else { without(running) })
    }
    fn ask_busy_handler(&self) -> Option<bool> {
        self.busy_handler.borrow().as_ref().map(|handler| handler())
    }
    fn is_interrupted(&self) -> bool {
        false
    }
    fn known_kind(&self) -> Option<Kind> {
        self.running.get()?.kind
    }
    fn wal_index_mark(&self) -> Option<HeaderMark> {
        Some([next(&self.index_headers); 4])
    }
    fn doing(&self) -> Option<Doing> {
        self.doing.get()
    }
    fn probe(&self, _: Sought) -> Probe {
        Box::new(|| true)
    }
    fn frames(&self) -> Option<(u32, u32)> {
        next(&self.frames)
    }
    fn salts(&self) -> Option<Salts> {
        next(&self.salts)
    }
    fn checksum_without_commit(&self) -> Option<u32> {
        self.frames().is_some_and(|(frames, _)| frames == 0).then_some(7)
    }
    fn header(&self) -> Option<Header> {
        self.header
    }
    fn read_mark(&self, n: c_int) -> Option<u32> {
        self.reader.get().filter(|_| n == 1)
    }
    fn write_zeros(&self, at: i64, bytes: i64) -> Result<(), ResultCode> {
        self.note(WriteZeros(at, bytes));
        self.data.borrow_mut().retain(|page| *page != at);
        self.write_fails.get().map_or(Ok(()), Err)
    }
    fn read(&self, at: i64, into: &mut [u8]) -> Result<(), ResultCode> {
        into.fill(0);
        for page in self.data.borrow().iter() {
            let begins = usize::try_from(page - at).ok();
            if let Some(first) = begins.and_then(|begins| into.get_mut(begins)) {
                *first = b'x';
            }
        }
        Ok(())
    }
    fn set_size(&self, bytes: i64) {
        self.note(SetSize(bytes));
    }
    fn stands(&self, _: &Path) -> Stands {
        self.stands
    }
    fn set_copied(&self, frames: u32) {
        self.note(SetCopied(frames));
    }
    fn clear_wal_index(&self) {
        self.note(ClearWalIndex);
    }
}

/// The guards of a connection over a [`TestBase`].
pub(crate) type TestGuards = Guards<&'static TestBase>;

/// A board with a WAL and the guards of a connection to it. The directory is deleted when it is dropped.
#[cfg(feature = "linked")]
pub(crate) fn board() -> (tempfile::TempDir, Arc<Database>, TestGuards) {
    let place = tempfile::tempdir().expect("a directory");
    let path = place.path().join("board.db");
    for suffix in ["", WAL_SUFFIX, WAL_INDEX_SUFFIX] {
        std::fs::write(beside(&path, suffix), "something").expect("a file");
    }
    let host = Host::linked().expect("a linked SQLite");
    let known = AtOpen { identity: Identity::of(&path, false), no_wal: None, keeps_ahead: false };
    let database = Database::at(&path);
    let log = Log::of(host, 1, false);
    let mut guards = Guards::new(TestBase::default().leak(), &database, log, known);
    guards.wal_opened();
    (place, database, guards)
}
