//! What may be on the disk, according to the record.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use fastrand::Rng;

use super::record::{Event, FileId};

const SECTOR: usize = 512;

/// All states that the events so far allow.
#[derive(Default)]
pub(super) struct Disk {
    files: HashMap<FileId, Content>,
    /// What each name stood for since the last sync of the directory. The first entry is what it
    /// stood for at that sync.
    names: BTreeMap<PathBuf, Vec<Since<Option<FileId>>>>,
    events: usize,
}

/// A value that something has had since that event.
#[derive(Clone)]
struct Since<T> {
    event: usize,
    was: T,
}

#[derive(Default)]
struct Content {
    /// The contents at the last sync.
    durable: Vec<u8>,
    /// The contents that processes see.
    now: Vec<u8>,
    /// The sizes since the last sync.
    sizes: Vec<Since<usize>>,
    /// What was written since then, by sector.
    sectors: BTreeMap<usize, Vec<Since<[u8; SECTOR]>>>,
}

/// How much of what was not synced reached the disk.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fate {
    /// Nothing.
    Lost,
    /// Everything.
    Kept,
    /// Everything up to some moment, and some sectors of the next write.
    Until,
    /// The same, but no earlier write is torn.
    InOrder,
    /// Each sector, each size and each name is as it was at some moment of its own. It is the last
    /// moment with a probability of this number of sixteenths.
    Mixed(u8),
}

impl Fate {
    pub(super) fn any(random: &mut Rng) -> Self {
        match random.u8(..10) {
            0 => Self::Lost,
            1 => Self::Kept,
            2..5 => Self::Until,
            _ => Self::Mixed(*random.choice(&[1, 4, 8, 12, 15]).expect("some")),
        }
    }
}

/// What reaches the disk, if at all, in the order in which it was done.
#[derive(Clone, Copy)]
pub(super) struct Orders {
    /// No file has a size that it got after the deletion of a file that is back.
    pub(super) sizes_wait: bool,
    /// Writes to a journal are in order.
    pub(super) journals: bool,
}

/// A disk as a power cut may leave it.
#[derive(Default)]
pub(super) struct State {
    files: BTreeMap<PathBuf, Vec<u8>>,
    /// Whether a deleted file is back.
    pub(super) is_back: bool,
    /// The fate of each file, for a report.
    pub(super) fates: Vec<(PathBuf, Fate)>,
}

impl Disk {
    /// Makes a disk from a state, in a directory, and numbers its files in order.
    pub(super) fn of(state: &State, directory: &Path) -> Self {
        let mut disk = Self::default();
        let files = state.in_directory(directory).zip(state.files.values());
        for (file, (name, bytes)) in files.enumerate() {
            let (durable, now) = (bytes.clone(), bytes.clone());
            disk.files.insert(file, Content { durable, now, ..Content::default() });
            disk.names.insert(name, vec![Since { event: 0, was: Some(file) }]);
        }
        disk
    }

    pub(super) fn apply(&mut self, event: &Event) {
        self.events += 1;
        let now = self.events;
        match event {
            Event::Create(name, file) => {
                self.files.insert(*file, Content::default());
                self.name(name, Some(*file));
            }
            Event::Delete(name) => self.name(name, None),
            Event::Write(file, offset, bytes) => {
                self.content(*file).write(now, *offset as usize, bytes);
            }
            Event::Truncate(file, size) => self.content(*file).resize(now, *size as usize),
            Event::Sync(file, _) => self.content(*file).sync(),
            Event::SyncDirectory => {
                for was in self.names.values_mut() {
                    was.drain(..was.len() - 1);
                }
            }
            Event::Lock | Event::Attempt(..) | Event::Acknowledged(_) => {}
        }
    }

    fn content(&mut self, file: FileId) -> &mut Content {
        self.files.get_mut(&file).expect("it was created")
    }

    fn name(&mut self, name: &Path, file: Option<FileId>) {
        let missing = || vec![Since { event: 0, was: None }];
        let was = self.names.entry(name.to_owned()).or_insert_with(missing);
        was.push(Since { event: self.events, was: file });
    }

    /// One of the disks that a power cut may leave now. With a fate, all files share it; otherwise
    /// each file has its own.
    pub(super) fn cut(&self, fate: Option<Fate>, orders: Orders, random: &mut Rng) -> State {
        let mut state = State::default();
        let mut found = Vec::new();
        let mut until = usize::MAX;
        for (name, was) in &self.names {
            let mut fate = fate.unwrap_or_else(|| Fate::any(random));
            let is_journal = name.as_os_str().as_encoded_bytes().ends_with(b"-journal");
            if orders.journals && is_journal && matches!(fate, Fate::Until | Fate::Mixed(_)) {
                fate = Fate::InOrder;
            }
            let last = was.len() - 1;
            let n = match fate {
                Fate::Lost => 0,
                Fate::Kept => last,
                _ => random.usize(..=last),
            };
            if let (Some(_), Some(deleted)) = (was[n].was, was.get(n + 1)) {
                state.is_back = true;
                until = until.min(deleted.event);
            }
            found.extend(was[n].was.map(|file| (name, file, fate)));
        }
        let until = if orders.sizes_wait { until } else { usize::MAX };
        for (name, file, fate) in found {
            state.files.insert(name.clone(), self.files[&file].cut(fate, until, random));
            state.fates.push((name.clone(), fate));
        }
        state
    }

    /// Whether the files have the contents that processes see according to the record.
    pub(super) fn matches(&self) -> bool {
        self.names.iter().all(|(name, was)| {
            match (was.last().and_then(|last| last.was), std::fs::read(name)) {
                (Some(file), Ok(bytes)) => self.files[&file].now == bytes,
                (None, Err(_)) => true,
                _ => false,
            }
        })
    }
}

impl Content {
    fn write(&mut self, event: usize, offset: usize, bytes: &[u8]) {
        let end = offset + bytes.len();
        if end > self.now.len() {
            self.resize(event, end);
        }
        self.now[offset..end].copy_from_slice(bytes);
        for sector in offset / SECTOR..end.div_ceil(SECTOR) {
            let was = padded(&self.now, sector).expect("it is long enough");
            self.sectors.entry(sector).or_default().push(Since { event, was });
        }
    }

    fn resize(&mut self, event: usize, size: usize) {
        self.now.resize(size, 0);
        self.sizes.push(Since { event, was: size });
    }

    fn sync(&mut self) {
        self.durable.clone_from(&self.now);
        self.sizes.clear();
        self.sectors.clear();
    }

    fn cut(&self, fate: Fate, until: usize, random: &mut Rng) -> Vec<u8> {
        let moment = match fate {
            Fate::Lost => return self.durable.clone(),
            Fate::Kept if self.sizes.iter().all(|since| since.event < until) => {
                return self.now.clone();
            }
            Fate::Kept => Some(usize::MAX),
            Fate::Mixed(_) => None,
            Fate::Until | Fate::InOrder => {
                let written = self.sectors.values().flatten().map(|since| since.event);
                let resized = self.sizes.iter().map(|since| since.event);
                random.choice(written.chain(resized).collect::<Vec<_>>())
            }
        };
        // Up to a moment: the last event before it, or at it by chance. Without a moment: the last
        // event, or any.
        let mut pick = |events: &[usize]| match (moment, fate) {
            (Some(moment), _) => {
                let before = events.iter().filter(|event| **event < moment).count();
                before + usize::from(events.get(before) == Some(&moment) && random.bool())
            }
            (None, Fate::Mixed(kept)) if random.u8(..16) < kept => events.len(),
            _ => random.usize(..=events.len()),
        };
        let sizes = self.sizes.iter().map(|since| since.event);
        let events: Vec<_> = sizes.take_while(|event| *event < until).collect();
        let size = match pick(&events) {
            0 => self.durable.len(),
            n => self.sizes[n - 1].was,
        };
        let mut bytes = self.durable.clone();
        bytes.resize(size, 0);
        let mut picked = Vec::new();
        for (sector, was) in &self.sectors {
            let events: Vec<_> = was.iter().map(|since| since.event).collect();
            picked.push((*sector, was, pick(&events)));
        }
        let garbage = random.bool().then(|| random.u8(1..));
        for (sector, was, n) in picked {
            let Some(room) = bytes.get_mut(sector * SECTOR..) else { break };
            let room = &mut room[..SECTOR.min(size.saturating_sub(sector * SECTOR))];
            let old = match n {
                0 | 1 => padded(&self.durable, sector),
                n => Some(was[n - 2].was),
            };
            let new = match n {
                // The file has grown, and what was written there is not on the disk yet.
                0 => old.unwrap_or([garbage.unwrap_or(0); SECTOR]),
                n => was[n - 1].was,
            };
            room.copy_from_slice(&new[..room.len()]);
            // A sector is written from one end to the other.
            let may_be_torn = match fate {
                Fate::InOrder => n > 0 && Some(was[n - 1].event) == moment,
                _ => n > 0,
            };
            if let Some(old) = old.filter(|_| may_be_torn && random.u8(..32) == 0) {
                let split = random.usize(..=room.len());
                let part = if random.bool() { 0..split } else { split..room.len() };
                room[part.clone()].copy_from_slice(&old[part]);
            }
        }
        bytes
    }
}

/// A sector of a file, with zeros behind the file's end; `None` if the sector begins there.
fn padded(bytes: &[u8], sector: usize) -> Option<[u8; SECTOR]> {
    let bytes = bytes.get(sector * SECTOR..).filter(|bytes| !bytes.is_empty())?;
    let mut whole = [0; SECTOR];
    let n = bytes.len().min(SECTOR);
    whole[..n].copy_from_slice(&bytes[..n]);
    Some(whole)
}

impl State {
    pub(super) fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.files.hash(&mut hasher);
        hasher.finish()
    }

    /// The names of its files, in another directory.
    pub(super) fn in_directory(&self, directory: &Path) -> impl Iterator<Item = PathBuf> {
        self.files.keys().map(|name| directory.join(name.file_name().expect("a file's name")))
    }

    /// Writes this disk into an empty directory.
    pub(super) fn write(&self, directory: &Path) -> std::io::Result<()> {
        let mut files = self.in_directory(directory).zip(self.files.values());
        files.try_for_each(|(name, bytes)| std::fs::write(name, bytes))
    }
}
