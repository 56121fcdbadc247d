//! Those who look at a database from outside and compare its length with its header: a check of an application,
//! in either order, and a tool that copies page by page.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

/// How long a database is, in bytes, by the beginning of its header.
/// <https://www.sqlite.org/fileformat2.html#the_database_header>
#[must_use]
pub fn by_header(header: &[u8; 32]) -> u64 {
    page_size(header)
        * u64::from(u32::from_be_bytes([header[28], header[29], header[30], header[31]]))
}

fn page_size(header: &[u8; 32]) -> u64 {
    match u16::from_be_bytes([header[16], header[17]]) {
        1 => 65536,
        page => u64::from(page),
    }
}

/// Three observers of one database, as threads that look again and again.
pub struct Observers {
    is_over: Arc<AtomicBool>,
    deficits: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Observers {
    /// Begins to look at the database at `path`, which has a header already.
    ///
    /// # Panics
    /// If it cannot be opened.
    #[must_use]
    pub fn start(path: &Path) -> Self {
        let (is_over, deficits) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let looks: [fn(&File) -> bool; 3] = [size_first, header_first, copies];
        let threads = looks.map(|sees_deficit| {
            let file = File::open(path).expect("it is there");
            let (is_over, deficits) = (Arc::clone(&is_over), Arc::clone(&deficits));
            std::thread::spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    deficits.fetch_add(sees_deficit(&file).into(), Ordering::Relaxed);
                }
            })
        });
        Self { is_over, deficits, threads: threads.into() }
    }

    /// How often one of them has found the file shorter than its header says.
    #[must_use]
    pub fn deficits(&self) -> u64 {
        self.deficits.load(Ordering::Relaxed)
    }

    /// Ends them, and says the same.
    ///
    /// # Panics
    /// If one of them could not look.
    #[must_use]
    pub fn end(self) -> u64 {
        self.is_over.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("it can look");
        }
        self.deficits.load(Ordering::Relaxed)
    }
}

fn size(file: &File) -> u64 {
    file.metadata().expect("it is open").len()
}

fn header(file: &File) -> [u8; 32] {
    let mut header = [0; 32];
    file.read_exact_at(&mut header, 0).expect("it has a header");
    header
}

fn size_first(file: &File) -> bool {
    let size = size(file);
    size < by_header(&header(file))
}

fn header_first(file: &File) -> bool {
    let length = by_header(&header(file));
    // A VACUUM may make both shorter in between.
    size(file) < length && by_header(&header(file)) == length
}

fn copies(file: &File) -> bool {
    let header = header(file);
    let (length, bytes) = (by_header(&header), page_size(&header));
    let mut page = vec![0; bytes as usize];
    let ends = (0..length / bytes).any(|nth| file.read_exact_at(&mut page, nth * bytes).is_err());
    ends && by_header(&self::header(file)) == length
}
